"""Hashes of examples: which were there before, and which are held out."""

import json
from array import array
from bisect import bisect_left
from hashlib import blake2b

ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def mark_of(line: str, seed: int = 0) -> int:
    """Return the 64-bit hash of an example written as one line."""
    key = seed.to_bytes(8, "little")
    return int.from_bytes(blake2b(line.encode(), digest_size=8, key=key).digest())


class Seen:
    """The 64-bit hashes seen so far, in about 9 bytes each; sorted, so that the n-th smallest can be told."""

    def __init__(self) -> None:
        self.buckets = [array("Q") for _ in range(4096)]
        self.count = 0

    def add(self, mark: int) -> bool:
        """Remember the hash; tell whether it is new."""
        bucket = self.buckets[mark >> 52]
        place = bisect_left(bucket, mark)
        if place < len(bucket) and bucket[place] == mark:
            return False
        bucket.insert(place, mark)
        self.count += 1
        return True

    def smallest(self, count: int) -> int:
        """Return the bound below which there are `count` hashes."""
        for bucket in self.buckets:
            if count < len(bucket):
                return bucket[count]
            count -= len(bucket)
        return 2**64

    def bound(self, usable: int, fraction: float) -> int:
        """Return the hash below which a row is held out, so that about this share of the rows is."""
        held = round(self.count * fraction)
        if fraction > 0 and usable >= 10:
            held = max(held, 1)
        return self.smallest(max(min(held, self.count - 1), 0))
