"""The curve of a run: read once, grown by what is appended, forgotten when too many are looked at."""

from pathlib import Path
from typing import Any

import pytest

from studio.domain.events import Evaluated, Event, Saved, Step, dump
from studio.domain.records import Run, Status
from studio.services import jobs
from studio.ui import watch


class Folder:
    """Stands for the runs: one events file a run, and how often it was read from where."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, int]] = []

    def events(self, id: str, offset: int = 0) -> Any:
        self.asked.append((id, offset))
        return jobs.read_events(self.root / id, offset)

    def write(self, id: str, *happened: Event) -> None:
        with open(self.root / id, "a") as file:
            file.writelines(dump(event) for event in happened)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def run(id: str = "desk-1", status: Status = Status.TRAINING, created: str = "2026-11-21") -> Run:
    facts = {"name": "desk", "path": "", "model": "starter", "dataset": "tickets", "method": "lora", "steps": 100}
    return Run(**({"id": id, "status": status, "created": created} | facts))


def step(number: int) -> Step:
    return Step(step=number, loss=2.0, learning_rate=1e-4, grad_norm=1, tokens=9, tokens_per_second=9, memory_bytes=9)


def test_only_what_was_appended_is_read(folder: Folder) -> None:
    look = watch.Watch(folder)
    folder.write("desk-1", step(1))
    first = look(run())
    folder.write("desk-1", step(2))
    assert look(run()) is first
    assert [number for number, _ in first.losses] == [1, 2]
    assert folder.asked[0][1] == 0 < folder.asked[1][1]


def test_nothing_new_keeps_the_very_picture(folder: Folder) -> None:
    look = watch.Watch(folder)
    folder.write("desk-1", step(1))
    drawn = look(run()).figures
    assert look(run()).figures is drawn
    assert look(run(status=Status.STOPPED)).figures != drawn  # no steps to go any more


def test_a_torn_line_waits_for_its_end(folder: Folder) -> None:
    look = watch.Watch(folder)
    whole = dump(step(1))
    (folder.root / "desk-1").write_text(whole[:20])
    assert look(run()).losses == []
    (folder.root / "desk-1").write_text(whole)
    assert len(look(run()).losses) == 1


def test_the_final_report_does_not_bend_the_line(folder: Folder) -> None:
    report = Evaluated(step=40, loss=1.7, final={"rows": 9})
    folder.write("desk-1", Evaluated(step=0, loss=2.0), Evaluated(step=40, loss=1.5), step(80))
    folder.write("desk-1", Evaluated(step=80, loss=1.6), Saved(step=40, path="adapter", bytes=9), report)
    curve = watch.Watch(folder)(run())
    assert sorted(curve.checks.items()) == [(0, 2.0), (40, 1.5), (80, 1.6)]
    assert curve.held == [(0, 2.0), (40, 1.5)]
    assert curve.base == 2.0
    assert ">kept<" in curve.figures


def test_few_runs_are_held_and_a_number_given_again_is_another_run(folder: Folder) -> None:
    look = watch.Watch(folder)
    folder.write("desk-1", step(1), step(2))
    first = look(run())
    (folder.root / "desk-1").write_text(dump(step(1)))
    assert len(look(run(created="2026-11-22")).losses) == 1
    for number in range(2, 3 + watch.KEPT):
        look(run(f"desk-{number}"))
    assert len(look.curves) == watch.KEPT
    assert look(run()) is not first
