"""What may be loaded at all: safetensors only, no code from the model's folder, finite weights."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from studio.domain.errors import ModelError
from studio.domain.methods import METHODS

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def base(folder: Path) -> dict[str, Any]:
    """Return the config of a model folder that may be loaded; raise ModelError when it may not."""
    config = settings(folder)
    _weights(folder, "model*.safetensors", folder.name)
    return config


def settings(folder: Path) -> dict[str, Any]:
    """Return the config of a model folder, unless it asks for code of its own; the weights are not looked at."""
    config = _json(folder / "config.json", f"{folder} is not a model folder")
    if "auto_map" in json.dumps(config):
        raise ModelError(
            f"{folder.name} wants to run its own code when loaded.",
            "Choose a model of an architecture that transformers knows.",
        )
    if not re.fullmatch(r"[a-z0-9_-]+", str(config.get("model_type", ""))):
        raise ModelError(f"{folder.name} does not name a known kind of model.", "Its config.json needs a model_type.")
    return config


def context(config: dict[str, Any]) -> int:
    """Return how many tokens a model reads at most; a million where its config does not say."""
    inner = config.get("text_config") or config
    return int(inner.get("max_position_embeddings") or 1_000_000)


def adapter(folder: Path) -> dict[str, Any]:
    """Return the peft config of an adapter folder that may be loaded; raise ModelError when it may not."""
    return opened(folder)[0]


def opened(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the peft config and the weights of an adapter folder that may be loaded; raise ModelError."""
    config = _json(folder / "adapter_config.json", f"{folder} is not an adapter folder")
    if config.get("peft_type") not in {row.peft for row in METHODS.values()}:
        raise ModelError(
            f"{folder.name} is an adapter of the kind {config.get('peft_type')}, which is not supported.",
            f"Adapters of these methods are: {', '.join(row.title for row in METHODS.values())}.",
        )
    library = str((config.get("auto_mapping") or {}).get("parent_library", "transformers"))
    if library.split(".")[0] != "transformers" or config.get("megatron_config") or config.get("tokenizer_kwargs"):
        raise ModelError(f"{folder.name} wants to import modules when loaded.", "Ask its author for a plain adapter.")
    for name in ("target_modules", "exclude_modules"):
        try:
            re.compile(config[name] if isinstance(config.get(name), str) else "")
        except re.error as error:
            raise ModelError(
                f"{name} of {folder.name} is no valid pattern: {error}.", "Ask its author for the list of its layers."
            ) from error
    _weights(folder, "adapter_model.safetensors", folder.name)
    from studio.engine import tensor_file  # with torch, which a look at a tokenizer does without

    return config, tensor_file.finite(folder / "adapter_model.safetensors")


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{what}: it has no {path.name}.", "Check the path.") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path} cannot be read.", "Fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold settings.", "Fetch it again.")
    return value


def _weights(folder: Path, pattern: str, name: str) -> None:
    files = sorted(folder.glob(pattern))
    if not files:
        if any(file.suffix in PICKLED for file in folder.iterdir()):
            raise ModelError(
                f"{name} holds pickled weights (.bin, .pt), which can run code when loaded.",
                "Ask for a safetensors version, or convert it elsewhere.",
            )
        raise ModelError(f"{name} holds no weights ({pattern}).", "Fetch it again.")
    for file in files:
        try:
            with safe_open(file, "pt") as handle:
                handle.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file.name} of {name} is damaged: {error}.", "Fetch it again.") from error
