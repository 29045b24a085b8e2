"""Which language a text is in, offline: a table of letter groups for 97 languages, loaded when first asked."""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

FEWEST = 60  # characters: the languages of shorter texts cannot be told apart
LOOKED_AT = 200  # characters
SURE = 0.99
LETTERS = re.compile(r"[^\W\d_]")
CLOSE = {"nb": "no", "nn": "no", "bs": "hr", "sh": "hr", "ms": "id"}  # written too much alike
NAMES = dict(
    ar="Arabic", bg="Bulgarian", bn="Bengali", ca="Catalan", cs="Czech", da="Danish", de="German", el="Greek",
    en="English", es="Spanish", et="Estonian", fa="Persian", fi="Finnish", fr="French", he="Hebrew", hi="Hindi",
    hr="Croatian", hu="Hungarian", id="Indonesian", it="Italian", ja="Japanese", ko="Korean", lt="Lithuanian",
    lv="Latvian", nl="Dutch", no="Norwegian", pl="Polish", pt="Portuguese",
    ro="Romanian", ru="Russian", sk="Slovak", sl="Slovenian", sr="Serbian", sv="Swedish", ta="Tamil", th="Thai",
    tr="Turkish", uk="Ukrainian", ur="Urdu", vi="Vietnamese", zh="Chinese",
)  # fmt: skip


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import (  # 100 MB and a second, in the process of the check alone
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """Return the code of the text's language, or "" when it is too short, no prose, or not sure."""
    if len(text) < FEWEST:
        return ""
    text = text[:LOOKED_AT]
    if len(LETTERS.findall(text)) < 0.7 * len(text):  # figures, code, tables
        return ""
    code, share = _identifier().classify(text)
    return CLOSE.get(code, code) if share >= SURE else ""


def named(code: str) -> str:
    """Return the name of a language in English, or its code."""
    return NAMES.get(code, code)
