"""Tokenised rows: kept in files, brought to length, shared out to batches. Without torch, which looking needs not."""

import heapq
import shutil
import tempfile
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from studio.domain.errors import DataError

FILES = {"ids": np.int32, "trained": np.bool_, "lengths": np.int32, "sources": np.int64}


@dataclass(frozen=True)
class Row:
    """One example: token ids [T], and which of them are trained [T]. `source` is its row in the user's file."""

    ids: np.ndarray
    trained: np.ndarray
    source: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class Table(Sequence[Row]):
    """Rows as places in two long arrays, which may be files mapped into memory: a million rows need none of it."""

    def __init__(
        self, ids: np.ndarray, trained: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sources: np.ndarray
    ) -> None:
        self.ids, self.trained, self.starts, self.lengths, self.sources = ids, trained, starts, lengths, sources

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """Return rows as a table."""
        lengths = np.array([len(row) for row in rows], np.int32)
        ids = np.concatenate([row.ids for row in rows] or [np.zeros(0, np.int32)])
        trained = np.concatenate([row.trained for row in rows] or [np.zeros(0, bool)])
        return cls(ids, trained, _starts(lengths), lengths, np.array([row.source for row in rows], np.int64))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what a `Writer` wrote."""
        ids, trained, lengths, sources = (
            np.memmap(path, kind, "r") if (path := folder / name).stat().st_size else np.zeros(0, kind)
            for name, kind in FILES.items()
        )
        return cls(ids, trained, _starts(lengths), np.asarray(lengths), np.asarray(sources))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice | np.ndarray | list):
            return Table(self.ids, self.trained, self.starts[index], self.lengths[index], self.sources[index])
        start, end = self.starts[index], self.starts[index] + self.lengths[index]
        return Row(self.ids[start:end], self.trained[start:end], int(self.sources[index]))

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def labels(self) -> np.ndarray:
        """How many tokens of each row have something to learn: the first has none before it."""
        places = zip(self.starts + 1, self.starts + self.lengths, strict=True)
        return np.array([np.count_nonzero(self.trained[start:end]) for start, end in places], np.int64)

    def fit(self, limit: int, over_length: str) -> tuple["Table", int]:
        """Bring rows to at most `limit` tokens, as `over_length` says; return them and how many were longer."""
        longer = np.flatnonzero(self.lengths > limit)
        if not len(longer):
            return self, 0
        if over_length == "ask":
            lost = sum(int(self[i].trained[limit:].sum()) for i in longer)
            named = ", ".join(str(self.sources[i]) for i in longer[:3])
            raise DataError(
                f"{len(longer)} examples are longer than {limit:,} tokens (rows {named}"
                f"{' …' if len(longer) > 3 else ''}); {lost:,} tokens of their answers would be lost.",
                "Set data.over_length to drop (leave them out) or split (train on pieces), or raise data.max_length.",
            )
        if over_length == "drop":
            return self[np.flatnonzero(self.lengths <= limit)], len(longer)
        pieces = -(-self.lengths // limit)
        which = np.repeat(np.arange(len(self)), pieces)
        place = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        lengths = np.minimum(limit, self.lengths[which] - place * limit)
        starts = self.starts[which] + place * limit
        return Table(self.ids, self.trained, starts, lengths, self.sources[which]), len(longer)


class Writer:
    """Writes rows to a folder as they come; the folder appears whole, when all are written, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = Path(tempfile.mkdtemp(prefix=".tokens-", dir=self.folder.parent))
        self.open = ExitStack()
        self.files = {name: self.open.enter_context((self.temporary / name).open("wb")) for name in FILES}
        return self

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.files["ids"].write(row.ids.astype(np.int32, copy=False).tobytes())
            self.files["trained"].write(row.trained.astype(np.bool_, copy=False).tobytes())
        self.files["lengths"].write(np.array([len(row) for row in rows], np.int32).tobytes())
        self.files["sources"].write(np.array([row.source for row in rows], np.int64).tobytes())

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.open.close()
        if kind is None and not self.folder.exists():
            try:
                self.temporary.replace(self.folder)
            except OSError:
                if not self.folder.exists():  # else another run was first, with the same
                    raise
        shutil.rmtree(self.temporary, ignore_errors=True)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths, dtype=np.int64) - lengths


def pack(rows: Iterable[Row], size: int) -> list[list[Row]]:
    """Best-fit decreasing: the fewest batches of at most `size` tokens; a longer row stands alone."""
    bins: list[list[Row]] = []
    room: list[tuple[int, int]] = []  # tokens left and bin, in order
    for row in sorted(rows, key=len, reverse=True):
        place = bisect_left(room, (len(row), 0))
        if place < len(room):
            left, index = room.pop(place)
            bins[index].append(row)
        else:
            left, index = max(size, len(row)), len(bins)
            bins.append([row])
        insort(room, (left - len(row), index))
    return bins


def spread(rows: Sequence[Row], size: int, lanes: int) -> list[list[Row]]:
    """Share rows out to batches of like length, a multiple of `lanes`, with at most `size` tokens in all lanes at once.

    The longest row goes first, each to the batch that has least (longest processing time first, Graham 1969). A row
    longer than a lane's part stands alone.
    """
    if not rows:
        return []
    each = max(size // lanes, max(map(len, rows)))
    rounds = -(-sum(map(len, rows)) // (each * lanes))
    while True:
        heap = [(0, index) for index in range(min(rounds * lanes, len(rows)))]
        bins: list[list[Row]] = [[] for _ in heap]
        for row in sorted(rows, key=len, reverse=True):
            tokens, index = heapq.heappop(heap)
            bins[index].append(row)
            heapq.heappush(heap, (tokens + len(row), index))
        if max(tokens for tokens, _ in heap) <= each:
            return bins
        rounds += 1


def labels_of(row: Row) -> np.ndarray:
    """Labels shifted by one: position t is trained to say token t+1, if that one is trained."""
    labels = np.full(len(row), -100, np.int64)
    labels[:-1][row.trained[1:]] = row.ids[1:][row.trained[1:]]
    return labels
