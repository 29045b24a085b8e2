"""The loss head against the plain computation."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.engine import loss


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 1000))
def test_value_and_gradient_equal_plain_cross_entropy(positions, chunk, seed):
    torch.manual_seed(seed)
    hidden = torch.randn(positions, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, dtype=torch.float64)
    labels = torch.randint(0, 11, (positions,))
    loss.CHUNK, before = chunk, loss.CHUNK
    try:
        ours = loss.HeadLoss.apply(hidden, weight, labels)
    finally:
        loss.CHUNK = before
    (gradient,) = torch.autograd.grad(3 * ours, hidden)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum")
    (expected,) = torch.autograd.grad(3 * plain, hidden)
    # the head works in fp32, as its logits do
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
