"""Secrets and personal data: found by form and checksum, hidden once, and nothing else touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.services.private import hide_personal, hide_secrets

# put together here, so that no scanner takes them for real ones
KEYS = ["AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18, "sk-" + "proj-" + "aB3" * 12, "hf_" + "abCd" * 8 + "ef"]
KEYS += [
    "xox" + "b-1234567890-abcdefghijk",
    "glpat-" + "x" * 20,
    "eyJ" + "hbGciOiJIUzI.eyJ" + "zdWIiOiIxMjM." + "s" * 24,
]
KEYS += ["-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\nabc\n-----END RSA " + "PRIVATE KEY-----"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_hidden(key: str) -> None:
    assert hide_secrets(f"use {key} here") == "use [secret] here"


@pytest.mark.parametrize(
    "text", ["the sk-learn package", "task-force", "AKIA is short", "hf_hub_download(repo_id)", "your PRIVATE KEY file"]
)
def test_words_like_a_key_stay(text: str) -> None:
    assert hide_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Write to anna.berg+x@mail.acme.co.uk.", "Write to [email]."),
        ("Call +49 30 901820 or (212) 555-0172.", "Call [phone] or [phone]."),
        ("Card 4111 1111 1111 1111 is mine", "Card [card] is mine"),
        ("Amex 378282246310005", "Amex [card]"),
        ("to DE89 3704 0044 0532 0130 00 please", "to [bank account] please"),
        ("GB82WEST12345698765432", "[bank account]"),
        ("SSN 536-90-4399", "SSN [social security]"),
    ],
)
def test_personal_data_is_hidden(text: str, hidden: str) -> None:
    assert hide_personal(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com is for examples",
        "order 4111 1111 1111 1112 has a wrong checksum",
        "DE00 3704 0044 0532 0130 00 too",
        "12.50 + 30.25 = 42.75",
        " ".join(str(number) for number in range(4000, 5000)),
        "2024-01-15 to 2024-02-15",
        "192.168.100.200",
        "1,000,000,000 and 3.14159265358979",
        "000-12-3456",
        "@name and a@b",
        "room 12345678",
    ],
)
def test_figures_that_are_nobodys_stay(text: str) -> None:
    assert hide_personal(text) == text


@given(
    st.lists(
        st.text(max_size=6)
        | st.sampled_from([*KEYS, "a@b.com", "4111111111111111", "+4930901820", "DE89370400440532013000", " ", "-"]),
        max_size=6,
    ).map("".join)
)
def test_hiding_twice_is_hiding_once(text: str) -> None:
    for hide in (hide_secrets, hide_personal):
        assert hide(hide(text)) == hide(text)
