"""Nearly equal examples: MinHash in bands, looked up in a table of fixed size, so that memory does not grow.

Two examples count as nearly equal when about nine in ten of their pairs of words agree, in what is asked and in what
is answered: the shares are multiplied. A table in place of Bloom filters names the earlier row too, and once it is
full it forgets old rows, where a full filter would call everything a copy.
"""

import mmap
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from rensa import RMinHash

BANDS, ROWS = 6, 20  # two texts that agree by 0.95 are found in 93 of 100 cases, by 0.9 in 54, by 0.7 in none
SLOTS = 2**20  # of each band, 8 bytes a slot: 48 MB, as far as rows fill them
SEED = 7  # of the hashes: the same rows give the same findings
SHORT, KEPT = 100, 2_000  # characters of a text whose sketch is kept for the next time; how many are
LOOKED_AT = 100_000  # characters of a text
FEWEST = 20  # examples that tell what the frame of a prompt is
SIGN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")  # stands for a word, without spaces around it
STOPS = str.maketrans(dict.fromkeys(".,;:!?'\"()-…“”‘’«»。、，？！", " "))


def sides(example: dict[str, Any]) -> tuple[str, ...]:
    """Return what is compared of an example: what is asked, without the instruction, and what is answered."""
    if "text" in example:
        return (example["text"],)
    turns = example["messages"]
    return tuple("\n".join(turn["content"] for turn in turns if turn["role"] == role) for role in ("user", "assistant"))


class Near:
    """The examples seen so far, by the bands of their sketches.

    `first` are some examples of the file: pairs of words that a third of them share are the frame of a prompt, and
    say nothing of whether two examples are alike.
    """

    def __init__(self, first: Sequence[dict[str, Any]] = ()) -> None:
        counts = Counter(pair for example in first for side in sides(example) for pair in set(_pairs(side)[0]))
        self._frame = {pair for pair, count in counts.items() if len(first) >= FEWEST and count > len(first) / 3}
        self._sketches: dict[str, bytes] = {}
        # pages that are never written to take no memory
        self._slots = memoryview(mmap.mmap(-1, BANDS * SLOTS * 8)).cast("Q")

    def add(self, example: dict[str, Any], row: int) -> int:
        """Remember the example; return the earlier row it nearly repeats, or 0."""
        earlier = 0
        for place, tag in self._places(example):
            held = self._slots[place]
            if held >> 32 == tag and held:
                earlier = earlier or held & 0xFFFFFFFF
            else:
                self._slots[place] = tag << 32 | row & 0xFFFFFFFF
        return earlier

    def find(self, example: dict[str, Any]) -> int:
        """Return the row that the example nearly repeats, or 0, without remembering it."""
        held = [(self._slots[place], tag) for place, tag in self._places(example)]
        return next((slot & 0xFFFFFFFF for slot, tag in held if slot and slot >> 32 == tag), 0)

    def _places(self, example: dict[str, Any]) -> list[tuple[int, int]]:
        """Return the slot of each band, and what tells this band from others that share the slot."""
        sketches = [self._sketch(text) for text in sides(example)]
        places = []
        for band in range(BANDS):
            raw = b"".join([sketch[4 * band * ROWS : 4 * (band + 1) * ROWS] for sketch in sketches])
            mark = int.from_bytes(blake2b(raw, digest_size=8).digest())
            places.append((band * SLOTS + mark % SLOTS, mark >> 32))
        return places

    def _sketch(self, text: str) -> bytes:
        """Return the smallest hashes of the pairs of words, 4 bytes each."""
        if found := self._sketches.get(text):
            return found
        pairs, words = _pairs(text)
        sketch = RMinHash(num_perm=BANDS * ROWS, seed=SEED)
        if self._frame:
            pairs = [pair for pair in pairs if pair not in self._frame]
        sketch.update(pairs or words or [text])
        made = array("I", sketch.digest()).tobytes()
        if len(text) <= SHORT and len(self._sketches) < KEPT:  # answers that are labels come again and again
            self._sketches[text] = made
        return made


def _pairs(text: str) -> tuple[list[str], list[str]]:
    """Return the pairs of neighbouring words, and the words."""
    text = text[:LOOKED_AT].lower()
    words = (text if text.isascii() else SIGN.sub(r" \g<0> ", text)).translate(STOPS).split()
    return [f"{a} {b}" for a, b in pairwise(words)], words
