"""Tokens of many texts by a quicker library, where it is known to give the tokenizer's own.

The tokenizer stays the truth. The quick one is asked only for kinds of tokenizers and for characters on which the two
were tried and agreed, and is compared with the tokenizer on the first texts and on some of every call.
"""

import json
import re
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

Encoded = tuple[np.ndarray, np.ndarray]  # ids of all texts one after the other, and how many each text has
CHUNK = 128  # texts a call: what the tokenizer makes of more does not fit the processor's cache
COMPARED, AGAIN = 200, 50  # the first so many texts, and then one of so many
WORTH = 2_000_000  # bytes of examples from which it saves more than its start takes
ENDINGS, BREAKS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"\s*[\r\n]+|\s+(?!\S)|\s+"
# The ways of splitting on which the two were compared: those of Llama 3, Qwen 2 and Qwen 3.5.
PATTERNS = (
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BREAKS,
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + BREAKS,
    ENDINGS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + BREAKS,
)
# tokie 0.1.4 goes another way with a tab or a break before an ending such as 's, and with letters that are numbers.
SURE = re.compile(
    r"[\t\n\r -~\xa0-\xb1\xb4-\xb8\xbb\xbf-\u024f\u0370-\u04ff\u0600-\u06ff\u0900-\u097f\u0e00-\u0e7f"
    r"\u2010-\u2027\u20ac\u3001\u3002\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3\U0001f300-\U0001faff]*"
)
UNSURE = re.compile(r"[\t\n\r]'")


class Differs(Exception):
    """The quick library gave other tokens than the tokenizer: what it made is to be made again."""


def encode(backend: Any, texts: list[str]) -> Encoded:
    """Return the tokens of texts as the tokenizer gives them, without special tokens around them."""
    parts: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        encoded = backend.encode_batch_fast(texts[start : start + CHUNK], add_special_tokens=False)
        parts += [each.ids for each in encoded]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.fromiter(chain.from_iterable(parts), np.int32, lengths.sum()), lengths


def known(backend: Any) -> bool:
    """Whether this is a tokenizer of a kind that was compared: byte-level, split like GPT-2, Llama 3 or Qwen."""
    splitter, normaliser = (
        json.loads(part.__getstate__()) if part else {} for part in (backend.pre_tokenizer, backend.normalizer)
    )
    steps = splitter.get("pretokenizers", [splitter])
    if steps[0].get("type") == "Digits":
        steps = steps[1:]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            split = True
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False},
        ]:
            split = pattern in PATTERNS
        case _:
            split = False
    added = backend.get_added_tokens_decoder().values()
    plain = not any(token.lstrip or token.rstrip or token.single_word for token in added)
    return split and plain and normaliser.get("type") in (None, "NFC") and not getattr(backend.model, "dropout", None)


class Quick:
    """An encoder of many texts for one tokenizer; may be used from several threads."""

    def __init__(self, backend: Any) -> None:
        """Raise ImportError where the library has no build for this system, ValueError for what it cannot read."""
        from tokie import Tokenizer, TokieError

        self.backend = backend
        self.compared = 0
        with tempfile.TemporaryDirectory() as folder:
            backend.save(path := str(Path(folder) / "tokenizer.json"))
            try:
                self.quick: Any = Tokenizer.from_json(path)
            except TokieError as error:
                raise ValueError(str(error)) from error

    def __call__(self, texts: list[str]) -> Encoded:
        """Return the tokens of texts as `encode` does; raise Differs where a comparison found others."""
        sure = np.fromiter((bool(SURE.fullmatch(text) and not UNSURE.search(text)) for text in texts), bool, len(texts))
        if sure.all():
            return self._of_sure(texts)
        ids = np.empty(len(texts), object)
        for places, made in ((np.flatnonzero(sure), self._of_sure), (np.flatnonzero(~sure), self._of_others)):
            found, lengths = made([texts[place] for place in places])
            for place, part in zip(places, np.split(found, np.cumsum(lengths)[:-1]), strict=False):
                ids[place] = part
        return np.concatenate(ids), np.fromiter(map(len, ids), np.int64, len(ids))

    def _of_others(self, texts: list[str]) -> Encoded:
        return encode(self.backend, texts)

    def _of_sure(self, texts: list[str]) -> Encoded:
        if not texts:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        ids, lengths = self.quick.encode_batch_flat(texts, add_special_tokens=False)
        ids, lengths = ids.astype(np.int32), lengths.astype(np.int64)
        ends = np.cumsum(lengths)
        first = max(0, COMPARED - self.compared)
        self.compared += len(texts)
        places = [*range(min(first, len(texts))), *range(first, len(texts), AGAIN)]
        whole = self.backend.encode_batch_fast([texts[place] for place in places], add_special_tokens=False)
        for place, right in zip(places, whole, strict=True):
            if ids[ends[place] - lengths[place] : ends[place]].tolist() != right.ids:
                raise Differs(texts[place])
        return ids, lengths
