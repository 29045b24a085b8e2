"""A packed weight gives what the layer's own gives, and is taken only where it was tried."""

import pytest
import torch

from studio.engine import packed_weight


def layer(dtype, bias=True):
    torch.manual_seed(0)
    return torch.nn.Linear(96, 40, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 4, 70])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_plain_layer(rows, bias):
    plain = layer(torch.bfloat16, bias)
    if not packed_weight.packs(plain):
        pytest.skip("this processor does not compute in 16 bits")
    x = torch.randn(2, rows, 96, dtype=torch.bfloat16)
    with torch.no_grad():
        torch.testing.assert_close(packed_weight.Packed(plain)(x), plain(x))
    assert torch.equal(packed_weight.Packed(plain).unpacked(), plain.weight)


def test_other_precisions_and_releases_stay_plain(monkeypatch):
    assert not packed_weight.packs(layer(torch.float32))
    monkeypatch.setattr(packed_weight.torch, "__version__", "2.99.0")
    assert not packed_weight.packs(layer(torch.bfloat16))
