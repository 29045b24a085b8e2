"""The curve of a run: read once, grown by what is appended, forgotten when too many are looked at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.domain.events import Event, Saved, Started, Step, Warned, dump
from studio.domain.records import Run, Status
from studio.services import curve as curves
from studio.ui import watch

Run_ = Callable[..., Run]


def write(run: Run, *happened: Event) -> None:
    with open(Path(run.path) / "events.jsonl", "a") as file:
        file.writelines(dump(event) for event in happened)


@pytest.fixture
def run(tmp_path: Path) -> Run_:
    """Make the record of a run with a folder of its own."""

    def make(id: str = "desk-1", status: Status = Status.TRAINING, created: str = "2026-11-21") -> Run:
        (tmp_path / id).mkdir(exist_ok=True)
        facts = {"name": "desk", "model": "starter", "dataset": "tickets", "method": "lora", "steps": 100}
        return Run(id=id, path=str(tmp_path / id), status=status, created=created, **facts)

    return make


def step(number: int) -> Step:
    return Step(step=number, loss=2.0, learning_rate=1e-4, grad_norm=1, tokens=9, tokens_per_second=9, memory_bytes=9)


def test_a_page_that_looks_again_gets_the_same_curve_grown(run: Run_) -> None:
    look = watch.Watch()
    write(run(), step(1))
    first = look(run())
    write(run(), step(2))
    assert look(run()) is first
    assert first.losses.points == [(1, 2.0), (2, 2.0)]


def test_nothing_new_keeps_the_very_picture(run: Run_) -> None:
    look = watch.Watch()
    write(run(), step(1))
    drawn = look(run()).figures
    assert look(run()).figures is drawn
    assert look(run(status=Status.STOPPED)).figures != drawn  # no steps to go any more


def test_loss_learning_rate_and_gradient_norm_are_drawn(run: Run_) -> None:
    write(run(), step(1), step(2))
    figures = watch.Watch()(run()).figures
    assert [title for title in ("Loss", "Learning rate", "Gradient norm") if f"<b>{title}</b>" in figures] == [
        "Loss",
        "Learning rate",
        "Gradient norm",
    ]


def test_what_happened_on_the_way_stands_at_its_step(run: Run_) -> None:
    write(run(), *map(step, range(1, 50)), Warned(words="It climbs.", step=45, rule="divergence", did="acted"))
    again = {"rows": 9, "eval_rows": 1, "tokens_per_epoch": 5, "trainable_parameters": 3, "device": "processor"}
    write(run(), Started(steps=100, precision="fp32", resumed_from=40, **again), *map(step, range(41, 60)))
    write(run(), Warned(words="Memory.", step=50, rule="memory", did="acted"), Saved(step=30, path="adapter", bytes=1))
    curve = watch.Watch()(run())
    assert curve.flags() == [(40, "resumed"), (45, "loss climbs"), (50, "batch halved"), (30, "kept")]
    assert all(f">{words}<" in curve.figures for _, words in curve.flags())


def test_few_runs_are_held_and_a_number_given_again_is_another_run(run: Run_) -> None:
    look = watch.Watch()
    write(run(), step(1), step(2))
    first = look(run())
    (Path(run().path) / "events.jsonl").write_text(dump(step(1)))
    assert len(look(run(created="2026-11-22")).losses) == 1
    for number in range(2, 3 + watch.KEPT):
        look(run(f"desk-{number}"))
    assert len(look.curves) == watch.KEPT
    assert look(run()) is not first


def test_a_very_long_file_is_drawn_part_by_part(run: Run_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "CHUNK", 2000)
    monkeypatch.setattr(curves, "PATIENCE", 0)
    monkeypatch.setattr(watch, "REST", 0)
    write(run(), *map(step, range(1, 101)))
    look = watch.Watch()
    curve = look(run())
    assert look.behind(run())
    assert 0 < len(curve.losses) < 100
    while look.behind(run()):
        look(run())
    assert len(curve.losses) == 100
