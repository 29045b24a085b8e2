"""How much memory a step's activations take, and how many layers are computed again so that it fits."""

import gc
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from studio.engine import loss, parallel
from studio.engine.rows import Table
from studio.engine.tensors import packed_batch, padded_batch

CGROUP = Path("/sys/fs/cgroup")
PROBE = 128  # tokens of the row that is measured
SHARE = 0.8  # of the free memory that activations may take; gradients, the head's chunk and others want room too


def layers_of(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def saved_per_token(model: Any, rows: Table, pad: int | None) -> float:
    """Bytes a forward pass keeps for the gradient per token, the weights left out; measured on a piece of a row."""
    row, _ = rows[[0]].fit(PROBE, "split")
    some = [row[0]]
    batch = packed_batch(some) if pad is None else padded_batch(some, pad)
    device = next(model.parameters()).device
    batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
    weights = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    noted: weakref.WeakSet[_Saved] = weakref.WeakSet()  # what is let go of before the end is let go of here too

    def note(value: torch.Tensor) -> _Saved:
        saved = _Saved(value)
        noted.add(saved)
        return saved

    model.train()
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved.value):
        end = (loss.packed if pad is None else loss.padded)(model, batch)
    kept = {saved.value.untyped_storage().data_ptr(): saved.value.untyped_storage().nbytes() for saved in noted}
    del end  # it held them
    return sum(size for place, size in kept.items() if place not in weights) / len(some[0])


class _Saved:
    """What one step of the gradient keeps, as long as it does."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


def free_bytes(device: torch.device) -> int:
    """Of the card, or of the machine, as a process's part."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // parallel.size()


def layers_to_recompute(per_token: float, tokens: int, layers: int, free: int) -> int:
    """The fewest of `layers` whose activations must go for `tokens` at once to fit into `free` bytes.

    A layer computed again keeps its input alone, a small part of what it keeps otherwise, which is left out here.
    """
    each, room = per_token * tokens / max(1, layers), SHARE * free
    return min(layers, max(0, math.ceil(layers - room / each))) if each else 0


def fit(wanted: str, layers: int, per_token: float, size: int, longest: int, lanes: int, free: int) -> tuple[int, int]:
    """Return how many layers are computed again, and in how many lanes: one where more would cost such layers."""
    if wanted != "auto":
        return layers if wanted == "on" else 0, lanes
    at_once = max(size, lanes * longest)
    if layers_to_recompute(per_token, at_once, layers, free):
        lanes, at_once = 1, max(size, longest)
    return layers_to_recompute(per_token, at_once, layers, free), lanes


def recompute(model: Any, number: int) -> None:
    """Let the first layers compute their activations again when the gradient asks for them."""
    if not number:
        return
    model.get_base_model().activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers_of(model)[number:]:
        layer.gradient_checkpointing = False


class AllRanOut(MemoryError):
    """The memory of one process of a run ran out, and all know it at the same moment."""


@contextmanager
def together(alone: bool) -> Iterator[None]:
    """Let all processes of a run see that the memory of one ran out, so that all do the same about it.

    `alone`: this process cannot wait for the others, as they cannot go on without it.
    """
    error: BaseException | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as caught:
        if alone or parallel.size() == 1 or not ran_out(caught):
            raise
        error = caught
    if not alone and parallel.either(error is not None):
        raise AllRanOut from error


def mendable(error: BaseException) -> bool:
    """Whether the memory ran out in a way that a step may be done again after."""
    return isinstance(error, AllRanOut) or (parallel.size() == 1 and ran_out(error))


def ran_out(error: BaseException) -> bool:
    """Whether this error says that the memory, of the card or of the machine, was not enough."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate" in words


def give_back(device: torch.device) -> None:
    """Free what is held for later use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def share_in_use(device: torch.device) -> float:
    """Share of the card's or the machine's memory that is taken; in a container, of what it may have (cgroup v2)."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return 1 - (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) / total
    machine = psutil.virtual_memory()
    share = 1 - machine.available / machine.total
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((CGROUP / "memory.current").read_text())
            stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
            share = max(share, (used - int(stat.get("inactive_file", 0))) / int(limit))
    except (OSError, ValueError):  # no such limit here
        pass
    return share
