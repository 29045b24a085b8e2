"""The export job: an adapter put into its base, as a model folder or one GGUF file, compared with the adapter."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from studio.domain.errors import ModelError
from studio.engine import gate, generate, gguf_file, gguf_lora, llama_cpp, modelfile, models, parity, tokens
from studio.engine.report import Reporter, write_json

BYTES_FP32 = 4.5  # for a parameter merged in fp32, what is written meanwhile included
MODEL, ADAPTER = "model.gguf", "adapter.gguf"


def run(directory: Path, reporter: Reporter) -> None:
    """Make `out` of what request.json names: model, adapter, format, kind of weights, name and prompts."""
    request = models.request(directory)
    base, adapter, out = (Path(request[key]) for key in ("model", "adapter", "out"))
    settings = gate.adapter(adapter)
    models.use_all_cores()
    device = models.pick_device("auto")
    tokenizer = tokens.load_tokenizer(base)
    generate.lock_template(tokenizer, adapter)
    tokens.template_of(tokenizer)
    if request["format"] != "merged":
        gguf_file.refuse(_config(base), tokenizer)
    if request["format"] == "gguf-adapter":
        gguf_lora.refuse(settings, request["name"])
    reporter.phase("Asking the adapter")
    dtype = models.pick_dtype("auto", device)
    model: Any = peft.PeftModel.from_pretrained(models.load_base(base, "none", dtype, device), str(adapter)).eval()
    if model.active_peft_config.is_prompt_learning:
        raise ModelError(
            f"{request['name']} is learned tokens ({settings['peft_type']}): it cannot be put into its base.",
            "Use the adapter with its base, or train with LoRA.",
        )
    prompts = [tokens.render(tokenizer, messages, prompt=True) for messages in request["prompts"]]
    expected = parity.answers(model, tokenizer, prompts)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        result = {"format": request["format"], "weights": request["weights"]}
        if request["format"] == "gguf-adapter":
            found = _write_adapter(model, tokenizer, request, temporary, expected, reporter.phase)
        else:
            del model
            reporter.phase("Putting the adapter into its base")
            found = _write(_merged(base, adapter), tokenizer, request, temporary, expected, reporter.phase)
        reporter.phase("Checking the files")
        result |= {"parity": found.facts(), "files": _hashed(temporary)}
        write_json(temporary / "export.json", result | {key: request[key] for key in ("name", "base")})
        if out.is_dir():
            out.rmdir()  # an empty one: another was refused
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_json(directory / "result.json", {"path": str(out)} | result)


def _config(base: Path) -> Any:
    gate.base(base)
    return AutoConfig.from_pretrained(base, trust_remote_code=False)


def _half(base: Path) -> torch.dtype:
    return torch.float16 if getattr(_config(base), "dtype", None) == torch.float16 else torch.bfloat16


def _merged(base: Path, adapter: Path) -> Any:
    """Return the base with the adapter in it, on the processor: added in fp32 where the memory allows, then 16 bits."""
    half = _half(base)
    size = sum(file.stat().st_size for file in base.glob("model*.safetensors")) / 2
    dtype = torch.float32 if psutil.virtual_memory().available > BYTES_FP32 * size else half
    cpu = torch.device("cpu")
    model: Any = peft.PeftModel.from_pretrained(models.load_base(base, "none", dtype, cpu), str(adapter))
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # weights that are no numbers after it, or a layer it has no rule for
        raise ModelError(f"The adapter cannot be put into its base: {error}", "Use it with its base.") from error
    return merged.to(half).eval()


def _write(
    merged: Any,
    tokenizer: Any,
    request: dict[str, Any],
    folder: Path,
    expected: list[parity.Answer],
    phase: Callable[..., None],
) -> parity.Parity:
    """Write the files, read them back as a stranger would, and compare."""
    device = models.pick_device("auto")
    if request["format"] == "merged":
        phase("Writing the model")
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(_card(request), encoding="utf-8")
        phase("Comparing it with the adapter")
        dtype = models.pick_dtype("auto", device)
        again, words = models.load_base(folder, "none", dtype, device), tokens.load_tokenizer(folder)
        return parity.compare(parity.Transformers(again, words), expected)
    phase("Writing the GGUF file")
    saved = folder / ".tokenizer"
    tokenizer.save_pretrained(saved)
    gguf_file.write(merged, tokenizer, saved, folder / MODEL, request["weights"], request["name"])
    shutil.rmtree(saved)
    if request["format"] == "ollama":
        (folder / "Modelfile").write_text(modelfile.make(tokenizer, MODEL), encoding="utf-8")
    phase("Comparing it with the adapter")
    if llama_cpp.is_there():
        return llama_cpp.ask(folder / MODEL, None, expected)
    return parity.compare(parity.Transformers(*_read_gguf(folder, merged.config)), expected)


def _write_adapter(
    model: Any,
    tokenizer: Any,
    request: dict[str, Any],
    folder: Path,
    expected: list[parity.Answer],
    phase: Callable[..., None],
) -> parity.Parity:
    """Write the adapter alone, read it back, and compare: with llama.cpp on a base in 16 bits, if that is there."""
    phase("Writing the GGUF file")
    gguf_lora.write(model, folder / ADAPTER, request["name"], request["base"])
    (folder / "template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    phase("Comparing it with the adapter")
    gguf_lora.read(model, folder / ADAPTER)
    found = parity.compare(parity.Transformers(model, tokenizer), expected)
    if not llama_cpp.is_there() or not found.ok:
        return found
    phase("Comparing it with the adapter, by llama.cpp")
    base = Path(request["model"])
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".base-") as place:
        plain = models.load_base(base, "none", _half(base), torch.device("cpu"))
        gguf_file.write(plain, tokenizer, base, Path(place) / MODEL, "f16", request["base"])
        return llama_cpp.ask(Path(place) / MODEL, folder / ADAPTER, expected)


def _read_gguf(folder: Path, wanted: Any) -> tuple[Any, Any]:
    """Return model and tokenizer as transformers reads them from a GGUF file.

    It leaves out the size of a head and how positions are stretched, which come from the config that is `wanted`.
    """
    where: dict[str, Any] = {"pretrained_model_name_or_path": folder, "gguf_file": MODEL}
    config = AutoConfig.from_pretrained(**where)
    for name in ("head_dim", "rope_parameters"):
        if getattr(wanted, name, None) is not None:
            setattr(config, name, getattr(wanted, name))
    model = AutoModelForCausalLM.from_pretrained(**where, config=config, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def _hashed(folder: Path) -> list[dict[str, Any]]:
    files = []
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest})
    return files


def _card(request: dict[str, Any]) -> str:
    return f"""---
library_name: transformers
base_model: {json.dumps(request["base"])}
tags: [peft-studio]
---
# {request["name"]}

{request["base"]} with the adapter {request["name"]} in it, exported with PEFT Studio.

```python
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")
```
The chat template it was trained with is the tokenizer's own. `export.json` holds the files' hashes and how its answers
compare with the adapter's.
"""
