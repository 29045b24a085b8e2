"""The loss head against the plain computation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from studio.engine import loss


def both(hidden, weight, labels, head):
    """Ours and the plain one: value and gradient each."""
    ours = loss.HeadLoss.apply(hidden, weight, labels, head)
    logits = hidden @ weight.t() * head.scale
    if head.cap:
        logits = head.cap * torch.tanh(logits / head.cap)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=head.smoothing)
    return [(value, torch.autograd.grad(3 * value, hidden)[0]) for value in (ours, plain)]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 16),
    st.integers(0, 1000),
    st.builds(
        loss.Head, st.sampled_from([1.0, 0.25]), st.sampled_from([None, 2.0, 30.0]), st.sampled_from([0.0, 0.1, 0.5])
    ),
)
def test_value_and_gradient_equal_plain_cross_entropy(positions, chunk, seed, head):
    torch.manual_seed(seed)
    hidden = torch.randn(positions, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, dtype=torch.float64)
    labels = torch.randint(0, 11, (positions,))
    loss.CHUNK, before = chunk, loss.CHUNK
    try:
        (value, gradient), (plain, expected) = both(hidden, weight, labels, head)
    finally:
        loss.CHUNK = before
    # the head works in fp32, as its logits do
    torch.testing.assert_close(value.double(), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [loss.PLAIN, loss.Head(0.25, 2.0, 0.1), loss.Head(cap=30.0), loss.Head(smoothing=0.5)])
def test_the_way_of_a_card_gives_the_same(head):
    logits, wanted = 9 * torch.randn(20, 11), torch.randint(0, 11, (20, 1))
    torch.testing.assert_close(loss._chunk_on_card(logits.clone(), wanted, head), loss._chunk(logits, wanted, head))


def test_a_label_the_model_thinks_impossible_has_its_true_loss():
    hidden = torch.tensor([[200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]])
    (value, gradient), (plain, expected) = both(hidden, weight, torch.tensor([2]), loss.PLAIN)
    assert value == plain == 400
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("kind", "settings", "head"),
    [
        ("llama", {}, loss.Head()),
        ("gemma2", {"final_logit_softcapping": 30.0}, loss.Head(cap=30.0)),
        ("granite", {"logits_scaling": 8.0}, loss.Head(scale=0.125)),
        ("cohere", {"logit_scale": 0.0625}, loss.Head(scale=0.0625)),
    ],
)
def test_what_a_model_does_to_its_logits_is_read_from_its_config(kind, settings, head):
    assert loss.Head.of(AutoConfig.for_model(kind, **settings)) == head
