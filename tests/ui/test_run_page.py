"""One run in words: states, comparisons, the time left."""

from datetime import datetime
from typing import Any

import pytest

from studio.domain.records import Run, Status
from studio.ui import run_page
from studio.ui.watch import Curve


def run(**more: Any) -> Run:
    facts = {"id": "desk-7", "name": "desk", "path": "", "model": "starter", "dataset": "tickets", "method": "lora"}
    return Run(**({"status": Status.TRAINING, "created": "2026-11-21T10:00:00Z"} | facts | more))


@pytest.mark.spec("U25.3")
def test_the_time_left_is_an_interval_and_a_clock_time() -> None:
    line = run_page.state_line(
        run(step=816, steps=1940, seconds_left=(1380.0, 1740.0)), datetime.fromisoformat("2026-11-21T14:09:00")
    )
    assert "step 816 of 1,940" in line
    assert "23–29 min left" in line
    assert "done about 14:35" in line
    assert 'max="1940" value="816"' in line


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"status": Status.QUEUED}, '<b>Queued</b><span class="num">waiting to start'),
        ({"status": Status.STARTING}, "the engine comes up"),
        ({"status": Status.STARTING, "phase": "Loading the model"}, "Loading the model"),
        ({"status": Status.TRAINING, "steps": 9}, "measuring the base model"),
        ({"status": Status.EVALUATING, "step": 9, "steps": 9, "phase": "Asking the adapter"}, "Asking the adapter"),
        ({"status": Status.FINISHED, "step": 60, "steps": 60, "seconds": 130}, "took 2 min, 60 steps"),
        ({"status": Status.STOPPED, "step": 7, "steps": 60, "seconds": 30}, "at step 7 of 60, after 30 s"),
        ({"status": Status.FAILED, "seconds": 3}, "before the first step, after 3 s"),
    ],
)
def test_every_state_is_told_in_words(facts: dict[str, Any], words: str) -> None:
    line = run_page.state_line(run(**facts))
    assert words in line
    assert ("<progress" in line) == run(**facts).status.active


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([2.0] * 9, ""),
        ([3.0 - i / 100 for i in range(200)], "down 1.00 in 100 steps"),
        ([1.0 + i / 100 for i in range(40)], "up 0.20 in 20 steps"),
        ([1.5] * 40, "steady for 20 steps"),
    ],
)
def test_the_training_loss_is_compared_with_what_it_was(losses: list[float], words: str) -> None:
    assert run_page.trend(list(enumerate(losses, 1)))[0] == words


@pytest.mark.parametrize(
    ("checks", "words", "tone"),
    [
        ([(0, 2.0)], "", ""),
        ([(0, 2.0), (80, 1.5)], "base model 2.000", "good"),
        ([(0, 2.0), (80, 2.1)], "base model 2.000", "bad"),
        ([(0, 2.0), (80, 1.5), (160, 1.58)], "up 0.08 since step 80", "warn"),
    ],
)
def test_the_held_out_loss_is_compared(checks: list[tuple[int, float]], words: str, tone: str) -> None:
    assert run_page.against(checks) == (words, tone)


def test_unknown_figures_are_left_out() -> None:
    assert run_page.figures(run(), Curve(), 0) == ""
    shown = run_page.figures(run(step=1, steps=9, loss=2.0), Curve(), 0)
    assert "2.000" in shown
    assert "Memory" not in shown
    assert "Held-out" not in shown


def test_a_run_without_held_out_rows_is_not_measured() -> None:
    over = run(status=Status.FINISHED, result={"steps": 3, "eval": None})
    assert '<b class="">Not measured</b>: no rows were held out' in run_page.result(over)
    assert run_page.answers(over) == ""
