"""What is exported answers as the adapter does: a folder for transformers, a GGUF file, a Modelfile beside it."""

import hashlib
import json

import gguf
import numpy as np
import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from studio.domain.errors import ModelError
from studio.domain.methods import METHODS
from studio.engine import export, gguf_file, llama_cpp, parity, tokens
from studio.engine.report import Reporter
from tests.engine.conftest import STARTER_TEMPLATE, make_model, make_tokenizer
from tests.engine.test_generate import make_adapter, make_any

PROMPTS = [[{"role": "user", "content": text}] for text in ("What is the colour of the sky?", "Where is my parcel?")]
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 64, "rope_theta": 10_000.0}


def exported(directory, base, adapter, form, weights="f16"):
    """Run the export job; return its result and the folder it made."""
    directory.mkdir(exist_ok=True)
    out = directory / "out"
    request = {"model": str(base), "base": "tiny", "adapter": str(adapter), "name": "answers@v1", "format": form}
    request |= {"weights": weights, "out": str(out), "prompts": PROMPTS}
    (directory / "request.json").write_text(json.dumps(request))
    export.run(directory, Reporter(directory))
    return json.loads((directory / "result.json").read_text()), out


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if name not in ("prompt", "prefix", "qlora")])
def test_a_merged_model_is_the_adapter_on_its_base(tiny, tmp_path, method):
    adapter = make_any(tiny, tmp_path / "adapter", method, 1)
    result, out = exported(tmp_path / "job", tiny, adapter, "merged")
    assert result["parity"]["ok"], result["parity"]["words"]
    assert result["parity"]["divergence"] < 0.01
    for file in result["files"]:
        assert hashlib.sha256((out / file["name"]).read_bytes()).hexdigest() == file["sha256"]
        assert (out / file["name"]).stat().st_size == file["bytes"]
    model = AutoModelForCausalLM.from_pretrained(out)  # as a stranger loads it
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(out).chat_template == STARTER_TEMPLATE


def test_the_template_of_the_training_goes_along(tiny, tmp_path):
    adapter = make_adapter(tiny, tmp_path / "adapter", 1)
    mine = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (adapter / "studio.json").write_text(json.dumps({"template": mine}))
    _, out = exported(tmp_path / "job", tiny, adapter, "merged")
    assert AutoTokenizer.from_pretrained(out).chat_template == mine


KINDS = ["llama", "mistral", "qwen2", "qwen3", "llama 3", "untied"]


def make_base(folder, kind):
    more = {"llama 3": {"rope_parameters": LLAMA_3}, "untied": {"tie_word_embeddings": False}}.get(kind, {})
    return make_model(folder, kind if not more else "llama", sliding_window=None, **more)


@pytest.fixture(params=["transformers", "llama.cpp"])
def reader(request, monkeypatch):
    """Who reads a GGUF file back; llama.cpp is an extra."""
    if request.param == "transformers":
        monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    else:
        pytest.importorskip("xllamacpp")
    return request.param


@pytest.mark.parametrize("weights", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_file_is_the_adapter_on_its_base(tmp_path, kind, weights, reader):
    base = make_base(tmp_path / "base", kind)
    adapter = make_adapter(base, tmp_path / "adapter", 1)
    result, out = exported(tmp_path / "job", base, adapter, "gguf", weights)
    assert result["parity"]["ok"], result["parity"]["words"]
    assert [path.name for path in sorted(out.iterdir())] == ["export.json", "model.gguf"]
    fields = gguf.GGUFReader(out / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == STARTER_TEMPLATE
    assert fields["tokenizer.ggml.pre"].contents() in ("gpt-2", "qwen2")
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_alone_is_a_gguf_file(tmp_path, kind, reader):
    base = make_base(tmp_path / "base", kind)
    result, out = exported(tmp_path / "job", base, make_adapter(base, tmp_path / "adapter", 1), "gguf-adapter")
    assert result["parity"]["ok"], result["parity"]["words"]
    assert result["parity"]["by"].startswith(reader)
    assert result["parity"]["divergence"] < 0.001
    assert [path.name for path in sorted(out.iterdir())] == ["adapter.gguf", "export.json", "template.jinja"]
    file = gguf.GGUFReader(out / "adapter.gguf")
    facts = {key: file.fields[key].contents() for key in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert facts == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    assert {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= {tensor.name for tensor in file.tensors}


def test_scales_and_ranks_of_layers_are_in_the_file(tiny, tmp_path, reader):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    config = {"r": 4, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"k_proj": 32}, "use_rslora": True}
    config |= {"target_modules": ["q_proj", "k_proj", "down_proj"], "init_lora_weights": False}
    peft.get_peft_model(model, peft.LoraConfig(**config)).save_pretrained(tmp_path / "adapter")
    result, _ = exported(tmp_path / "job", tiny, tmp_path / "adapter", "gguf-adapter")
    assert result["parity"]["divergence"] < 0.001, result["parity"]["words"]


def test_llama_cpp_tells_another_adapter_apart(tiny, tmp_path):
    pytest.importorskip("xllamacpp")
    one, two = (make_adapter(tiny, tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    _, out = exported(tmp_path / "job", tiny, one, "gguf-adapter")
    _, base = exported(tmp_path / "base", tiny, two, "gguf")
    tokenizer = make_tokenizer()
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), two).eval()
    expected = parity.answers(model, tokenizer, [tokens.render(tokenizer, PROMPTS[0], prompt=True)])
    assert llama_cpp.ask(base / "model.gguf", None, expected).ok
    found = llama_cpp.ask(base / "model.gguf", out / "adapter.gguf", expected)
    assert found.divergence > 0.01
    (base / "model.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match="cannot load what was written"):
        llama_cpp.ask(base / "model.gguf", None, expected)


def test_more_than_plain_lora_is_no_adapter_of_llama_cpp(tiny, tmp_path):
    adapter = make_any(tiny, tmp_path / "adapter", "dora", 1)
    with pytest.raises(ModelError, match="more than plain LoRA"):
        exported(tmp_path / "job", tiny, adapter, "gguf-adapter")


def test_ollama_gets_a_modelfile(tiny, tmp_path):
    _, out = exported(tmp_path / "job", tiny, make_adapter(tiny, tmp_path / "adapter", 1), "ollama", "q8_0")
    assert {path.name for path in out.iterdir()} == {"Modelfile", "model.gguf", "export.json"}
    assert (out / "Modelfile").read_text().startswith("FROM ./model.gguf\n")


def test_another_model_is_told_apart(tiny, tmp_path):
    tokenizer = make_tokenizer()
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with torch.no_grad():
        base.model.embed_tokens.weight.mul_(20)  # sure of what it says, as trained models are
    expected = parity.answers(base, tokenizer, [tokens.render(tokenizer, PROMPTS[0], prompt=True)])
    assert parity.compare(parity.Transformers(base, tokenizer), expected).ok
    torch.manual_seed(5)
    stranger = AutoModelForCausalLM.from_config(base.config)
    found = parity.compare(parity.Transformers(stranger, tokenizer), expected)
    assert not found.ok
    assert "nats a token away" in found.words
    expected[0].logits = expected[0].logits.roll(1, -1)  # as if the adapter had said another word each time
    assert "They part at token 1 of answer 1" in parity.compare(parity.Transformers(base, tokenizer), expected).words
    other = make_tokenizer()
    other.add_tokens(["sky"])
    assert "its tokenizer gives other tokens" in parity.compare(parity.Transformers(base, other), expected).words


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_learned_tokens_cannot_be_put_into_a_base(tiny, tmp_path, method):
    adapter = make_any(tiny, tmp_path / "adapter", method, 1)
    with pytest.raises(ModelError, match="cannot be put into its base"):
        exported(tmp_path / "job", tiny, adapter, "merged")
    assert not (tmp_path / "job" / "out").exists()


def test_a_failure_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf_file, "write", full)
    with pytest.raises(OSError, match="No space"):
        exported(tmp_path / "job", tiny, make_adapter(tiny, tmp_path / "adapter", 1), "gguf")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["events.jsonl", "request.json"]


@pytest.mark.parametrize("wrong", ["kind", "positions", "splitting"])
def test_what_has_no_form_in_gguf_is_refused_at_once(tmp_path, wrong):
    config = AutoConfig.for_model("gpt2" if wrong == "kind" else "llama")
    tokenizer = make_tokenizer()
    if wrong == "positions":
        config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    if wrong == "splitting":
        tokenizer.backend_tokenizer.pre_tokenizer = None
    with pytest.raises(ModelError, match="GGUF") as refused:
        gguf_file.refuse(config, tokenizer)
    assert "convert_hf_to_gguf" in refused.value.hint


def test_stretched_positions_are_those_of_transformers():
    config = AutoConfig.for_model("llama", head_dim=64, rope_parameters=LLAMA_3)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    turned, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 10_000.0 ** (np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(plain / gguf_file.stretched(config), turned.numpy(), rtol=1e-5)
