"""Loading a base: precision by timing, no weight that is no number."""

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
