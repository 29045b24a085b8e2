"""Facts of a base model without loading it: of a folder, the Hub's cache, a GGUF file, or the Hub."""

import json
import tempfile
from pathlib import Path

import yaml

from studio.domain.model_facts import ModelFacts, Tensor, of_config, of_tensors
from studio.services import gguf_head, hub, weights

TEMPLATES = ("chat_template.jinja", "chat_template.json")
SMALL = ("config.json", "tokenizer_config.json", *TEMPLATES)
PATIENCE = 15  # seconds the Hub has for its first answer
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}
# A GGUF's names of what transformers calls otherwise once it is unpacked.
UNPACKED = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "o_proj",
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}


def of_folder(folder: Path, id: str, source: str, revision: str = "", licence: str = "") -> ModelFacts:
    """Return the facts of a folder of safetensors; raise ModelError when it cannot or may not be used."""
    config = weights.read_config(folder / "config.json", id)
    files = weights.weight_files(folder, id)
    heads = [weights.header(file, id) for file in files]
    tensors = [_tensor(name, **entry) for head in heads for name, entry in head.items()]
    return ModelFacts(
        id=id,
        source=source,
        path=str(folder),
        revision=revision,
        licence=licence or _licence(folder),
        template=_template(folder),
        bytes=sum(file.stat().st_size for file in files),
        **of_config(config) | of_tensors(tensors),
    )


def of_cache(id: str, revision: str = "") -> ModelFacts | None:
    """Return the facts of a Hub model that lies in the cache of the Hub's library."""
    folder = cached(id, revision)
    return of_folder(folder, id, "cache", folder.name) if folder else None


def cached(id: str, revision: str = "") -> Path | None:
    """Return the folder of a Hub model, named by its commit, that other programs have fetched to this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(id, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any(folder.glob("model*.safetensors")) else None


def of_gguf(path: Path) -> ModelFacts:
    """Return the facts in the head of a GGUF file; its weights are not read."""
    said, found = gguf_head.read(path)
    tensors = [Tensor(_unpacked(name), dtype, shape) for name, dtype, shape in found]
    family = str(said.get("general.architecture", ""))
    heads = said.get(f"{family}.attention.head_count", 0)
    return ModelFacts(
        id=str(path),
        source="gguf",
        path=str(path),
        family=family,
        layers=said.get(f"{family}.block_count", 0),
        hidden=said.get(f"{family}.embedding_length", 0),
        heads=heads,
        key_value_heads=said.get(f"{family}.attention.head_count_kv", heads),
        vocabulary=said.get(f"{family}.vocab_size") or said.get("tokenizer.ggml.tokens", 0),
        context=said.get(f"{family}.context_length", 0),
        licence=str(said.get("general.license", "")),
        template=bool(said.get("tokenizer.chat_template")),
        bytes=path.stat().st_size,
        **of_tensors(tensors),
    )


def of_hub(id: str, revision: str = "") -> ModelFacts:
    """Return the facts of a model on the Hub: its small files and the heads of its weights are asked for alone."""
    info = hub.ask(id, revision, PATIENCE)
    files = hub.wanted(info, id)
    names = [file.rfilename for file in files]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hub.download(info, folder, [name for name in SMALL if name in names])
        config = weights.read_config(folder / "config.json", id)
        template = _template(folder)
    heavy = [file for file in files if file.rfilename.endswith(".safetensors")]
    tensors = [_tensor(name, entry.dtype, entry.shape) for name, entry in hub.heads(info).items()]
    return ModelFacts(
        id=id,
        source="online",
        revision=info.sha,
        licence=str((info.card_data or {}).get("license") or ""),
        template=template,
        bytes=sum(file.size or 0 for file in heavy),
        **of_config(config) | of_tensors(tensors),
    )


def _tensor(name: str, dtype: str, shape: list[int]) -> Tensor:
    return Tensor(name, DTYPES.get(dtype, dtype), tuple(shape))


def _template(folder: Path) -> bool:
    try:
        told = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        told = {}
    return bool(told.get("chat_template")) or any((folder / name).is_file() for name in TEMPLATES)


def _licence(folder: Path) -> str:
    """Return the licence that the model card of a folder names at its top."""
    try:
        parts = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(card.get("license") or "") if isinstance(card, dict) else ""


def _unpacked(name: str) -> str:
    """Return the name a tensor gets outside GGUF, as far as its module goes: blk.0.attn_q.weight ends in q_proj."""
    parts = name.split(".")
    return ".".join(["", *(UNPACKED.get(part, part) for part in parts)])
