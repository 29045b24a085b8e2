"""Write a LoRA adapter as a GGUF file, as llama.cpp's own converter does, and read it back."""

from pathlib import Path
from typing import Any

import gguf
import torch

from studio.domain.errors import ModelError
from studio.engine import gguf_file, swap


def refuse(adapter: dict[str, Any], name: str) -> None:
    """Raise ModelError where an adapter is more than A, B and a scale for each layer."""
    if not swap.plain(adapter) or adapter.get("use_dora"):
        raise ModelError(
            f"{name} is more than plain LoRA, which is all that llama.cpp's adapters hold.",
            "Export it as gguf, with the base in the file.",
        )


def write(model: Any, path: Path, name: str, base: str) -> None:
    """Write the adapter on a peft model, in fp32 as it was trained.

    The file has one alpha for all layers; what a layer's scale differs from alpha / rank is put into its B.
    """
    arch = gguf_file.ARCHITECTURES[model.config.model_type]
    alpha = float(model.active_peft_config.lora_alpha)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, base)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for target, layer, rows in _layers(model):
        down, up, scale = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]
        writer.add_tensor(f"{target}.lora_a", _array(down))
        writer.add_tensor(f"{target}.lora_b", _array(gguf_file.turned(up * (scale * len(down) / alpha), rows)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(model: Any, path: Path) -> None:
    """Give the adapter on a peft model the weights of a file, as llama.cpp would take them."""
    reader = gguf.GGUFReader(path)
    alpha = float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())
    there = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    for target, layer, rows in _layers(model):
        down, up = there.pop(f"{target}.lora_a"), there.pop(f"{target}.lora_b")
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(gguf_file.turned(up, rows, back=True))
        layer.scaling["default"] = alpha / len(down)
    if there:
        raise ModelError(f"{path.name} holds layers that the adapter has not: {', '.join(there)}.", "Export it again.")


def _layers(model: Any) -> list[tuple[str, Any, int]]:
    """Return for each layer with LoRA its name in GGUF, itself, and by how many heads its rows are turned (0: none)."""
    config = model.config
    arch = gguf_file.ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = []
    for name, layer in model.get_base_model().named_modules():
        if "default" in getattr(layer, "lora_A", {}):
            target = names.get_name(f"{name}.weight", try_suffixes=(".weight",))
            if target is None:
                raise ModelError(f"The layer {name} has no place in a GGUF file of this kind.", gguf_file.OTHERWISE)
            found.append((target, layer, gguf_file.heads(config, f"{name}.weight")))
    return found


def _array(value: torch.Tensor) -> Any:
    return value.detach().to("cpu", torch.float32).contiguous().numpy()
