"""Write a model as a GGUF file, for the kinds of models and tokenizers whose form in llama.cpp is known here.

Names of tensors and of settings come from the `gguf` library; what it does not know is done as llama.cpp's own
converter does it: the order of query and key rows, the stretched rotation of Llama 3, and the kinds of tokens.
"""

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from studio.domain.errors import ModelError
from studio.engine.quick_tokens import PATTERNS

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
KINDS = {  # of weights: what is written in the file, and how a matrix is stored
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "bf16": (gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
    "q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
}
OTHERWISE = "Export it merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py."
SPLITS = dict(zip(PATTERNS, ("llama-bpe", "qwen2", "qwen35"), strict=True))  # llama.cpp's names for ways of splitting


def refuse(config: Any, tokenizer: Any) -> None:
    """Raise ModelError where a model cannot be written; before anything heavy is done."""
    if config.model_type not in ARCHITECTURES:
        raise ModelError(f"Models of the kind {config.model_type} cannot be written as GGUF here.", OTHERWISE)
    scaling = rope(config)
    if scaling.get("rope_type", "default") not in ("default", "linear", "llama3"):
        raise ModelError(f"Positions scaled by {scaling['rope_type']} cannot be written as GGUF here.", OTHERWISE)
    if config.model_type != "llama" and getattr(config, "attention_bias", False) and config.model_type != "qwen2":
        raise ModelError("Attention with biases cannot be written as GGUF for this kind of model.", OTHERWISE)
    splitting(tokenizer)


def write(model: Any, tokenizer: Any, folder: Path, path: Path, kind: str, name: str) -> None:
    """Write a model, in memory as fp32 or 16 bits, and its tokenizer, saved in `folder`, as one GGUF file."""
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    file_type, stored = KINDS[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _settings(writer, config)
    _tokens(writer, config, tokenizer, folder)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embedding then
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"The weights {key} have no place in a GGUF file of this kind.", OTHERWISE)
        value = turned(value, heads(config, key))
        data = value.detach().to("cpu", torch.float32).contiguous().numpy()
        fits = data.ndim > 1 and (stored is not gguf.GGMLQuantizationType.Q8_0 or data.shape[-1] % 32 == 0)
        if fits:
            writer.add_tensor(target, gguf.quants.quantize(data, stored), raw_dtype=stored)
        else:  # norms and biases stay as they are
            writer.add_tensor(target, data)
    if rope(config).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", stretched(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def heads(config: Any, key: str) -> int:
    """Return by how many heads llama.cpp turns the rows of these weights; 0 where it leaves them."""
    if ARCHITECTURES[config.model_type] is not gguf.MODEL_ARCH.LLAMA or not key.endswith(
        ("q_proj.weight", "k_proj.weight")
    ):
        return 0
    return int(config.num_attention_heads if "q_proj" in key else config.num_key_value_heads)


def turned(value: torch.Tensor, heads: int, back: bool = False) -> torch.Tensor:
    """Return query or key rows in llama.cpp's order, in which the two halves of a head alternate, or back in ours."""
    if not heads:
        return value
    half = value.shape[0] // heads // 2
    shape = (heads, half, 2, -1) if back else (heads, 2, half, -1)
    return value.reshape(shape).transpose(1, 2).reshape(value.shape)


def rope(config: Any) -> dict[str, Any]:
    """Return how positions are turned: base frequency and scaling."""
    return dict(getattr(config, "rope_parameters", None) or {})


def _settings(writer: gguf.GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope(config).get("rope_theta", 10_000.0)))
    writer.add_vocab_size(config.vocab_size)
    if rope(config).get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope(config)["factor"])


def stretched(config: Any) -> np.ndarray:
    """Return by how much each frequency of Llama 3's positions is slowed [head size / 2]."""
    scaling = rope(config)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    factor, context = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    waves = 2 * math.pi * scaling["rope_theta"] ** (np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = (context / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < context / high, 1.0, np.where(waves > context / low, factor, between)).astype(np.float32)


def splitting(tokenizer: Any) -> str:
    """Return llama.cpp's name for how a byte-level tokenizer splits text before it merges."""
    backend = tokenizer.backend_tokenizer
    splitter = json.loads(backend.pre_tokenizer.__getstate__()) if backend.pre_tokenizer else {}
    match splitter.get("pretokenizers", [splitter]):
        case [{"type": "Digits"}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return "smollm"
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return "gpt-2"
        case [{"type": "Split", "pattern": {"Regex": pattern}}, {"type": "ByteLevel"}] if pattern in SPLITS:
            return SPLITS[pattern]
    raise ModelError("This model's tokenizer splits text in a way that cannot be written as GGUF here.", OTHERWISE)


def _tokens(writer: gguf.GGUFWriter, config: Any, tokenizer: Any, folder: Path) -> None:
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    texts, kinds = [], []
    for number in range(config.vocab_size):
        texts.append(known.get(number, f"[PAD{number}]"))
        if number not in known:
            kinds.append(gguf.TokenType.UNUSED)
        elif number not in added:
            kinds.append(gguf.TokenType.NORMAL)
        else:
            kinds.append(gguf.TokenType.CONTROL if added[number].special else gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting(tokenizer))
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(False)  # where a template wants one, it writes it
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=config.vocab_size)
    special.add_special_token = {}
    special.chat_template = tokenizer.chat_template
    special.add_to_gguf(writer, quiet=True)
