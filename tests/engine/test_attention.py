"""Packed rows give what each row gives alone, for every architecture that is packed."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from studio.engine import attention, loss
from studio.engine.rows import Row
from studio.engine.tensors import packed_batch, padded_batch
from studio.engine.trainer import loss_of
from tests.engine.conftest import SHAPE

on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
CARD = torch.device("cuda")


def model_of(kind):
    torch.manual_seed(0)
    extra = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    # a window shorter than a row, where the architecture has one
    window = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}
    config = AutoConfig.for_model(kind, vocab_size=100, **SHAPE, **extra, **(window if kind not in ("llama",) else {}))
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).eval()


def rows_of(lengths):
    rng = np.random.default_rng(0)
    return [Row(rng.integers(3, 100, length, dtype=np.int32), rng.random(length) < 0.6) for length in lengths]


@pytest.mark.parametrize("kind", attention.ARCHITECTURES)
def test_packed_loss_and_gradients_equal_the_padded_ones(kind):
    packed_model = model_of(kind)
    padded_model = AutoModelForCausalLM.from_config(packed_model.config, attn_implementation="eager").eval()
    padded_model.load_state_dict(packed_model.state_dict())
    rows = rows_of([7, 20, 3, 12])
    values = []
    for model, batch, measure in (
        (packed_model, packed_batch(rows), loss.packed),
        (padded_model, padded_batch(rows, 2), loss.padded),
    ):
        model.lm_head.weight.requires_grad_(False)  # tied: the packed head is frozen, as it is under an adapter
        value = measure(model, batch)
        value.backward()
        values.append((value.detach(), model.model.layers[0].self_attn.o_proj.weight.grad))
    torch.testing.assert_close(values[0][0], values[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values[0][1], values[1][1], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(2, 24), min_size=1, max_size=6))
def test_no_token_attends_across_rows(lengths):
    model = model_of("llama")
    rows = rows_of(lengths)
    with torch.no_grad():
        together = float(loss.packed(model, packed_batch(rows)))
        alone = sum(float(loss.packed(model, packed_batch([row]))) for row in rows)
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, None), (None, 2.0), (7, 1.5)])
def test_segments_equal_the_plain_computation(groups, window, softcap, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 4)
    torch.manual_seed(0)
    lengths = [1, 9, 4, 6]
    inputs = [torch.randn(1, n, sum(lengths), 8, dtype=torch.float64, requires_grad=True) for n in (4, groups, groups)]
    out = attention.Segments.apply(*inputs, lengths, 0.3, window, softcap)

    query, key, value = (each.repeat_interleave(4 // each.shape[1], 1) for each in inputs)
    score = query @ key.transpose(2, 3) * 0.3
    score = softcap * torch.tanh(score / softcap) if softcap else score
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    far = place[:, None] - place
    seen = (segment[:, None] == segment) & (far >= 0) & (far < (window or 100))
    expected = (score.masked_fill(~seen, -torch.inf).softmax(-1) @ value).transpose(1, 2)

    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    for ours, plain in zip(
        torch.autograd.grad(out, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
    ):
        torch.testing.assert_close(ours, plain)


def test_other_architectures_and_attention_with_dropout_are_not_packed():
    assert attention.packable(AutoConfig.for_model("mistral", sliding_window=64, **SHAPE))
    assert not attention.packable(AutoConfig.for_model("gpt2"))
    assert not attention.packable(AutoConfig.for_model("llama", attention_dropout=0.1, **SHAPE))


@pytest.mark.parametrize("takes", [{"window_size"}, {"window_size", "enable_gqa"}])
def test_torch_is_told_of_shared_keys_only_where_it_takes_that(takes, monkeypatch):
    given = {}

    def note(query, *_, **more):
        given.update(more)
        return query

    monkeypatch.setattr(attention, "attend_rows", note)
    monkeypatch.setattr(attention, "TAKES", takes)
    query, key = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    attention._flash(query, key, key, [2, 4], 0.3, None)
    assert set(given) == takes | {"scale"}
    assert given.get("enable_gqa", True) is True


@on_a_card
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_one_kernel_attends_as_each_segment_alone(groups, window):
    torch.manual_seed(0)
    lengths, width = [7, 20, 1, 30], 16
    shapes = [(1, heads, sum(lengths), width) for heads in (4, groups, groups)]
    parts = [torch.randn(shape, device=CARD, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    assert attention._flashes(parts[0], parts[2])
    one = attention._flash(*parts, lengths, width**-0.5, window)
    exact = attention.Segments.apply(*(part.double() for part in parts), lengths, width**-0.5, window, None)
    torch.testing.assert_close(one.double(), exact, rtol=2e-2, atol=2e-2)
    slope = torch.randn_like(one)
    found = torch.autograd.grad(one, parts, slope)
    wanted = torch.autograd.grad(exact, parts, slope.double())
    for its, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(its, theirs, rtol=5e-2, atol=5e-2)


@on_a_card
@pytest.mark.parametrize("kind", attention.ARCHITECTURES)
def test_a_card_finds_the_loss_the_processor_finds(kind):
    model, batch = model_of(kind), packed_batch(rows_of([7, 20, 3, 12]))
    expected = float(loss.packed(model, batch))
    assert float(loss_of(model.to(CARD), batch, CARD)) == pytest.approx(expected, rel=1e-4)
    half = float(loss_of(model.to(torch.bfloat16), batch, CARD))
    assert half == pytest.approx(expected, rel=2e-2)
