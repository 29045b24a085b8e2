"""What a base model is, from its configuration and the heads of its files alone."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from pydantic import BaseModel

from studio.domain.shape import NAMES
from studio.domain.words import count, short, size

CONTEXT = ("max_position_embeddings", "n_positions", "seq_length")
# A weight inside one of the numbered layers: what comes after the number, down to the module that holds it.
LAYERED = re.compile(r"\.\d+\.(?:.*\.)?([A-Za-z]\w*)\.weight$")

PLACES = {
    "folder": "on this machine",
    "cache": "in the cache of the Hub's library",
    "online": "on the Hub, not on this machine",
}


class Tensor(NamedTuple):
    """A tensor by its head: name, kind of number, sides."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelFacts(BaseModel):
    """The contract of `models show --json`. 0, "" and [] mean: not told. `bytes` on disk, `context` in tokens."""

    id: str
    source: str  # package, hub, gguf, folder: on this machine; cache: of the Hub's library; online: not here yet
    path: str = ""
    revision: str = ""
    architecture: str = ""
    family: str = ""
    parameters: int = 0
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    key_value_heads: int = 0
    vocabulary: int = 0
    context: int = 0
    licence: str = ""
    template: bool = False  # whether it brings a chat template
    dtype: str = ""
    targets: list[str] = []  # modules of a layer that can carry an adapter
    bytes: int = 0


def of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json says, under the names of ModelFacts."""
    text = config.get("text_config")
    inside = text if isinstance(text, Mapping) else config
    sizes = {size: _first(inside, keys) for size, keys in NAMES.items()}
    architectures = config.get("architectures")
    return {
        "architecture": str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        "family": str(config.get("model_type", "")),
        "layers": sizes["layers"],
        "hidden": sizes["hidden"],
        "heads": sizes["heads"],
        "key_value_heads": sizes["groups"] or sizes["heads"],
        "vocabulary": sizes["vocabulary"],
        "context": _first(inside, CONTEXT),
        "dtype": str(inside.get("dtype") or inside.get("torch_dtype") or config.get("dtype") or ""),
    }


def of_tensors(tensors: Iterable[Tensor]) -> dict[str, Any]:
    """Return what the heads of the weights say: their number, the kind most of them are, what may be trained."""
    kinds: Counter[str] = Counter()
    targets: dict[str, None] = {}
    for tensor in tensors:
        kinds[tensor.dtype] += prod(tensor.shape)
        if len(tensor.shape) == 2 and (found := LAYERED.search(tensor.name)):
            targets[found[1]] = None
    return {
        "parameters": kinds.total(),
        "dtype": kinds.most_common(1)[0][0] if kinds else "",
        "targets": sorted(targets),
    }


def told(facts: ModelFacts) -> list[tuple[str, str]]:
    """Return the facts as pairs of a name and a value in words; what is not told is left out."""
    shared = f", {facts.key_value_heads} for keys and values" if facts.key_value_heads != facts.heads else ""
    pairs = [
        ("Architecture", facts.architecture or facts.family),
        ("Parameters", short(facts.parameters) if facts.parameters else ""),
        ("Layers", f"{facts.layers}, {count(facts.hidden)} wide" if facts.layers else ""),
        ("Attention heads", f"{facts.heads}{shared}" if facts.heads else ""),
        ("Vocabulary", f"{count(facts.vocabulary)} tokens" if facts.vocabulary else ""),
        ("Reads at most", f"{count(facts.context)} tokens" if facts.context else ""),
        ("Numbers", f"{facts.dtype}, {size(facts.bytes)}" if facts.dtype else ""),
        ("Licence", facts.licence or "not told"),
        ("Chat template", "its own" if facts.template else "none: a plain one is used"),
        ("Can be adapted", ", ".join(facts.targets)),
    ]
    return [pair for pair in pairs if pair[1]]


def _first(values: Mapping[str, Any], keys: Iterable[str]) -> int:
    return next((values[key] for key in keys if isinstance(values.get(key), int)), 0)
