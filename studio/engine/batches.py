"""What each step takes: rows in an order that follows from the seed, cut into batches, and its share of the rate."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from studio.engine import parallel
from studio.engine.rows import Row, Table, pack, spread
from studio.engine.tensors import packed_batch, padded_batch


class Steps:
    """Item i holds this process's batches of step i. Passes are shuffled by the seed alone, any can be rebuilt."""

    def __init__(
        self, table: Table, per_step: int, size: int, total: int, seed: int, pad: int | None, lanes: int = 1
    ) -> None:
        self.rows, self.per_step, self.size, self.total, self.seed, self.pad = table, per_step, size, total, seed, pad
        self.lanes = lanes
        self.per_pass = math.ceil(len(table) / per_step)
        self._order = (-1, np.zeros(0, np.int64))  # of the pass that was asked for last

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> list[dict[str, Any]]:
        chosen = self.chosen(step)
        mine = chosen[parallel.share(self.rows.lengths[chosen])]
        return batches(self.rows[mine], self.size, self.pad, self.lanes)

    def chosen(self, step: int) -> np.ndarray:
        """The places of a step's rows in the table."""
        turn, index = divmod(step, self.per_pass)
        if self._order[0] != turn:
            self._order = turn, np.random.default_rng((self.seed, turn)).permutation(len(self.rows))
        return self._order[1][index * self.per_step : (index + 1) * self.per_step]


def batches(rows: Sequence[Row], size: int, pad: int | None, lanes: int = 1) -> list[dict[str, Any]]:
    """Cut rows into batches with at most `size` tokens in all lanes at once: packed, or padded and sorted by length."""
    if pad is None:
        return [packed_batch(group) for group in (spread(rows, size, lanes) if lanes > 1 else pack(rows, size))]
    size //= lanes
    groups: list[list[Row]] = []
    for row in sorted(rows, key=len, reverse=True):
        if groups and len(groups[-1][0]) * (len(groups[-1]) + 1) <= size:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [padded_batch(group, pad) for group in groups]


def labels_in(batch: dict[str, Any]) -> int:
    return int((batch["labels"] != -100).sum())


def rows_in(batch: dict[str, Any]) -> int:
    return len(batch["lengths"]) if "lengths" in batch else len(batch["input_ids"])


def real_tokens(batch: dict[str, Any]) -> int:
    return sum(batch["lengths"]) if "lengths" in batch else int(batch["attention_mask"].sum())


def schedule(kind: str, warmup: float, total: int, step: int) -> float:
    """The share of the learning rate after `step` steps of `total`; the first step of a warm-up already learns."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = 1 - (step - rising) / max(1, total - rising)
    return {"cosine": 0.5 - 0.5 * math.cos(math.pi * left), "linear": left, "constant": 1.0}[kind]
