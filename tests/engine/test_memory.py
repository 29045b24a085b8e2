"""What a step keeps, and how many layers are computed again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studio.engine import loss, memory, parallel
from studio.engine.rows import Table
from studio.engine.tensors import packed_batch
from tests.engine.test_attention import rows_of
from tests.engine.test_fused import adapted


@given(st.integers(0, 10**6), st.integers(1, 10_000), st.integers(1, 80), st.integers(1, 2**40))
def test_no_more_layers_than_needed_and_enough_of_them(per_token, tokens, layers, free):
    number = memory.layers_to_recompute(per_token, tokens, layers, free)
    each, room = per_token * tokens / layers, memory.SHARE * free
    assert 0 <= number <= layers
    assert number == layers or (layers - number) * each <= room * (1 + 1e-9)
    assert number == 0 or (layers - number + 1) * each > room * (1 - 1e-9)


def test_what_is_kept_is_measured_without_the_weights():
    model = adapted("llama")
    few = memory.saved_per_token(model, Table.of(rows_of([30])), None)
    many = memory.saved_per_token(model, Table.of(rows_of([60])), None)
    assert 0.7 < few / many < 1.3, "it grows with the tokens, not with the model"
    # two layers of width 32 and 64 in fp32: some kilobytes, not the megabytes of a vocabulary
    assert 1_000 < many < 50_000


def test_the_first_layers_are_computed_again_with_the_same_gradient():
    plain, saving = adapted("llama"), adapted("llama")
    memory.recompute(saving, 1)
    assert [layer.gradient_checkpointing for layer in memory.layers_of(saving)] == [True, False]
    found = []
    for model in (plain, saving):
        loss.packed(model.train(), packed_batch(rows_of([7, 20]))).backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(*found)
    rows = Table.of(rows_of([60]))
    assert memory.saved_per_token(saving, rows, None) < memory.saved_per_token(plain, rows, None)


@pytest.mark.parametrize(("mine", "others"), [(True, False), (False, True), (True, True)])
def test_memory_that_runs_out_in_one_process_is_known_to_all(monkeypatch, mine, others):
    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.setattr(parallel, "agree", lambda number: max(number, others))

    def work():
        with memory.together(alone=False):
            if mine:
                raise RuntimeError("CUDA out of memory")

    with pytest.raises(memory.AllRanOut) as caught:
        work()
    assert memory.mendable(caught.value)


def test_no_memory_error_is_mended_while_the_others_wait_for_part_of_a_layer(monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(RuntimeError, match="out of memory") as caught, memory.together(alone=True):
        raise RuntimeError("CUDA out of memory")
    assert not memory.mendable(caught.value)
