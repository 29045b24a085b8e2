"""What a model folder holds, read from its JSON files and safetensors headers alone; and whether it can be used."""

import hashlib
import json
import re
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio.domain.errors import ModelError
from studio.storage.paths import sha256

MODEL_TYPE = re.compile(r"[a-z0-9_-]+")  # anything else could be a path
CODE_KEYS = ("auto_map", "trust_remote_code")  # both ask for code from the model's folder to be run
WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length")


class Facts(BaseModel):
    """Parameters, longest input in tokens (0: not told) and size on disk."""

    parameters: int
    context: int
    bytes: int


def inspect(folder: Path, name: str) -> Facts:
    """Return the facts of a model folder; raise ModelError, in terms of `name`, when it cannot or may not be used."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{name} is an adapter, not a base model.",
                "Name its base with --model, and the adapter with --adapter.",
            )
        raise ModelError(
            f"{name} is not a model folder: it has no config.json.",
            "Name a folder with config.json, a tokenizer and *.safetensors.",
        )
    config = read_config(folder / "config.json", name)
    files = weight_files(folder, name)
    if not any((folder / tokenizer).is_file() for tokenizer in TOKENIZERS):
        raise ModelError(f"{name} has no tokenizer.", "Save the tokenizer into the same folder (tokenizer.json).")
    parameters = sum(header_parameters(file, name) for file in files)
    inner = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    context = next((inner[key] for key in CONTEXT_KEYS if isinstance(inner.get(key), int)), 0)
    return Facts(parameters=parameters, context=context, bytes=sum(file.stat().st_size for file in files))


def read_config(path: Path, name: str) -> dict[str, Any]:
    """Return config.json, refusing a model that brings code, or that cannot write text."""
    config = _json(path, name)
    tokenizer = path.with_name("tokenizer_config.json")
    if _asks_for_code(config) or (tokenizer.is_file() and _asks_for_code(_json(tokenizer, name))):
        raise ModelError(
            f"{name} wants to run code of its own when loaded, which is never done here.",
            "Choose a model of an architecture that transformers knows.",
        )
    if not MODEL_TYPE.fullmatch(str(config.get("model_type", ""))):
        raise ModelError(f"{name} does not say what kind of model it is.", "Its config.json needs a plain model_type.")
    kinds = config.get("architectures") or []
    if config.get("is_encoder_decoder") or (kinds and not any(str(kind).endswith(WRITERS) for kind in kinds)):
        raise ModelError(
            f"{name} is not a model that continues text ({', '.join(map(str, kinds)) or 'encoder and decoder'}).",
            "Choose a causal language model, best one trained for chat.",
        )
    return config


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files of a folder; refuse pickled weights in plain words."""
    files = sorted(folder.glob("model*.safetensors"))
    if files:
        return files
    pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in PICKLED]
    if pickled:
        raise only_pickled(name, pickled[0])
    raise ModelError(f"{name} holds no weights (model.safetensors).", "Fetch it again, or choose another folder.")


def only_pickled(name: str, file: str) -> ModelError:
    """Return the refusal of a model without safetensors."""
    return ModelError(
        f"{name} has its weights only as {file}, a format that can run code when opened.",
        "Choose a version with safetensors, or convert it elsewhere.",
    )


def header_parameters(file: Path, name: str) -> int:
    """Return the number of parameters in a safetensors file, after checking that it is whole."""
    return sum(prod(entry["shape"]) for entry in header(file, name).values())


def header(file: Path, name: str) -> dict[str, dict[str, Any]]:
    """Return the tensors of a safetensors file by name, with `dtype` and `shape`, after checking that it is whole."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise ValueError("the header's length is wrong")
            tensors = json.loads(stream.read(length))
        tensors.pop("__metadata__", None)
        if 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0) != size:
            raise ValueError("bytes are missing")
        return {
            key: {"dtype": str(entry["dtype"]), "shape": [int(side) for side in entry["shape"]]}
            for key, entry in tensors.items()
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file.name} of {name} is damaged.", "Fetch the model again.") from error


def fingerprint(files: list[Path]) -> str:
    """Return the SHA-256 of the weights: of the one file, or of the list of the files' sums."""
    sums = [checksum(file) for file in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file, read once as long as the file stays as it is."""
    return _sha256(file, file.stat().st_ino, file.stat().st_size, file.stat().st_mtime_ns)


@cache  # a large model takes seconds to read; the same inode, size and time mean the same content
def _sha256(file: Path, inode: int, size: int, changed: int) -> str:
    return sha256(file)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} of {name} cannot be read.", "Fetch the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} of {name} does not hold settings.", "Fetch the model again.")
    return value


def _asks_for_code(value: Any) -> bool:
    if isinstance(value, dict):
        return any(value.get(key) for key in CODE_KEYS) or any(_asks_for_code(inner) for inner in value.values())
    return isinstance(value, list) and any(_asks_for_code(inner) for inner in value)
