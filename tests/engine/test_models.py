"""Loading a base: precision by timing, no weight that is no number."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.domain.errors import ModelError
from studio.engine import models
from tests.engine.conftest import make_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named_before_anything_is_trained(tmp_path, value):
    folder = make_model(tmp_path / "broken")
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 4] = value
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"not all numbers .{name}"):
        models.load_base(folder, "none", torch.float32, CPU)


def test_bf16_is_taken_where_it_is_clearly_faster(monkeypatch):
    for bf16, chosen in ((0.5, torch.bfloat16), (0.9, torch.float32), (150.0, torch.float32)):
        monkeypatch.setattr(models, "_seconds", lambda dtype, bf16=bf16: bf16 if dtype == torch.bfloat16 else 1.0)
        assert models.pick_dtype("auto", CPU) == chosen
        assert models.pick_dtype("fp32", CPU) == torch.float32


def test_a_product_is_timed_in_a_moment():
    assert 0 < models._seconds(torch.float32) < 1


def gradients(model):
    """The gradients of the adapter for the same few tokens."""
    model.train().zero_grad()
    ids = torch.arange(3, 35)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    return [value.grad.clone() for value in model.parameters() if value.requires_grad]


def test_a_quantised_base_learns_the_same_after_an_evaluation(tmp_path):
    """On AVX-512 bf16 processors bitsandbytes would repack the weights in the evaluation and spoil what comes after."""
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32}
    folder = make_model(tmp_path / "wide", **shape)
    base = models.load_base(folder, "nf4", torch.bfloat16, CPU)
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, settings)
    before = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=torch.arange(3, 35)[None])
    after = gradients(model)
    assert all(value.abs().sum() > 0 for value in before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_a_quantised_base_does_not_keep_its_file_in_memory(tmp_path):
    folder = make_model(tmp_path / "model")
    file = folder / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file, {"format": "pt"})
    model = models.load_base(folder, "nf4", torch.bfloat16, CPU)  # what is in bf16 already is not copied
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert model.get_input_embeddings().weight.any()
