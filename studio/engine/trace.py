"""The memory of a step without doing it: its real code on tensors that have a size and no content."""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from studio.domain.config import TrainingConfig
from studio.domain.lanes import plain
from studio.engine import attention, fused, lora, loss

PIECE = 512  # bytes an allocation is rounded up to
BITS = {"none": 0.0, "int8": 1.01, "nf4": 0.53}  # bytes a number of a quantised base, with its scales


class Untraceable(Exception):
    """A model does something that cannot be done without content, such as a result whose size depends on it."""


@dataclass(frozen=True)
class Traced:
    """Bytes of a step, with `layers` in all: what lies there before it, what it adds, and a layer's part of that."""

    layers: int
    adapter: int  # numbers that are trained
    base: int
    start: int  # what a step adds, beside base, adapter, gradients, optimizer and all layers' activations
    layer: int  # activations of one layer


class Live(TorchDispatchMode):
    """Counts the bytes that live. What depends on a tensor's content is answered: no, and `labelled` places."""

    def __init__(self, labelled: int) -> None:
        super().__init__()
        self.labelled, self.now, self.peak = labelled, 0, 0
        self.seen: dict[int, int] = {}

    def add(self, value: torch.Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self.seen:
            self.seen[key] = -(-storage.nbytes() // PIECE) * PIECE
            self.now += self.seen[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, key)

    def free(self, key: int) -> None:
        self.now -= self.seen.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "is_nonzero"):
            return False
        if name == "nonzero":
            return torch.empty(self.labelled, args[0].dim(), dtype=torch.long, device=args[0].device)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            args = (args[0], self._places(args[1]), *args[2:])
        out = function(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return out

    def _places(self, indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Put as many places as are labelled in the stead of a mask."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            if index is not None and index.dtype == torch.bool:
                found += [torch.empty(self.labelled, dtype=torch.long, device=index.device) for _ in range(index.dim())]
            else:
                found.append(index)
        return found


def trace(
    folder: Path,
    config: TrainingConfig,
    dtype: torch.dtype,
    device: torch.device,
    batch: dict[str, Any],
    steps: int,
) -> Traced:
    """Trace one batch's step with one and with two layers of a model, and say what it would take with all.

    What bitsandbytes computes has no shape-only form: a quantised base is traced as if it were not, its weights are
    counted, and one of them is made whole while it is used.
    """
    sizes = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    inner = sizes.get_text_config()
    layers = inner.num_hidden_layers
    one, two = (_step(sizes, number, config, dtype, device, batch, steps) for number in (1, 2))
    held = two.base - one.base
    adapter = one.adapter + (layers - 1) * (two.adapter - one.adapter)
    each = two.peak - one.peak - held - _states(config, two.adapter - one.adapter)
    rest = one.peak - one.base - _states(config, one.adapter) - each
    base = one.base + (layers - 1) * held
    if bits := BITS[config.quantization]:
        base = round(layers * (two.linear - one.linear) * (bits - dtype.itemsize) + base)
        rest += two.largest * dtype.itemsize
    return Traced(layers, adapter, base, rest, each)


def _states(config: TrainingConfig, adapter: int) -> int:
    """Bytes of weights, gradients and moments."""
    return adapter * (10 if config.train.optimizer == "adamw_8bit" else 16)


@dataclass(frozen=True)
class _Step:
    base: int
    linear: int  # numbers in linear layers that a quantised base holds in fewer bits
    largest: int  # of them in the largest
    adapter: int
    peak: int


def _step(
    sizes: Any,
    number: int,
    config: TrainingConfig,
    dtype: torch.dtype,
    device: torch.device,
    batch: dict[str, Any],
    steps: int,
) -> _Step:
    model, linear, largest = _model(sizes, number, config, dtype, "lengths" in batch, steps)
    labelled = int((batch["labels"] != -100).sum())
    with FakeTensorMode(allow_non_fake_inputs=True), _no_masks_kept():
        made: dict[int, Any] = {}  # head and embeddings may be one
        for module in model.modules():
            for kind in (module._parameters, module._buffers):
                for name, value in kind.items():
                    kind[name] = made.setdefault(id(value), _hollow(value, device))
        there = {id(value): value for value in model.parameters()}.values()
        weights = [value for value in there if value.requires_grad]
        moved = {key: _hollow(value, device) if torch.is_tensor(value) else value for key, value in batch.items()}
        live = Live(labelled)
        for value in [*there, *model.buffers()]:
            live.add(value)
        base = live.now - sum(-(-value.nbytes // PIECE) * PIECE for value in weights)
        optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0, fused=True)
        with live:
            for _ in range(2):  # the moments come with the first step
                try:
                    value = (loss.packed if "lengths" in batch else loss.padded)(
                        model, moved, config.train.label_smoothing
                    )
                    slopes = torch.autograd.grad(value, weights, allow_unused=True)
                except RuntimeError as error:  # torch has no narrower kind for many an operation
                    raise Untraceable(f"{type(error).__name__}: {error}") from error
                for weight, slope in zip(weights, slopes, strict=True):
                    weight.grad = slope
                del value, slope, slopes
                torch.nn.utils.clip_grad_norm_(weights, config.train.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
    return _Step(base, linear, largest, sum(value.numel() for value in weights), live.peak)


def _model(
    sizes: Any, number: int, config: TrainingConfig, dtype: torch.dtype, packed: bool, steps: int
) -> tuple[Any, int, int]:
    """Return the model with so many layers and its adapter, without content; its numbers in linears, in the largest."""
    some = copy.deepcopy(sizes)
    inner = some.get_text_config()
    inner.num_hidden_layers = number
    if vars(inner).get("layer_types"):  # some derive it
        inner.layer_types = inner.layer_types[:number]
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(some, dtype=dtype).requires_grad_(False)
        if packed:
            model.set_attn_implementation(attention.NAME)
        head = model.get_output_embeddings()
        found = [part for part in model.modules() if isinstance(part, torch.nn.Linear) and part is not head]
        numbers = [part.weight.numel() for part in found]
        if config.row.changes_base:  # its start needs weights; afterwards it is a plain LoRA
            config = config.model_copy(update={"method": config.method.model_copy(update={"name": "lora"})})
        model = lora.attach(model, config, Path(), steps)
    fused.fuse(model)
    if not plain(config):  # the linears stay peft's own, which the stand-ins of quantised ones do not tell
        for module in model.modules():
            if "forward" in vars(module) and getattr(module.forward, "func", None) is fused.linear:
                del module.forward
    return model.train(), sum(numbers), max(numbers, default=0)


@contextmanager
def _no_masks_kept() -> Iterator[None]:
    """Masks and starts with and without content have the same sizes: none may be taken for the other."""
    for kept in (attention.mask, attention.starts):
        kept.cache_clear()
    yield
    for kept in (attention.mask, attention.starts):
        kept.cache_clear()


def _hollow(value: torch.Tensor | None, device: torch.device) -> Any:
    """Return a tensor of the same size without content."""
    if value is None:
        return None
    made = torch.empty(value.shape, dtype=value.dtype, device=device)
    return torch.nn.Parameter(made, value.requires_grad) if isinstance(value, torch.nn.Parameter) else made
