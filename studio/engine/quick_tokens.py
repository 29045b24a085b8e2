"""Tokens of each word asked for once: text comes apart at spaces, and the words of a file repeat.

The tokenizer stays the truth: each word's tokens are its own. What makes a whole text the sum of its words is that the
tokenizer never looks across a space between two other characters, and `apart_at_spaces` is sure of that for the ways of
splitting it knows. The first texts are compared with what the tokenizer makes of them whole, besides.
"""

import json
import re
import threading
from collections import defaultdict
from itertools import chain, islice
from typing import Any

import numpy as np

Encoded = tuple[np.ndarray, np.ndarray]  # ids of all texts one after the other, and how many each text has
CHUNK = 128  # texts a call: what the tokenizer makes of more does not fit the processor's cache
COMPARED = 200  # texts
NEW = 0.25  # a share of new words from which whole texts are quicker
ROOM = 16_000_000  # bytes the words may take, about, until they are forgotten
APART = re.compile(r"(?<=\S)(?= \S)")  # before each space between two characters that are no white space
IRREGULAR = re.compile(r"\s\s|\0")
# Every alternative takes white space alone, or a space at its beginning at most; none looks back.
ENDINGS, BREAKS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = (
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BREAKS,
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BREAKS,
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + BREAKS,
)


def encode(backend: Any, texts: list[str]) -> Encoded:
    """Return the tokens of texts as the tokenizer gives them, without special tokens around them."""
    parts: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        encoded = backend.encode_batch_fast(texts[start : start + CHUNK], add_special_tokens=False)
        parts += [each.ids for each in encoded]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.fromiter(chain.from_iterable(parts), np.int32, lengths.sum()), lengths


def apart_at_spaces(backend: Any) -> bool:
    """Whether a text's tokens are surely those of its parts, cut before a space that stands between other characters.

    True for byte-level tokenizers that split like GPT-2, Llama 3 or Qwen, with or without digits taken apart first.
    """
    splitter, normaliser = (
        json.loads(part.__getstate__()) if part else {} for part in (backend.pre_tokenizer, backend.normalizer)
    )
    steps = splitter.get("pretokenizers", [splitter])
    if steps[0].get("type") == "Digits":
        steps = steps[1:]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            known = True
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False},
        ]:
            known = pattern in PATTERNS
        case _:
            known = False
    added = backend.get_added_tokens_decoder().values()
    local = not any(token.lstrip or token.rstrip or re.search(r"\S\s", token.content) for token in added)
    return known and local and normaliser.get("type") in (None, "NFC") and not getattr(backend.model, "dropout", None)


class Words:
    """An encoder of texts that remembers words; used from several threads."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.use = apart_at_spaces(backend)
        self.compared = False
        self.lock = threading.Lock()
        self._forget()

    def __call__(self, texts: list[str]) -> Encoded:
        """Return the tokens of texts, as `encode` does."""
        with self.lock:
            found = self._of_words(texts) if self.use and texts else None
            if found and not self.compared:
                self.compared = True
                ids, lengths = encode(self.backend, texts[:COMPARED])
                self.use = np.array_equal(lengths, found[1][:COMPARED]) and np.array_equal(ids, found[0][: len(ids)])
                found = found if self.use else None
        return found or encode(self.backend, texts)

    def _forget(self) -> None:
        self.numbers: defaultdict[str, int] = defaultdict()
        self.numbers.default_factory = self.numbers.__len__  # a new word gets the next number
        self.ids, self.lengths = np.zeros(0, np.int32), np.zeros(0, np.int64)  # of all words, by number
        self.room = 0

    def _of_words(self, texts: list[str]) -> Encoded | None:
        """Put texts together from words; None where too many are new."""
        split = list(map(_words, texts))
        counts = np.fromiter(map(len, split), np.int64, len(split))
        before = len(self.numbers)
        numbers = np.fromiter(map(self.numbers.__getitem__, chain.from_iterable(split)), np.int64, counts.sum())
        new = list(islice(self.numbers, before, None))
        if before and len(new) > NEW * len(numbers):
            for word in new:
                del self.numbers[word]
            return None
        ids, lengths = encode(self.backend, new)
        self.ids, self.lengths = np.concatenate([self.ids, ids]), np.concatenate([self.lengths, lengths])
        starts = np.cumsum(self.lengths) - self.lengths
        made = self.lengths[numbers]
        places = np.repeat(starts[numbers] - (np.cumsum(made) - made), made) + np.arange(made.sum())
        result = self.ids[places], np.add.reduceat(made, np.cumsum(counts) - counts)
        self.room += sum(map(len, new)) + 120 * len(new)
        if self.room > ROOM:
            self._forget()
        return result


def _words(text: str) -> list[str]:
    """Cut a text where `APART` says; where no white space meets, every space will do, and no pattern is needed."""
    return APART.split(text) if IRREGULAR.search(text) else text.replace(" ", "\0 ").split("\0")
