"""A frozen weight laid out once as oneDNN reads it, instead of anew for each product: for few rows at a time."""

from typing import Any

import torch

# The operators with which torch's own compiler packs; their names and arguments are no promise.
TRIED = ((2, 13), (2, 15))  # first release tried, and first not


def packs(layer: torch.nn.Linear) -> bool:
    """Whether this layer is faster so and rounds as before: 16 bits, on a processor that computes with them.

    In fp32 the sums would be formed in another order than by a plain product.
    """
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return (
        TRIED[0] <= release < TRIED[1]
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class Packed:
    """x [..., I] → x·Wᵀ + bias [..., O] for a layer's weight as it is now."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        operators: Any = torch.ops.mkldnn
        self.weight = operators._reorder_linear_weight(layer.weight.detach(), 1)
        self.bias, self.product = layer.bias, operators._linear_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, self.weight, self.bias, "none", [], "")

    def unpacked(self) -> torch.Tensor:
        """Return a copy of the weight [O, I] as it was."""
        return self.weight.to_dense()
