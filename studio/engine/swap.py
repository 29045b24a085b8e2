"""LoRA and DoRA adapters on one base: read at once, switched by one pointer, and several of them in one batch.

Every linear layer of the base looks up its part of the adapters in use by its number, and does what peft's own layer
does, operation by operation: the logits are those of a fresh `PeftModel.from_pretrained`, bit by bit.
"""

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from peft.utils.transformers_weight_conversion import get_checkpoint_conversion_mapping
from torch.nn import functional

from studio.engine import models, packed_weight

KEEP, ROOM = 64, 1 << 30  # adapters held in memory, and bytes of them; those unused for longest go first
RANK, ALPHA = ("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")
READ = {"peft_type", *RANK, *ALPHA, "use_rslora", "use_dora", "target_modules"}
READ |= {"exclude_modules", "layers_to_transform", "layers_pattern"}
# What the file says of its making, and of kinds whose own switch is another key.
IDLE = {"peft_version", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "lora_dropout"}
IDLE |= {"task_type", "bias", "init_lora_weights", "megatron_core", "qalora_group_size", "runtime_config"}
IDLE |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}
WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_(A|B|magnitude_vector)(?:\.weight)?")
Product = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """What an adapter adds to one layer, or several do, each to its row of a batch.

    `alpha` is the scale where it may be taken in the sum, as nothing is rounded by a power of two; 0 where it may not.
    `stretch` is DoRA's magnitude by norm, of each output, 1 for rows of plain LoRA.
    """

    down: torch.Tensor  # Aᵀ [in, r]
    up: torch.Tensor  # Bᵀ [r, out]
    scale: float | torch.Tensor  # of several adapters [B, 1, sum of ranks]
    alpha: float
    stretch: torch.Tensor | None  # [out], of several [B, 1, out]

    @property
    def bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes + (self.stretch.nbytes if self.stretch is not None else 0)


class MisfitError(ValueError):
    """The weights do not fit the base."""


@dataclass(frozen=True)
class Table:
    """An adapter: for each linear layer of the base its part, or None; and its size in bytes."""

    parts: list[Part | None]
    size: int


class _Shared:
    """What all layers look at."""

    __slots__ = ("current", "seen")

    def __init__(self) -> None:
        self.current: list[Part | None] | None = None  # by the layer's number; None: the base alone
        # what a layer was given last, and its rows in fp32: query, key and value are made of one input, gate and up too
        self.seen: tuple[torch.Tensor, torch.Tensor] | None = None


class Swap:
    """The LoRA and DoRA adapters of a base. None is in use at first."""

    def __init__(self, model: Any, whole: bool = False) -> None:
        self.shared = _Shared()
        self.tables: OrderedDict[Path, Table] = OrderedDict()  # by folder, least recently used first
        self.wrap(model, whole)

    def wrap(self, model: Any, whole: bool = False) -> None:
        """Let the layers of this base, or of a fresh copy of it, look here. To be done before peft changes it.

        Where a processor computes faster with packed weights they take the place of the layers' own, unless it is to
        stay `whole`: other kinds of adapters need to read the weights.
        """
        parts = dict(model.named_modules())
        linear: dict[str, Any] = {name: part for name, part in parts.items() if type(part) is torch.nn.Linear}
        self.names, self.linear = list(parts), linear
        self.targets: dict[str, list[str]] = {}
        # Some architectures store weights under other names than their modules': peft translates them.
        self.translated = get_checkpoint_conversion_mapping(model.config.model_type) is not None
        self.device = model.device
        self.packed = not whole and any(packed_weight.packs(layer) for layer in linear.values())
        self.products: dict[str, Product] = {}
        for number, (name, layer) in enumerate(linear.items()):
            product: Product = partial(functional.linear, weight=layer.weight, bias=layer.bias)
            if self.packed and packed_weight.packs(layer):
                product, layer.weight = packed_weight.Packed(layer), None
            self.products[name] = product
            layer.forward = _forward(product, layer.bias, number, self.shared)
        if self.packed:
            models.leave_file(model)

    def load(self, adapter: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> bool:
        """Hold an adapter, without using it. Return False where it is neither LoRA nor DoRA; raise MisfitError.

        `config` is its adapter_config.json, `weights` its tensors by the names in its file, given away.
        """
        if self.translated or not plain(config):
            return False
        pairs: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in weights.items():
            found = WEIGHT.fullmatch(key)
            if not found:
                return False
            pairs.setdefault(found[1], {})[found[2]] = value
        targets = self._targets(config)
        if any(target not in self.linear for target in targets):
            return False
        if set(targets) != set(pairs):
            raise MisfitError(f"weights for {len(pairs)} layers, {len(targets)} are named by its settings")
        parts = [
            _part(name, layer, pairs[name], config, self.device, partial(self._weight, name)) if name in pairs else None
            for name, layer in self.linear.items()
        ]
        self.tables[adapter] = Table(parts, sum(part.bytes for part in parts if part))
        return True

    def _weight(self, name: str) -> torch.Tensor:
        product = self.products[name]
        return product.unpacked() if isinstance(product, packed_weight.Packed) else self.linear[name].weight.detach()

    def use(self, *adapters: Path | None) -> None:
        """Make this adapter (None: the base) answer next, or, of several, each the row of a batch in its place."""
        for adapter in adapters:
            if adapter:
                self.tables.move_to_end(adapter)
        nothing: list[Part | None] = [None] * len(self.linear)
        tables = [self.tables[adapter].parts if adapter else nothing for adapter in adapters]
        if len(tables) > 1:
            tables = [[_side_by_side(parts) for parts in zip(*tables, strict=True)]]
        self.shared.current = None if tables[0] is nothing else tables[0]
        self._forget(len(set(adapters)))

    def _forget(self, used: int) -> None:
        """Let go of what there is no room for, but not of those in use."""
        while len(self.tables) > used and (
            len(self.tables) > KEEP or sum(table.size for table in self.tables.values()) > ROOM
        ):
            self.tables.popitem(last=False)

    def _targets(self, config: dict[str, Any]) -> list[str]:
        """Return the modules of the base that the settings name, by peft's own rule."""
        names = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters")
        rule: dict[str, Any] = {name: config.get(name) for name in names}
        key = json.dumps(rule, sort_keys=True)
        if key not in self.targets:
            for each in ("target_modules", "exclude_modules"):
                rule[each] = set(rule[each]) if isinstance(rule[each], list) else rule[each]
            wanted = SimpleNamespace(**rule)
            self.targets[key] = [name for name in self.names if name and check_target_module_exists(wanted, name)]
        return self.targets[key]


def plain(config: dict[str, Any]) -> bool:
    """Whether an adapter is LoRA or DoRA as in the papers, with nothing besides, and its settings can be read."""
    targets = config.get("target_modules")
    return (
        config["peft_type"] == "LORA"
        and not any(value for key, value in config.items() if key not in READ | IDLE)
        and config.get("task_type") in (None, "CAUSAL_LM")
        and config.get("bias", "none") == "none"
        and config.get("init_lora_weights", True) in (True, False, "gaussian")
        and (bool(targets) and isinstance(targets, str | list) and targets != "all-linear")
        and all(isinstance(rank, int) and rank > 0 for rank in _choices(config, *RANK).values())
        and all(isinstance(alpha, int | float) for alpha in _choices(config, *ALPHA).values())
    )


def _choices(config: dict[str, Any], patterns: str, usual: str) -> dict[str, Any]:
    """Return a setting by pattern of a layer's name, and under "" what it is where none matches."""
    return {**(config.get(patterns) or {}), "": config.get(usual)}


def _choice(config: dict[str, Any], names: tuple[str, str], layer: str) -> Any:
    choices = _choices(config, *names)
    return choices.get(get_pattern_key([key for key in choices if key], layer), choices[""])


def _part(
    name: str,
    layer: torch.nn.Linear,
    own: dict[str, torch.Tensor],
    config: dict[str, Any],
    device: torch.device,
    weight: Callable[[], torch.Tensor],
) -> Part:
    """Return what the layer adds: A and B in fp32, as peft has them on any base, the scale, and DoRA's stretch."""
    rank, alpha = _choice(config, RANK, name), _choice(config, ALPHA, name)
    shapes: dict[str, tuple[int, ...]] = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
    shapes |= {"magnitude_vector": (layer.out_features,)} if config.get("use_dora") else {}
    if {key: tuple(value.shape) for key, value in own.items()} != shapes:
        raise MisfitError(f"{name} is {layer.in_features} → {layer.out_features}")
    wide = {key: value.to(device, torch.float32) for key, value in own.items()}
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    stretch = None
    if "magnitude_vector" in wide:
        # The norms stay, as weight and adapter do; formed as peft forms them at every call.
        change = functional.linear(wide["A"].t().contiguous(), wide["B"]).t()
        norm = torch.linalg.norm(weight().to(torch.float32) + scale * change, dim=1)
        stretch = wide["magnitude_vector"].div_(norm)  # in place: small pieces between large ones would keep those
    power = abs(math.frexp(scale)[0]) == 0.5
    return Part(wide["A"].t(), wide["B"].t(), scale, scale if power and stretch is None else 0.0, stretch)


def _side_by_side(parts: tuple[Part | None, ...]) -> Part | None:
    """Return one part for the rows of a batch: all A below, all B beside one another, and whose is whose, scaled.

    In between, a row keeps what its own A made of it, times its scale, and nothing of the others'.
    """
    there = [(row, part) for row, part in enumerate(parts) if part]
    if not there:
        return None
    down, up = torch.cat([part.down for _, part in there], 1), torch.cat([part.up for _, part in there])
    owned = down.new_zeros(len(parts), 1, len(up))  # [B, 1, sum of ranks]
    stretched = any(part.stretch is not None for _, part in there)
    stretch = down.new_ones(len(parts), 1, up.shape[1]) if stretched else None
    begin = 0
    for row, part in there:
        owned[row, :, begin : begin + len(part.up)] = part.scale
        begin += len(part.up)
        if stretch is not None and part.stretch is not None:
            stretch[row] = part.stretch
    return Part(down, up, owned, 0.0 if stretched else 1.0, stretch)


def _forward(product: Product, bias: torch.Tensor | None, number: int, shared: _Shared) -> Any:
    """Return a forward for a layer that adds what the adapter in use adds to its own product."""

    def forward(x: torch.Tensor) -> torch.Tensor:  # [B, T, in] → [B, T, out]
        result = product(x)
        if shared.current is None or (part := shared.current[number]) is None:
            return result
        down, up, scale, alpha, stretch = part
        seen = shared.seen
        if seen is None or seen[0] is not x:
            seen = shared.seen = x, x.reshape(-1, x.shape[-1]).to(torch.float32)
        hidden = seen[1].mm(down)
        if isinstance(scale, torch.Tensor):
            hidden.view(*x.shape[:-1], -1).mul_(scale)
            scale = 1.0
        added = hidden.mm(up)
        if stretch is not None:  # DoRA's order of operations in peft
            own = result if bias is None else result - bias
            more = (stretch - 1) * own + stretch * added.view(result.shape) * scale
            return (result + more).to(result.dtype)
        # In place, yet rounded as in `result + up(down(x)) * scale`, whatever the base's precision.
        result.view(added.shape).add_(added if alpha else added.mul_(scale), alpha=alpha or 1)
        return result

    return forward
