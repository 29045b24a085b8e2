"""Home: what a new user sees, and what is going on later."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from studio.domain.records import Adapter, Run, Status
from studio.services import datasets
from studio.studio import Studio
from studio.ui import home
from studio.ui.home import going_on, in_use_now


def run(number: int, status: Status, **more: Any) -> Run:
    facts = {"id": f"desk-{number}", "name": "desk", "path": "", "model": "starter", "dataset": "tickets"}
    return Run(**(facts | {"method": "lora", "created": "2026-11-21T10:00:00+00:00", "status": status} | more))


@pytest.mark.spec("U21.1")
def test_the_first_visit_says_in_plain_words_what_to_do(page: Callable[..., Any]) -> None:
    view = page(home.build, "home")
    view.refresh()
    first, later = view.tab.outputs[:2]
    assert (view.states[-1][first]["visible"], view.states[-1][later]["visible"]) == (True, False)
    seen = view.seen()
    assert "Teach a model your own examples" in seen
    assert "stays here" in seen
    view.press("Add your data")
    assert view.values[view.shell.items["data"]] == ""


def test_the_store_decides_what_a_visit_shows(page: Callable[..., Any], studio: Studio) -> None:
    studio.datasets.add(datasets.sample_path())
    view = page(home.build, "home")
    view.refresh()
    first, later = view.tab.outputs[:2]
    assert (view.states[-1][first]["visible"], view.states[-1][later]["visible"]) == (False, True)
    assert "No runs yet." in view.seen()


def test_the_sample_is_added_and_taken_to_train(page: Callable[..., Any], studio: Studio) -> None:
    view = page(home.build, "home")
    view.press("Try it with sample data")
    (dataset,) = studio.datasets.list()
    assert view.values[view.shell.items["train"]] == dataset.id
    assert view.states[-1][view.shell.tabs]["selected"] == "train"
    assert view.was("Try it with sample data", "interactive") is True


def test_a_sample_that_cannot_be_read_is_said_in_place(
    page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(datasets, "sample_path", lambda: tmp_path / "gone.csv")
    view = page(home.build, "home")
    view.press("Try it with sample data")
    assert "There is no file" in view.seen()
    assert view.was("Try it with sample data", "interactive") is True


def test_active_runs_stand_apart_from_those_that_ended() -> None:
    shown = going_on([run(3, Status.TRAINING, step=1, steps=2), run(2, Status.FAILED), run(1, Status.FINISHED)])
    now, recent = shown.split("<h2>Recent")
    assert "desk, run 3" in now
    assert "Training" in now
    assert "desk, run 2" in recent
    assert "desk, run 1" in recent
    assert "Now" not in going_on([run(1, Status.FINISHED)])


def test_runs_that_wait_stand_in_their_order_below_those_at_work() -> None:
    waits = {"status": Status.QUEUED}
    one, two = run(4, **waits, since="2026-11-21T10:00:00"), run(5, **waits, since="2026-11-21T11:00:00", priority=1)
    shown = going_on([two, one, run(3, Status.TRAINING)])
    assert shown.index("desk, run 3") < shown.index("desk, run 5") < shown.index("desk, run 4")


@pytest.mark.spec("U35.2")
def test_nothing_polls_without_a_run(page: Callable[..., Any], studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    view = page(home.build, "home")
    (timer,) = view.tab.timers
    view.refresh()
    assert view.states[-1][timer]["active"] is False
    monkeypatch.setattr(studio.runs, "list", lambda: [run(1, Status.TRAINING)])
    view.refresh()
    assert view.states[-1][timer]["active"] is True
    monkeypatch.setattr(studio.runs, "list", lambda: [run(1, Status.FINISHED)])
    view.refresh()
    assert view.states[-1][timer]["active"] is False


def test_the_active_version_is_shown_with_its_verdict() -> None:
    facts = {"path": "", "base": "starter", "base_path": "", "run": "desk-1", "method": "lora", "bytes": 66_000_000}
    created = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    metrics = {"verdict": "Better. 78 against 64 of 100."}
    adapter = Adapter(name="desk", version=6, created=created, active=True, metrics=metrics, **facts)
    shown = in_use_now([adapter])
    assert "desk v6" in shown
    assert "Better. 78 against 64 of 100." in shown
    assert 'data-id="desk@v6"' in shown
    assert in_use_now([]) == ""
