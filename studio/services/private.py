"""What must not be learned: personal data and secrets that have a form of their own, found by it and by checksums.

Not found: names, postal addresses, dates of birth, passwords in free words, and numbers written in an unusual way.
"""

import re

from stdnum import iban, luhn
from stdnum.us import ssn

# Keys and tokens that begin as their makers say, and private keys; a password in free words looks like any word.
SECRETS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{60,}\b|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{32,}|\b[rs]k_live_[A-Za-z0-9]{20,}\b"
    r"|\bhf_[A-Za-z]{34}\b|\bAIza[A-Za-z0-9_-]{35}\b|\bnpm_[A-Za-z0-9]{36}\b|\bpypi-AgE[A-Za-z0-9_-]{50,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{20,}|\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\S]{0,20000}?-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
)
# Quicker to look for than the forms.
SECRET_HINTS = ["AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat-", "sk-", "k_live_", "hf_"]
SECRET_HINTS += ["AIza", "npm_", "pypi-", "xox", "SG.", "eyJ", "PRIVATE KEY"]
EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
# Domains set aside for examples (RFC 2606) reach nobody.
NOBODY = re.compile(r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)$", re.IGNORECASE)
# In full form only, with + or brackets: bare figures are as often an order or a price.
PHONE = re.compile(r"(?<![\w+])(?:\+[1-9](?:[ .()/-]{0,2}\d){8,14}|\(\d{3}\) ?\d{3}[ .-]\d{4})(?![\d\w])")
CARD = re.compile(
    r"(?<![\d.,-])(?<!\d )(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|3[47]\d{2}|6(?:011|5\d{2}))"
    r"(?:[ -]?\d){9,12}(?![\d-])(?! \d)"
)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
SOCIAL = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
FIGURES = re.compile(r"\d[\d ().+/-]{7}")


def hide_secrets(text: str) -> str:
    """Return the text with [secret] in place of each key, token and private key."""
    return SECRETS.sub("[secret]", text) if max(map(text.find, SECRET_HINTS)) >= 0 else text


def hide_personal(text: str) -> str:
    """Return the text with [email], [phone], [card], [bank account] and [social security] in place of such data."""
    while (hidden := _hide(text)) != text:  # what was joined to a number may only now stand alone
        text = hidden
    return text


def _hide(text: str) -> str:
    if "@" in text:
        text = EMAIL.sub(lambda found: found[0] if NOBODY.search(found[0]) else "[email]", text)
    if FIGURES.search(text):
        text = IBAN.sub(lambda found: "[bank account]" if iban.is_valid(found[0]) else found[0], text)
        text = CARD.sub(lambda found: "[card]" if _is_card(found[0]) else found[0], text)
        text = SOCIAL.sub(lambda found: "[social security]" if ssn.is_valid(found[0]) else found[0], text)
        text = PHONE.sub("[phone]", text)
    return text


def _is_card(text: str) -> bool:
    figures = re.sub(r"\D", "", text)
    return 13 <= len(figures) <= 16 and luhn.is_valid(figures)
