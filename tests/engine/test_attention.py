"""Packed rows give what each row gives alone, for every architecture that is packed."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from studio.engine import attention, loss, tokens
from tests.engine.conftest import SHAPE


def model_of(kind):
    torch.manual_seed(0)
    extra = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, vocab_size=100, **SHAPE, **extra)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).eval()


def rows_of(lengths):
    rng = np.random.default_rng(0)
    return [tokens.Row(rng.integers(3, 100, length, dtype=np.int32), rng.random(length) < 0.6) for length in lengths]


@pytest.mark.parametrize("kind", attention.ARCHITECTURES)
def test_packed_loss_and_gradients_equal_the_padded_ones(kind):
    packed_model = model_of(kind)
    padded_model = AutoModelForCausalLM.from_config(packed_model.config, attn_implementation="sdpa").eval()
    padded_model.load_state_dict(packed_model.state_dict())
    rows = rows_of([7, 20, 3, 12])
    values = []
    for model, batch, measure in (
        (packed_model, tokens.packed_batch(rows), loss.packed),
        (padded_model, tokens.padded_batch(rows, 2), loss.padded),
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
        together = float(loss.packed(model, tokens.packed_batch(rows)))
        alone = sum(float(loss.packed(model, tokens.packed_batch([row]))) for row in rows)
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_a_window_shorter_than_the_rows_is_not_packed():
    config = AutoConfig.for_model("mistral", sliding_window=64, **SHAPE)
    assert attention.packable(config, 64)
    assert not attention.packable(config, 65)
    assert not attention.packable(AutoConfig.for_model("gpt2"), 8)
