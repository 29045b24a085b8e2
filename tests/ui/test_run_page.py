"""One run in words: states, comparisons, the time left."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from studio.domain.events import Evaluated, Paused, Step, Warned, dump
from studio.domain.records import Run, Status
from studio.services.curve import Curve
from studio.services.runs import resumable
from studio.services.usage import Usage
from studio.ui import run_page


def run(**more: Any) -> Run:
    facts = {"id": "desk-7", "name": "desk", "path": "", "model": "starter", "dataset": "tickets", "method": "lora"}
    return Run(**({"status": Status.TRAINING, "created": "2026-11-21T10:00:00Z"} | facts | more))


@pytest.mark.spec("U25.3")
def test_the_time_left_is_an_interval_and_a_clock_time() -> None:
    line = run_page.state_line(
        run(step=816, steps=1940, seconds=3000, seconds_left=(1380.0, 1740.0)),
        Curve(),
        datetime.fromisoformat("2026-11-21T14:09:00"),
    )
    assert "step 816 of 1,940, 50 min so far" in line
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
    line = run_page.state_line(run(**facts), Curve())
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


@pytest.mark.spec("U27.5")
def test_a_paused_run_tells_what_it_took_what_is_left_and_what_it_held() -> None:
    curve = Curve()
    curve.paused = Paused(step=800, memory_bytes=9_700_000_000)
    paused = run(status=Status.PAUSED, step=800, steps=1940, seconds=720.0, seconds_left=(1380.0, 1740.0))
    line = run_page.state_line(paused, curve)
    assert "<b>Paused at step 800.</b>" in line
    assert "Memory is free: it held 9.7 GB. 12 min so far." in line
    assert "23–29 min to go" in line
    assert 'max="1940" value="800"' in line
    assert "done about" not in line, "nobody knows when it goes on"
    resumed = run_page.state_line(run(step=801, steps=1940, seconds=721.0, seconds_left=(1380.0, 1740.0)), Curve())
    assert "step 801 of 1,940, 12 min so far" in resumed
    assert "23–29 min left" in resumed


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"status": Status.PAUSED, "checkpoint": 800}, "Resume"),
        ({"status": Status.PAUSED}, "Resume"),
        ({"status": Status.INTERRUPTED, "checkpoint": 1800}, "Resume from step 1,800"),
        ({"status": Status.FAILED, "checkpoint": 800}, "Resume from step 800"),
        ({"status": Status.INTERRUPTED}, ""),
        ({"status": Status.FINISHED}, ""),
        ({"status": Status.TRAINING}, ""),
    ],
)
def test_what_can_go_on_says_from_where(facts: dict[str, Any], words: str) -> None:
    this = run(**facts)
    assert (run_page.resume_words(this) if resumable(this) else "") == words


LOWER = {"train.learning_rate": 5e-5}


@pytest.mark.spec("U25.4")
@pytest.mark.parametrize(
    ("facts", "warned", "act"),
    [
        ({"status": Status.PAUSED}, {"rule": "divergence", "did": "paused", "edit": LOWER}, "Resume with this change"),
        ({}, {"rule": "divergence", "edit": LOWER}, "New run with this change"),
        # rank is part of what was saved: a run cannot go on with another
        ({"status": Status.PAUSED}, {"rule": "flat", "edit": {"method.rank": 64}}, "New run with this change"),
        ({}, {"rule": "memory", "did": "acted", "edit": {"train.batch_tokens": 512}}, ""),
        ({}, {"rule": "overfitting"}, ""),
    ],
)
def test_a_warning_is_told_in_words_with_the_button_that_helps(
    facts: dict[str, Any], warned: dict[str, Any], act: str
) -> None:
    curve = Curve()
    curve.warnings = [Warned(words="The loss climbs.", hint="A lower rate is calmer.", step=9, **warned)]
    notes = run_page.notes(run(**facts), curve)
    assert "The loss climbs." in notes
    assert ("<button" in notes) == bool(act)
    assert act in notes
    if act and "train.learning_rate" in warned["edit"]:
        assert "A lower rate is calmer. Change: Learning rate 5e-05." in notes
        assert "<strong>Loss climbs</strong>" in notes


@pytest.mark.parametrize("edit", [{}, LOWER])
def test_a_run_that_is_over_says_what_it_came_to_and_what_next(edit: dict[str, Any]) -> None:
    closing = {"score": 40, "words": "40 of 100: lower.", "advice": "A lower rate may help.", "edit": edit}
    notes = run_page.notes(run(status=Status.FINISHED, result={"closing": closing}), Curve())
    assert "<strong>Score</strong>" in notes
    assert "40 of 100" in notes
    assert "A lower rate may help." in notes
    assert ("New run with this change" in notes) == ("Change: Learning rate 5e-05." in notes) == bool(edit)


def test_a_warning_is_told_once() -> None:
    curve = Curve()
    curve.warnings = [Warned(words=f"It climbs at {n}.", rule="divergence", did="paused", step=n) for n in (3, 9)]
    stopped = run(status=Status.PAUSED, step=9, error="The guard paused it.")
    assert run_page.notes(stopped, curve).count('class="note') == 1
    assert "It climbs at 9." in run_page.notes(stopped, curve)
    assert "The guard paused it." in run_page.notes(
        run(status=Status.PAUSED, step=12, error="The guard paused it."), curve
    )


def test_the_load_of_the_machine_stands_beside_the_loss() -> None:
    usage = Usage(processor_share=0.938, processor_celsius=71.2, gpu_share=0.5, gpu_celsius=64.0, gpu_watts=168.4)
    shown = run_page.figures(run(step=1, steps=9, loss=2.0), Curve(), 0, usage)
    assert "Processor" in shown
    assert '<span class="num">94</span> <small>%</small>' in shown
    assert "71 °C" in shown
    assert "64 °C, 168 W" in shown
    assert "2.7 GB" in run_page.figures(run(), Curve(), 0, Usage(memory_bytes=2_700_000_000)).replace(
        "</span> <small>", " "
    )


ANSWERS = [{"prompt": "Where?", "expected": "<b>Here</b>", "text": "There."}]


def test_answers_stand_beside_those_of_the_base_model() -> None:
    told = run_page.asked({0: [{**ANSWERS[0], "text": "I am a model."}], 640: ANSWERS}, 640)
    assert '<td class="muted" data-th="Base model">I am a model.</td>' in told
    assert '<td data-th="Step 640">There.</td>' in told
    assert "Expected: &lt;b&gt;Here&lt;/b&gt;" in told
    assert "Step 0" not in run_page.asked({0: ANSWERS}, 0)
    assert "Base model" not in run_page.asked({640: ANSWERS}, 640)


def test_the_charts_can_be_read_as_a_table(tmp_path: Path) -> None:
    facts = {"learning_rate": 1e-4, "grad_norm": 1.5, "tokens": 9, "tokens_per_second": 9, "memory_bytes": 9}
    happened = [Step(step=n, loss=3 - n / 100, **facts) for n in range(1, 201)]
    lines = [dump(each) for each in (Evaluated(step=0, loss=3.5), *happened, Evaluated(step=80, loss=2.5))]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    curve = Curve()
    curve.read(tmp_path / "events.jsonl")
    table = run_page.table(curve).replace('<td class="num">', "").replace("</td>", "|")
    assert "<tr>0||3.500|||</tr>" in table
    assert "<tr>1|2.990||1.0e-4|1.50|</tr>" in table
    assert "<tr>80|2.200|2.500|1.0e-4|1.50|</tr>" in table
    assert table.count("<tr>") - 1 == run_page.TABLE + 2
