"""What a run holds in memory at its peak, part by part, reckoned in an instant from sizes alone."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from studio.domain.config import TrainingConfig
from studio.domain.lanes import lanes, plain
from studio.domain.records import Dataset, Model
from studio.domain.shape import Shape

LIBRARIES = 0.59e9  # bytes of an engine that has loaded nothing yet
HEAP = 0.1  # of what a step adds, that a processor's allocator keeps besides
KERNELS = 0.1e9  # bytes of a card that matrix products work in; the driver's context is no part of what a run counts
LAUNCH = 2e-3  # seconds a card needs for a layer, forward and back, however little there is to compute
CHUNK = 256  # labelled positions whose probabilities are held at once
SHARE = 0.8  # of the free memory that the engine lets activations take before it computes layers again
NF4, INT8 = 0.53, 1.01  # bytes a number, with its scales
FUSED = ("llama", "mistral", "qwen2", "qwen3")  # whose norm and gated product keep one activation


@dataclass(frozen=True)
class Load:
    """What decides the peak besides model and settings: how long the examples are, in tokens, and where it runs."""

    longest: int
    step: float  # tokens of the largest step
    half: bool  # whether it computes in bf16
    card: bool
    cores: int
    free: float  # bytes for base, adapter and activations


@dataclass(frozen=True)
class Footprint:
    """Bytes by part, and how many layers have to be computed again to hold no more."""

    parts: dict[str, int]
    recomputed: int

    @property
    def peak(self) -> int:
        return sum(self.parts.values())


def shape_of(model: Model) -> Shape:
    """Return the sizes of a model; of one that is not here yet, as they usually are."""
    try:
        found = json.loads((Path(model.path) / "config.json").read_bytes()) if model.path else {}
    except (OSError, ValueError):
        found = {}
    return Shape.of(found if isinstance(found, dict) else {}, model.parameters)


def disk(shape: Shape, config: TrainingConfig, dataset: Dataset) -> int:
    """Return the bytes a run writes: checkpoints with the optimizer, the adapter, the examples as tokens, logs."""
    states = config.checkpoint.keep + 1  # the best besides
    return round(
        (12 * states + 8) * shape.adapter_parameters(config)
        + 2 * (Path(dataset.path) / "train.jsonl").stat().st_size
        + 100e6
    )


def footprint(shape: Shape, config: TrainingConfig, load: Load) -> Footprint:
    """Return the bytes a run takes at its peak."""
    width = 2 if load.half else 4  # bytes a number
    trained = shape.adapter_parameters(config)
    model = _base(shape, config.quantization, width)
    moments = 2 if config.train.optimizer == "adamw_8bit" else 8
    packed = config.train.packing != "off" and config.row.packing
    tokens, number = in_flight(config, load)
    loss = number * CHUNK * shape.vocabulary * (width + 8) if packed else tokens * shape.vocabulary * (width + 12)
    each = tokens * _kept(shape, config, width)  # of one layer
    working = tokens * width * (4 * shape.hidden + 3 * shape.inner)  # of the layer whose gradient is being formed
    fixed = model + trained * (8 + moments)
    again = recomputed(config, each, shape.layers, load.free - fixed)
    activations = (shape.layers - again) * each + again * tokens * width * shape.hidden
    activations += each if again else 0
    whole = number * width * shape.hidden * shape.inner  # a weight made of its four bits
    start = max(loss, working + (whole if config.quantization == "nf4" else 0))
    parts = {
        "Model": model,
        "Adapter": 4 * trained,
        "Gradients and optimiser": (4 + moments) * trained,
        "Activations": activations,
        "Loss": start,
        "Programs": KERNELS if load.card else LIBRARIES + HEAP * (activations + start),
    }
    return Footprint({name: round(value) for name, value in parts.items()}, again)


def least_turn(shape: Shape, card: bool) -> float:
    """Return the seconds that a card needs at least to say a token: it waits to be asked for each kernel."""
    return shape.layers * LAUNCH / 3 if card else 0.0


def in_flight(config: TrainingConfig, load: Load) -> tuple[int, int]:
    """Return how many tokens are computed at once, and in how many lanes."""
    size = 2048 if config.train.batch_tokens == "auto" else config.train.batch_tokens
    number = 1 if load.card else lanes(config, load.cores, size)
    return round(max(load.longest, min(max(size, number * load.longest), load.step))), number


def recomputed(config: TrainingConfig, each: float, layers: int, free: float) -> int:
    """Return how many layers the engine computes again, as it decides it."""
    wanted = config.train.recompute if config.row.recompute else "off"
    if wanted != "auto":
        return layers if wanted == "on" else 0
    return min(layers, math.ceil(max(0, layers - SHARE * free / each)))


def _base(shape: Shape, quantization: str, width: int) -> float:
    if quantization == "none":
        return width * shape.parameters
    small = INT8 if quantization == "int8" else NF4
    return small * shape.linear_parameters + width * (shape.parameters - shape.linear_parameters)


def _kept(shape: Shape, config: TrainingConfig, width: int) -> float:
    """Bytes one layer keeps for the gradient, per token."""
    inputs, outputs = (sum(sides) for sides in zip(*shape.linears, strict=True))
    kept = width * (4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 3 * shape.inner)
    dora = bool(config.row.fixed.get("use_dora"))
    ours = plain(config)
    if not ours:  # peft's own forward casts every input to fp32
        kept += (4 * inputs if width == 2 else 0) + 28 * config.rank
    if dora:  # what each linear gives; fused, some of it is kept anyway
        kept += width * (shape.queries + shape.keys + 2 * shape.hidden) if ours else 8 * outputs
    if shape.family not in FUSED:
        kept += 16 * shape.hidden + 2 * width * shape.inner
    return kept
