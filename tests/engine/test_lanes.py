"""Batches side by side: in order, equal to one after the other, and every time the same."""

import threading

import pytest
import torch

from studio.domain import events
from studio.domain.document import from_document, override
from studio.domain.lanes import LANE
from studio.domain.lanes import lanes as planned
from studio.engine import lanes, models
from studio.engine.lanes import Lanes
from tests.engine.conftest import make_model
from tests.engine.test_train import of
from tests.engine.test_trainer import run, steps

SETTINGS = ["train.max_steps=6", "evaluate.every=3", "evaluate.answers=0", "train.batch_tokens=128"]


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(lanes, "LEAST", 64)
    monkeypatch.setattr(models, "use_all_cores", lambda: torch.set_num_threads(2))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_errors_after_all_have_ended():
    first = threading.Event()

    def work(number):
        if number == 0:
            assert first.wait(10)
        if number == 1:
            first.set()
        if number == 2:
            raise MemoryError
        return number

    assert list(Lanes(2).map(work, [0, 1])) == [0, 1]
    with pytest.raises(MemoryError):
        list(Lanes(2).map(work, [2, 1, 3]))
    assert list(Lanes(1).map(work, [1, 3])) == [1, 3]


def test_two_lanes_learn_what_one_learns(tiny, make_run, two_threads, monkeypatch):
    both, again = run(make_run(tiny, *SETTINGS)), run(make_run(tiny, *SETTINGS))
    assert of(events.Started, both)[0].settings["batches_at_once"] == 2
    assert steps(both) == steps(again)
    monkeypatch.setattr(lanes, "LEAST", 10_000)
    one = run(make_run(tiny, *SETTINGS))
    assert of(events.Started, one)[0].settings["batches_at_once"] == 1
    assert list(steps(both).values()) == pytest.approx(list(steps(one).values()), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        (["method.name=qlora"], 2),
        (["method.name=qlora", "method.targets=attention"], 1),
        (["method.name=dora", "model.quantization=nf4"], 1),
        (["model.quantization=int8"], 1),
    ],
)
def test_a_base_in_four_bits_has_two_lanes_where_all_its_layers_are_ours(
    tmp_path, make_run, two_threads, settings, number
):
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    wide = make_model(tmp_path / "wide", **shape)
    both, again = run(make_run(wide, *SETTINGS, *settings)), run(make_run(wide, *SETTINGS, *settings))
    assert of(events.Started, both)[0].settings["batches_at_once"] == number
    assert steps(both) == steps(again)
    config = from_document(override({"model": {"id": "m"}, "data": {"path": "d"}}, settings))
    assert planned(config, 2, 2 * LANE) == number


def test_dropout_takes_one_lane(tiny, make_run, two_threads):
    found = run(make_run(tiny, *SETTINGS, "method.dropout=0.1"))
    assert of(events.Started, found)[0].settings["batches_at_once"] == 1
