"""The sizes of a model that decide what training it takes: its layers, their widths, its vocabulary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from studio.domain.config import TrainingConfig

# What each size is called in config.json; the older architectures have names of their own.
NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim"),
    "heads": ("num_attention_heads", "n_head"),
    "groups": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocabulary": ("vocab_size",),
}


@dataclass(frozen=True)
class Shape:
    """`queries` and `keys` are the widths of a layer's queries and keys, over all heads."""

    family: str
    parameters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any], parameters: int) -> Self:
        """Read a model's config.json; what it does not say is as it usually is in a model of this size."""
        text = config.get("text_config")
        inside = text if isinstance(text, Mapping) else config
        said = {
            size: next((inside[key] for key in keys if isinstance(inside.get(key), int)), 0)
            for size, keys in NAMES.items()
        }
        width = (10 * max(parameters, 1)) ** (1 / 3)
        hidden = said["hidden"] or max(64, round(width))
        heads = said["heads"] or max(1, hidden // 64)
        each = said["head_dim"] or hidden // heads
        return cls(
            family=str(config.get("model_type", "")),
            parameters=parameters,
            layers=said["layers"] or max(1, round(parameters / (12 * width**2))),
            hidden=hidden,
            inner=said["inner"] or (4 * hidden if config else 8 * hidden // 3),
            queries=heads * each,
            keys=(said["groups"] or heads) * each,
            vocabulary=said["vocabulary"] or 50_000,
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear maps: query, key, value, output, gate, up, down."""
        hidden, inner = self.hidden, self.inner
        attention = [(hidden, self.queries), (hidden, self.keys), (hidden, self.keys), (self.queries, hidden)]
        return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]

    @property
    def linear_parameters(self) -> int:
        """Of all layers: what is held in fewer bits when the base is quantised."""
        return min(self.parameters, self.layers * sum(inputs * outputs for inputs, outputs in self.linears))

    def adapter_parameters(self, config: TrainingConfig) -> int:
        """How many numbers the adapter of these settings trains."""
        where = self.linears[:4] if config.method.targets == "attention" else self.linears
        inputs, outputs = (sum(sides) for sides in zip(*where, strict=True))
        each = {
            "LORA": config.rank * (inputs + outputs),
            "ADALORA": 1.5 * config.rank * (inputs + outputs),  # it starts with half as many again
            "MISS": config.rank * outputs,
            "OFT": inputs * (config.method.block_size - 1) / 2,
            "VERA": config.rank * len(where) + outputs,
            "IA3": outputs,
            "PREFIX_TUNING": 2 * config.method.virtual_tokens * self.keys,
            "PROMPT_TUNING": config.method.virtual_tokens * self.hidden / self.layers,
        }
        return round(self.layers * each[config.row.peft])

    def flops(self, config: TrainingConfig, tokens: float, squares: float, trained: float) -> float:
        """Floating-point operations to train on so many tokens, `trained` of which are answers.

        `squares` is the sum of the squared lengths of their examples: attention has no frozen part, and a token looks
        at half of its example. Forward and the gradient of the inputs are 2 each for a frozen weight; the head works
        on what is trained alone.
        """
        head = trained * self.vocabulary * self.hidden
        attention = 6 * self.layers * self.queries * squares
        return 4 * (self.linear_parameters * tokens + head) + attention + 6 * self.adapter_parameters(config) * tokens
