"""Batches side by side: in order, equal to one after the other, and every time the same."""

import threading

import pytest
import torch

from studio.domain import events
from studio.engine import lanes, models
from studio.engine.lanes import Lanes
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


def test_dropout_takes_one_lane(tiny, make_run, two_threads):
    found = run(make_run(tiny, *SETTINGS, "method.dropout=0.1"))
    assert of(events.Started, found)[0].settings["batches_at_once"] == 1
