"""Keys and values that grow in place: transformers' own cache copies all of them at each token."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

STEP = 128  # tokens there is room for at once


class Growing(DynamicLayer):
    """A layer's keys and values [B, groups, T, d], each the first T tokens of a longer tensor."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the next tokens' keys and values, return all."""
        begin, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if self.room is None or self.room[0].shape[2] < end:
            self.room = _longer(self.keys, end), _longer(self.values, end)
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, begin:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        self.keys, self.values, self.room = self.keys[indices], self.values[indices], None


def _longer(known: torch.Tensor, least: int) -> torch.Tensor:
    room = known.new_empty(*known.shape[:2], least + STEP, known.shape[3])
    room[:, :, : known.shape[2]] = known
    return room


def grow(past: dict[str, Any]) -> bool:
    """Let the plain layers of these caches grow in place; return whether rows may be taken from all of them."""
    kinds: set[type] = set()
    for cache in past.values():
        layers: list[Any] = getattr(cache, "layers", [cache])
        for number, layer in enumerate(layers):
            if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
                layers[number] = Growing(layer.keys, layer.values)
            kinds.add(type(layers[number]))
    return bool(kinds) and kinds <= {Growing, DynamicSlidingWindowLayer}
