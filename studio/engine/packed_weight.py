"""A frozen weight laid out once as oneDNN reads it, instead of anew for each product: for few rows at a time."""

from collections.abc import Callable
from typing import Any

import torch

# The operators with which torch's own compiler packs; their names and arguments are no promise.
TRIED = ((2, 13), (2, 15))  # first release tried, and first not
Product = Callable[[torch.Tensor], torch.Tensor]


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


def product_of(layer: torch.nn.Linear) -> Product:
    """Return x [..., I] → x·Wᵀ + bias [..., O] for the layer's weight as it is now."""
    operators: Any = torch.ops.mkldnn
    weight, bias = operators._reorder_linear_weight(layer.weight.detach(), 1), layer.bias
    compute = operators._linear_pointwise.default
    return lambda x: compute(x, weight, bias, "none", [], "")
