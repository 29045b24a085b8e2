"""Load a base model from a folder, quantise it, or make a folder of a GGUF file."""

import functools
import json
import math
import os
import resource
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from studio.domain.errors import ModelError
from studio.engine import gate, parallel

TIMING = 0.2  # seconds for a precision to show how fast it is
WITH_ROOM = 1.2  # what answering takes, as a multiple of the weights
CLEARLY = 0.8  # of the time in fp32 that bf16 may take to be chosen


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "There is no CUDA card this installation of torch can use.", "Set hardware.device to auto or cpu."
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it clearly faster, which a card says and a processor is timed for."""
    if wanted != "auto":
        return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = _seconds(torch.bfloat16) < CLEARLY * _seconds(torch.float32)
    return torch.bfloat16 if fast else torch.float32


@functools.cache
def _seconds(dtype: torch.dtype) -> float:
    """Seconds a small matrix product takes, the best of some: where bf16 is emulated, 150 times as long as in fp32.

    On a busy machine most are interrupted, and an estimate and its run must not choose differently; threads that wait
    for one another are interrupted more.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.ones(256, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    taken: list[float] = []
    while len(taken) < 5 or (sum(taken) < TIMING and len(taken) < 100):
        begin = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return min(taken)


def load_base(folder: Path, quantization: str, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """Return the base model, frozen and in eval mode. `quantization` is none, int8 or nf4 (bitsandbytes)."""
    gate.base(folder)
    options: dict[str, Any] = {}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    elif quantization == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            trust_remote_code=False,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The model in {folder.name} cannot be loaded: {error}", "Fetch it again, or choose another."
        ) from error
    _finite(model, folder)
    module: Any
    for module in model.modules():
        # bitsandbytes repacks 4-bit weights in place on the first forward without gradients on AVX512-BF16 processors
        # and never unpacks them: gradients after an evaluation would be wrong.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if quantization != "none" and device.type == "cpu":
        leave_file(model)
    return model.requires_grad_(False).eval()


def fitting(folder: Path, dtype: torch.dtype, free: int) -> str:
    """Return how a base is held to answer: "none" as it is, "nf4" where its weights would not fit into `free` bytes.

    Each weight takes its bytes in `dtype`, and room is left for keys, values and libraries.
    """
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return "none" if WITH_ROOM * count * dtype.itemsize <= free else "nf4"


def written_out(model: Any) -> Any:
    """Return a base in 4 bits with what the bits stand for in their place: as large as one held whole, and as fast."""
    return model.dequantize().requires_grad_(False).eval()


def leave_file(model: torch.nn.Module) -> None:
    """Copy what still lies in the mapped file, which would stay in memory with all that something else was made of."""
    for value in model.parameters():
        if value.is_floating_point():
            value.data = value.data.clone()


def _finite(model: torch.nn.Module, folder: Path) -> None:
    """Refuse a model with a weight that is no number: it would answer nonsense and teach it."""
    for name, value in model.named_parameters():
        if value.is_floating_point() and value.numel():
            low, high = torch.aminmax(value)  # a NaN anywhere becomes both
            if not (low.isfinite() and high.isfinite()):
                raise ModelError(
                    f"The weights of {folder.name} are not all numbers ({name}).",
                    "The file is damaged or its training went wrong: fetch it again, or choose another model.",
                )


def memory_bytes(device: torch.device) -> int:
    """Memory in use now: of the card, or of this process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kB


def use_all_cores() -> None:
    """One thread a physical core: hyperthreads only get in each other's way in matrix products.

    Whoever set OMP_NUM_THREADS knows better, and torch has obeyed already.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    torch.set_num_threads(max(1, cores // parallel.size()))


def convert(gguf: Path, out: Path) -> None:
    """Make a safetensors model folder of a GGUF file; it appears at `out` whole or not at all.

    Saving the model that transformers loads from a GGUF fails (it counts as quantised), so its weights go into a fresh
    model of the same configuration.
    """
    if not gguf.is_file():
        raise ModelError(f"There is no file {gguf}.", "Check the path.")
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        source = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"{gguf.name} cannot be read: {error}", "Use the safetensors version of this model."
        ) from error
    config = AutoConfig.for_model(source.config.model_type)
    settings = source.config.to_dict()
    settings.pop("quantization_config", None)
    config.update({key: value for key, value in settings.items() if key != "_name_or_path"})
    model: Any = type(source)(config)
    model.load_state_dict(source.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    gate.base(temporary)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(out)


def versions() -> dict[str, str]:
    """Versions of what decides a result, for lineage.json."""
    return {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes")}


def request(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "request.json").read_text(encoding="utf-8"))
