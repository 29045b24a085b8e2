"""Rows as the tensors a model takes."""

from typing import Any

import numpy as np
import torch

from studio.engine.rows import Row, labels_of


def packed_batch(rows: list[Row]) -> dict[str, Any]:
    """Rows side by side as [1, T]; positions restart with each."""
    return {
        "input_ids": torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))[None],
        "labels": torch.from_numpy(np.concatenate([labels_of(row) for row in rows]))[None],
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
        "lengths": [len(row) for row in rows],
    }


def padded_batch(rows: list[Row], pad: int) -> dict[str, Any]:
    """Rows below one another as [B, T], padded at the right."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    labels = np.full((len(rows), width), -100, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], labels[index, : len(row)], mask[index, : len(row)] = row.ids, labels_of(row), 1
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(mask),
    }
