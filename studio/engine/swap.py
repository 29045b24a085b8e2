"""Plain LoRA adapters on one base: read at once, switched by one pointer, and several of them in one batch.

Every linear layer of the base looks up its part of the adapters in use by its number, and does what peft's own layer
does, operation by operation: the logits are those of a fresh `PeftModel.from_pretrained`, bit by bit.
"""

import json
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from peft.utils.transformers_weight_conversion import get_checkpoint_conversion_mapping
from torch.nn import functional

from studio.engine import models, packed_weight
from studio.engine.packed_weight import Product

KEEP, ROOM = 64, 1 << 30  # adapters held in memory, and bytes of them; those unused for longest go first
RANK, ALPHA = ("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")
READ = {"peft_type", *RANK, *ALPHA, "use_rslora", "target_modules"}
READ |= {"exclude_modules", "layers_to_transform", "layers_pattern"}
# What the file says of its making, and of kinds whose own switch is another key.
IDLE = {"peft_version", "base_model_name_or_path", "revision", "auto_mapping", "inference_mode", "lora_dropout"}
IDLE |= {"task_type", "bias", "init_lora_weights", "megatron_core", "qalora_group_size", "runtime_config"}
IDLE |= {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}
WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

# Aᵀ [in, r], Bᵀ [r, out], scale; that of several adapters side by side is a tensor. Last the scale where it may be
# taken in the sum, as nothing is rounded by a power of two; 0 where it may not.
Part = tuple[torch.Tensor, torch.Tensor, float | torch.Tensor, float]


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
    """The plain LoRA adapters of a base. None is in use at first."""

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
        for number, layer in enumerate(linear.values()):
            product: Product = partial(functional.linear, weight=layer.weight, bias=layer.bias)
            if self.packed and packed_weight.packs(layer):
                product, layer.weight = packed_weight.product_of(layer), None
            layer.forward = _forward(product, number, self.shared)
        if self.packed:
            models.leave_file(model)

    def load(self, adapter: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> bool:
        """Hold an adapter, without using it. Return False where it is no plain LoRA; raise MisfitError.

        `config` is its adapter_config.json, `weights` its tensors by the names in its file.
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
            _part(name, layer, pairs[name], config, self.device) if name in pairs else None
            for name, layer in self.linear.items()
        ]
        self.tables[adapter] = Table(parts, sum(part[0].nbytes + part[1].nbytes for part in parts if part))
        return True

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
    """Whether an adapter is LoRA as in the paper, all in A, B and a scale, and its settings can be read."""
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
    pair: dict[str, torch.Tensor],
    config: dict[str, Any],
    device: torch.device,
) -> Part:
    """Return what the layer adds: A and B in fp32, as peft has them on any base, and the scale."""
    rank, alpha = _choice(config, RANK, name), _choice(config, ALPHA, name)
    shapes = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
    if {key: tuple(value.shape) for key, value in pair.items()} != shapes:
        raise MisfitError(f"{name} is {layer.in_features} → {layer.out_features}")
    down, up = (pair[key].to(device, torch.float32) for key in "AB")
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return down.t(), up.t(), scale, scale if abs(math.frexp(scale)[0]) == 0.5 else 0.0


def _side_by_side(parts: tuple[Part | None, ...]) -> Part | None:
    """Return one part for the rows of a batch: all A below, all B beside one another, and whose is whose, scaled.

    In between, a row keeps what its own A made of it, times its scale, and nothing of the others'.
    """
    there = [(row, part) for row, part in enumerate(parts) if part]
    if not there:
        return None
    down, up = torch.cat([part[0] for _, part in there], 1), torch.cat([part[1] for _, part in there])
    owned = down.new_zeros(len(parts), 1, len(up))  # [B, 1, sum of ranks]
    begin = 0
    for row, part in there:
        owned[row, :, begin : begin + len(part[1])] = part[2]
        begin += len(part[1])
    return down, up, owned, 1.0


def _forward(product: Product, number: int, shared: _Shared) -> Any:
    """Return a forward for a layer that adds what the adapter in use adds to its own product."""

    def forward(x: torch.Tensor) -> torch.Tensor:  # [B, T, in] → [B, T, out]
        result = product(x)
        if shared.current is None or (part := shared.current[number]) is None:
            return result
        down, up, scale, alpha = part
        seen = shared.seen
        if seen is None or seen[0] is not x:
            seen = shared.seen = x, x.reshape(-1, x.shape[-1]).to(torch.float32)
        hidden = seen[1].mm(down)
        if isinstance(scale, torch.Tensor):
            hidden.view(*x.shape[:-1], -1).mul_(scale)
        # In place, yet rounded as in `result + up(down(x)) * scale`, whatever the base's precision.
        added = hidden.mm(up)
        result.view(added.shape).add_(added if alpha else added.mul_(scale), alpha=alpha or 1)
        return result

    return forward
