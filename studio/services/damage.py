"""Damage a text carries from where it was made: characters read in a wrong encoding, marks of a template, loops."""

import re
from operator import eq

from ftfy import fix_encoding
from ftfy.badness import is_bad

# Marks that the chat templates of models put around turns; a model must never read them as words of its data.
MARKS = re.compile(
    r"<\|(?:im_start|start_header_id)\|>(?:system|user|assistant)?(?:<\|end_header_id\|>)?\s*"
    r"|<\|[a-z0-9_]{2,30}\|>"
    r"|<｜[^｜<>\n]{1,40}｜>"
    r"|<start_of_turn>(?:user|model)?\n?|<end_of_turn>"
    r"|\[/?INST\]|<</?SYS>>"
    r"|^\s*<s>|</s>\s*$"
)
WINDOW = 240  # words at the end that are looked at: a loop never ends by itself
LONGEST_PERIOD = 24  # words that are said again and again
FEWEST_WORDS = 16  # in a loop
COPIES = 4
LONG_WORD = 40  # letters
LETTERS = re.compile(rf"([^\W_])\1{{{LONG_WORD - 1}}}")  # the same letter or figure all along
SPACELESS = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")  # writing without spaces: a sign is a word


def mend_encoding(text: str) -> str:
    """Return the text with what was read in a wrong encoding as it was meant: “cafÃ©” is “café”."""
    return text if text.isascii() or not is_bad(text) else fix_encoding(text)


def remove_marks(text: str) -> str:
    """Return the text without a template's marks. Taking one out may join two halves of another."""
    while "<" in text or "INST]" in text:
        shorter = MARKS.sub("", text)
        if shorter == text:
            break
        text = shorter
    return text


def loops(text: str) -> bool:
    """Tell whether the text ends in the same words again and again, as a model does that is stuck."""
    spaceless = not text.isascii() and SPACELESS.search(text)
    words = list(text[-WINDOW:]) if spaceless else text[-8 * WINDOW :].split()[-WINDOW:]
    if words and len(max(words, key=len)) >= LONG_WORD and LETTERS.search(text):
        return True
    if len(words) < FEWEST_WORDS or len(set(words)) > len(words) / 2:
        return False
    for period in range(1, min(LONGEST_PERIOD, len(words) // COPIES) + 1):
        needed = max(period * (COPIES - 1), FEWEST_WORDS - period)
        same = list(map(eq, words[period:], words))
        if sum(same) < needed:
            continue
        run = 0
        for word, again in zip(words[period:], same, strict=True):
            run = run + 1 if again else 0
            if run >= needed and any(sign.isalpha() for sign in word):
                return True
    return False
