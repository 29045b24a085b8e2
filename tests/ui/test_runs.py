"""Runs: the list and its filters, one run live from its files, stopped in place, told well when it ends badly."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from studio.domain.config import TrainingConfig
from studio.domain.records import Model, Run, Status
from studio.services.usage import Usage
from studio.studio import Studio
from studio.ui import chart
from studio.ui import runs as tab

FAKE = (sys.executable, str(Path(__file__).parents[1] / "services" / "fake_engine.py"))
Step = dict[str, Any]
FACTS = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 5, "trainable_parameters": 3, "settings": {}}
METRIC = {"mean": 0.14, "low": 0.11, "high": 0.17, "p": 0.01}
REPORT = {
    "rows": 4,
    "answers": 4,
    "base": {"loss": 2.0, "perplexity": 7.4, "exact_match": 0.0, "token_f1": 0.3},
    "adapter": {"loss": 1.0, "perplexity": 2.7, "exact_match": 0.14, "token_f1": 0.44},
    "difference": {
        "exact_match": METRIC,
        "token_f1": METRIC,
        "loss": {"mean": -1.0, "low": -1.2, "high": -0.8, "p": 0.0},
    },
    "verdict": "Better: 1 against 0 of 4 answers exactly right.",
    "samples": [
        {"prompt": "Where is it?", "expected": "At the depot.", "base": "<b>No</b> idea", "adapter": "At the depot."}
    ],
}


def event(kind: str, **facts: Any) -> Step:
    return {"emit": {"type": kind, **facts}}


def started(steps: int) -> Step:
    return event("started", steps=steps, device="processor", precision="fp32", **FACTS)


def step(number: int) -> Step:
    facts = {"learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_second": 50.0, "memory_bytes": 900_000_000}
    return event("step", step=number, loss=2.0 / number, tokens=100 * number, **facts)


def checked(number: int, loss: float) -> Step:
    return event("evaluated", step=number, loss=loss)


def finished(number: int, stopped: bool = False) -> Step:
    return event("finished", step=number, stopped=stopped, result={"steps": number, "eval": REPORT})


@pytest.fixture
def plan(studio: Studio, tickets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Prepare a run whose engine plays these steps; `until` names a file they may wait for."""
    folder = studio.home.root / "starter-model"
    folder.mkdir()
    model = Model(id="starter", path=str(folder), source="package", parameters=135_000_000)
    monkeypatch.setattr(studio.models, "resolve", lambda *_: model)
    studio.runs.command = FAKE
    data = {"path": str(tickets), "map": {"prompt": "they_wrote", "response": "we_said"}}

    def make(*steps: Step, name: str = "desk", start: bool = True) -> Run:
        config = TrainingConfig.model_validate({"name": name, "model": {"id": "starter"}, "data": data})
        run = studio.runs.prepare(config)
        Path(run.path, "plan.json").write_text(json.dumps(steps))
        return studio.runs.start(run.id) if start else run

    yield make
    for run in studio.runs.list():
        if run.status.active:
            studio.runs.stop(run.id, force=True)


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)


@pytest.fixture
def view(page: Callable[..., Any]) -> Any:
    return page(tab.build, "runs")


def timer_of(view: Any) -> gr.Timer:
    (timer,) = view.tab.timers
    return timer


def tick(view: Any) -> dict[Any, Any]:
    """Let a second pass on the page; return what was drawn of what the tick saw."""
    fns = list(view.demo.fns.values())
    look = next(fn for fn in fns if (timer_of(view)._id, "tick") in fn.targets)
    seen = look.fn(*[view.values[each] for each in look.inputs])
    news = look.outputs[0]
    if not isinstance(seen[0], tuple):
        view._take(seen, look.outputs)
        return {}
    draw = next(fn for fn in fns if (news._id, "change") in fn.targets and len(fn.outputs) > 1)
    view._take(draw.fn(*[view.values[each] for each in draw.inputs]), draw.outputs)
    return dict(view.states[-1])


def detail(view: Any) -> str:
    """The open run as it stands on the page."""
    return view.seen().split("data-run=")[1]


def test_an_empty_list_says_what_will_be_here(view: Any) -> None:
    view.refresh()
    assert "No runs yet. Train on your data, and it appears here." in view.seen()
    assert view.states[-1][timer_of(view)]["active"] is False


def test_runs_are_found_by_state_and_by_words(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    good = plan(started(1), step(1), finished(1), name="desk")
    bad = plan(event("failed", message="The loss is no number any more.", hint="Lower the rate."), name="sql")
    until(lambda: not any(studio.runs.get(run.id).status.active for run in (good, bad)))
    view.refresh()
    assert view.was("Show", "choices") == [("All 2", "all"), ("Finished 1", "finished"), ("Failed 1", "failed")]
    assert view.seen().count("data-id") == 2

    view.press("Show", "input", "failed")
    assert "sql, run 1" in view.seen()
    assert "desk, run 1" not in view.seen()

    view.press("Show", "input", "all")
    view.press("Filter runs", "input", "SmolLM2")
    assert view.seen().count("data-id") == 2
    view.press("Filter runs", "input", "poetry")
    assert "No run matches “poetry”." in view.seen()
    assert view.was("Clear filter", "visible") is True
    view.press("Clear filter")
    assert view.seen().count("data-id") == 2
    assert view.values[view.find("Filter runs")] == ""


@pytest.mark.spec("U32.2", "U34.4")
def test_a_long_list_is_shown_in_pages(view: Any, monkeypatch: pytest.MonkeyPatch, studio: Studio) -> None:
    facts = {"name": "desk", "path": "", "model": "starter", "dataset": "tickets", "method": "lora"}
    many = [
        Run(id=f"desk-{n}", status=Status.FINISHED, created="2026-11-21T10:00:00Z", **facts) for n in range(120, 0, -1)
    ]
    monkeypatch.setattr(studio.runs, "list", lambda: many)
    view.refresh()
    assert view.seen().count("data-id") == 50
    assert "1–50 of 120" in view.seen()
    assert view.was("Previous", "interactive") is False
    view.press("Next")
    view.press("Next")
    assert view.seen().count("data-id") == 20
    assert "101–120 of 120" in view.seen()
    assert view.was("Next", "interactive") is False


@pytest.mark.spec("U16.3", "U25.1", "U25.2", "U34.3", "U5.3")
def test_an_open_run_is_drawn_from_its_files_and_only_when_something_is_new(
    view: Any, page: Callable[..., Any], studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(
        *(event("phase", words="Loading the model", done=2.1e9, total=8e9, unit="bytes"), {"wait": "go"}),
        *(
            started(3),
            checked(0, 2.0),
            step(1),
            {"wait": "more"},
            step(2),
            checked(2, 1.2),
            {"wait": "end"},
            finished(2),
        ),
    )
    until(lambda: studio.runs.get(run.id).phase)
    view.refresh(run.id)
    assert "Loading the model, 2.1 GB of 8.0 GB" in view.seen()
    assert (view.states[-1][timer_of(view)]["value"], view.states[-1][timer_of(view)]["active"]) == (1, True)

    Path(run.path, "go").touch()
    until(lambda: studio.runs.get(run.id).step == 1)
    tick(view)
    assert "step 1 of 3" in view.seen()
    assert "Problem: no better than the base model, 2.00" in view.seen()

    assert tick(view) == {}

    Path(run.path, "more").touch()
    until(lambda: studio.runs.get(run.id).eval_loss)
    tick(view)
    assert "step 2 of 3" in view.seen()
    assert "held-out 1.200 at step 2" in view.seen()

    reopened = page(tab.build, "runs")
    reopened.refresh(run.id)
    assert detail(reopened) == detail(view)

    view.refresh("")
    view.refresh(run.id)
    assert detail(view) == detail(reopened)
    Path(run.path, "end").touch()


def test_a_finished_run_says_whether_it_got_better(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(2), checked(0, 2.0), step(1), step(2), {"adapter": REPORT["verdict"]}, finished(2))
    until(lambda: studio.runs.get(run.id).adapter)
    view.refresh(run.id)
    seen = view.seen()
    assert '<b class="good">Better</b>: 1 against 0 of 4' in seen
    assert "+14 points, +11 to +17" in seen
    assert "&lt;b&gt;No&lt;/b&gt; idea" in seen
    assert "became desk v1" in seen
    assert view.was("Chat with it", "visible") is True
    assert view.was("Stop…", "visible") is False
    assert view.states[-1][timer_of(view)]["active"] is False
    view.press("Chat with it")
    assert view.values[view.shell.items["chat"]] == "desk@v1"
    assert view.states[-1][view.shell.tabs]["selected"] == "chat"


@pytest.mark.spec("U5.4")
def test_a_failure_is_told_with_its_next_step(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(5), step(1), event("failed", message="Out of memory at step 2.", hint="Halve the batch."))
    until(lambda: studio.runs.get(run.id).status == Status.FAILED)
    view.refresh(run.id)
    assert "Out of memory at step 2." in view.seen()
    assert "Halve the batch." in view.seen()
    assert "at step 1 of 5" in view.seen()
    assert view.was("Chat with it", "visible") is False


def test_an_interruption_is_told_with_its_cause(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(5), step(1), {"kill": True})
    until(lambda: studio.runs.get(run.id).status == Status.INTERRUPTED)
    view.refresh(run.id)
    assert "ended by the system, most often for lack of memory" in view.seen()


def test_a_run_is_stopped_after_it_was_said_what_that_means(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(9), step(1), {"wait": "control/stop"}, finished(1, stopped=True))
    until(lambda: studio.runs.get(run.id).step)
    view.refresh(run.id)
    view.press("Stop…")
    assert "now 1 of 9" in view.seen()
    assert "kept as a version of desk" in view.seen()
    assert studio.runs.get(run.id).status == Status.TRAINING
    view.press("Stop the run")
    until(lambda: studio.runs.get(run.id).status == Status.STOPPED)
    tick(view)
    assert "<b>Stopped</b>" in view.seen()
    assert "at step 1 of 9" in view.seen()


@pytest.mark.spec("U19.5", "U5.3")
def test_the_log_is_read_live_and_filtered(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan({"print": "packed 9 rows"}, {"wait": "go"}, {"print": "Saved the adapter"}, {"wait": "end"})
    until(lambda: "packed" in studio.runs.log(run.id))
    view.refresh(run.id)
    view.press("Log", "expand")
    log = view.find("The last 200 lines of worker.log")
    assert view.values[log] == "packed 9 rows"
    Path(run.path, "go").touch()
    until(lambda: "Saved" in studio.runs.log(run.id))
    news, *_ = next(fn for fn in view.demo.fns.values() if (timer_of(view)._id, "tick") in fn.targets).outputs
    for handler in view.demo.fns.values():  # what follows when a tick saw something
        if log in handler.outputs and (news._id, "change") in handler.targets:
            view._take(handler.fn(*[view.values[each] for each in handler.inputs]), handler.outputs)
    assert view.values[log] == "packed 9 rows\nSaved the adapter"
    view.press("Filter lines", "input", "SAVED")
    assert view.values[log] == "Saved the adapter"


def test_the_list_follows_a_run_that_the_command_line_started(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(4), step(1), {"wait": "more"}, step(2), {"wait": "end"})
    until(lambda: studio.runs.get(run.id).step == 1)
    view.refresh()
    assert view.states[-1][timer_of(view)]["active"] is True
    assert "width:25%" in view.seen()
    Path(run.path, "more").touch()
    until(lambda: studio.runs.get(run.id).step == 2)
    tick(view)
    assert "width:50%" in view.seen()


def chosen(view: Any, index: str) -> None:
    """Press a row of the list, or one of its buttons."""
    select = [fn for fn in view.demo.fns.values() if fn.targets and fn.targets[0][1] == "select"]
    (handler,) = (fn for fn in select if view.item in fn.outputs and len(fn.inputs) == 3)
    data = gr.SelectData(None, {"index": index, "value": index})
    view._take(handler.fn(data, *[view.values[each] for each in handler.inputs]), handler.outputs)


def titles(view: Any) -> list[str]:
    return re.findall(r'class="title">([^<]+)<', view.seen())


def test_runs_that_wait_are_listed_in_their_order_and_change_places(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    waits = (started(4), step(1), {"wait": "end"}, finished(1))
    busy = plan(*waits, name="busy")
    a, b, c = [plan(*waits, name=name, start=False) for name in "abc"]
    for run in (a, b, c):
        studio.queue.submit(run.id)
    until(lambda: studio.runs.get(busy.id).step)
    view.refresh()
    assert titles(view) == ["busy, run 1", "a, run 1", "b, run 1", "c, run 1"]
    assert "busy, run 1 goes first" in view.seen()
    assert "a, run 1 goes first" in view.seen()
    buttons = re.findall(r'data-id="(\w+):(\S+)" aria-label="([^"]+)"', view.seen())
    assert [(verb, name) for verb, run, name in buttons if run == c.id] == [
        ("up", "Move up: c, run 1"),
        ("first", "Start next: c, run 1"),
        ("stop", "Cancel: c, run 1"),
    ]
    assert [verb for verb, run, _ in buttons if run == a.id] == ["stop"]

    chosen(view, f"first:{c.id}")
    assert titles(view) == ["busy, run 1", "c, run 1", "a, run 1", "b, run 1"]
    chosen(view, f"up:{b.id}")
    assert titles(view) == ["busy, run 1", "c, run 1", "b, run 1", "a, run 1"]
    chosen(view, f"stop:{c.id}")
    assert titles(view) == ["busy, run 1", "b, run 1", "a, run 1", "c, run 1"]
    assert studio.runs.get(c.id).status == Status.STOPPED
    chosen(view, b.id)
    assert view.values[view.item] == b.id


def test_a_run_that_waits_says_for_what_until_it_starts(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    busy = plan(started(4), step(1), {"wait": "end"}, finished(1), name="busy")
    waiting = plan({"wait": "end"}, finished(1), name="next", start=False)
    studio.queue.submit(waiting.id)
    view.refresh(waiting.id)
    assert '<b>Queued</b><span class="num">busy, run 1 goes first' in view.seen()
    view.press("Stop…")
    assert "It has not started, so nothing is lost." in view.seen()
    Path(busy.path, "end").touch()
    until(lambda: not studio.runs.get(busy.id).status.active)
    studio.queue.advance()
    until(lambda: studio.runs.get(waiting.id).status == Status.STARTING)
    tick(view)
    assert "<b>Starting</b>" in view.seen()


@pytest.mark.parametrize("needle", ["tickets LoRA", "lora", "2026-11-21", "21 Nov", "DESK 2026-11"])
def test_the_filter_knows_data_method_and_date(needle: str) -> None:
    facts = {"name": "desk", "path": "", "model": "starter", "dataset": "tickets", "method": "lora"}
    run = Run(id="desk-1", status=Status.FINISHED, created="2026-11-21T12:00:00Z", **facts)
    assert tab.matches(run, "all", needle)
    assert not tab.matches(run, "all", f"{needle} dora")


def test_an_address_of_a_run_that_is_gone_leads_to_the_list(view: Any) -> None:
    view.refresh("gone-7")
    assert "There is no run gone-7." in view.seen()
    tick(view)


def play_next(run: Run, *steps: Step) -> None:
    """Let the engine that resumes the run play these steps."""
    Path(run.path, "plan.json").write_text(json.dumps(steps))


def again(after: int) -> Step:
    return {"emit": {**started(9)["emit"], "resumed_from": after}}


PAUSED = event("paused", step=2, checkpoint="checkpoints/step-2", memory_bytes=2_000_000_000)


@pytest.mark.spec("U27.2")
def test_a_run_is_paused_and_goes_on(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(9), step(1), step(2), {"wait": "control/pause"}, {"wait": "end of the step"}, PAUSED)
    until(lambda: studio.runs.get(run.id).step == 2)
    view.refresh(run.id)
    assert view.was("Resume", "visible") is False
    view.press("Pause")
    assert view.was("Pause", "value") == "Pausing after this step"
    assert view.was("Pause", "interactive") is False

    Path(run.path, "end of the step").touch()
    until(lambda: studio.runs.get(run.id).status == Status.PAUSED)
    tick(view)
    assert "<b>Paused at step 2.</b>" in view.seen()
    assert "Memory is free: it held 2.0 GB." in view.seen()
    pause = next(fn for fn in view.demo.fns.values() if fn.fn and fn.fn.__name__ == "do_pause").outputs
    assert [view.states[-1][each]["visible"] for each in pause if getattr(each, "value", "") == "Resume"] == [True]
    assert view.states[-1][timer_of(view)]["active"] is False

    play_next(run, again(2), step(3), {"wait": "end"})
    view.press("Resume")
    assert view.states[-1][timer_of(view)]["active"] is True
    until(lambda: studio.runs.get(run.id).step == 3)
    tick(view)
    assert "step 3 of 9" in view.seen()
    assert ">resumed<" in view.seen()


def test_a_run_that_goes_on_beside_another_waits_and_may_leave_the_queue(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(9), step(1), step(2), {"wait": "control/pause"}, PAUSED)
    until(lambda: studio.runs.get(run.id).step == 2)
    studio.runs.pause(run.id)
    until(lambda: studio.runs.get(run.id).status == Status.PAUSED)
    plan(started(9), {"wait": "end"}, name="other")
    view.refresh(run.id)
    view.press("Resume")
    assert "other, run 1 goes first" in view.seen()
    assert "done about" not in view.seen()
    assert view.was("Stop…", "visible") is False
    assert view.was("Pause", "value") == "Leave the queue"
    view.press("Pause")
    assert "<b>Paused at step 2.</b>" in view.seen()
    assert view.was("Resume", "visible") is True


def test_a_dead_run_with_a_checkpoint_says_from_where_it_goes_on(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(9), step(1), step(2), {"wait": "dead"}, {"kill": True})
    Path(run.path, "checkpoints", "step-1").mkdir(parents=True)
    Path(run.path, "dead").touch()
    until(lambda: studio.runs.get(run.id).status == Status.INTERRUPTED)
    view.refresh(run.id)
    assert view.was("Resume", "value") == "Resume from step 1"
    assert view.was("Resume", "visible") is True
    assert "<b>Interrupted</b>" in view.seen()
    assert "at step 2 of 9" in view.seen()


def remedy(view: Any, number: int | str) -> None:
    """Press the button of a note."""
    handler = next(fn for fn in view.demo.fns.values() if fn.fn and fn.fn.__name__ == "do_remedy")
    picked = SimpleNamespace(index=str(number))
    view._take(handler.fn(picked, *[view.values[each] for each in handler.inputs]), handler.outputs)


CLIMBS = event(
    "warned", words="It climbs.", step=2, rule="divergence", did="paused", edit={"train.learning_rate": 1e-5}
)


def test_a_paused_run_goes_on_with_the_change_its_note_offers(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(9), step(1), step(2), CLIMBS, PAUSED)
    until(lambda: studio.runs.get(run.id).status == Status.PAUSED)
    view.refresh(run.id)
    assert "Resume with this change" in view.seen()
    play_next(run, again(2), step(3), {"wait": "end"})
    remedy(view, 0)
    assert json.loads(Path(run.path, "control", "edit.json").read_text()) == {"train.learning_rate": 1e-5}
    assert studio.runs.get(run.id).status.active


def test_a_run_that_is_over_offers_the_next_one(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    end = {"score": 0, "words": "0 of 100.", "advice": "A lower rate.", "edit": {"train.learning_rate": 1e-5}}
    run = plan(started(2), step(1), step(2), event("finished", step=2, result={"closing": end}))
    until(lambda: studio.runs.get(run.id).status == Status.FINISHED)
    view.refresh(run.id)
    assert "A lower rate." in view.seen()
    remedy(view, "closing")
    assert view.values[view.shell.items["train"]] == 'run:desk-1:{"train.learning_rate": 1e-05}'


def test_a_run_at_work_offers_a_new_one_with_the_change(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(9), step(1), step(2), CLIMBS, {"wait": "end"})
    until(lambda: studio.runs.get(run.id).step == 2)
    view.refresh(run.id)
    assert "New run with this change" in view.seen()
    remedy(view, 0)
    assert view.values[view.shell.items["train"]] == 'run:desk-1:{"train.learning_rate": 1e-05}'
    assert view.states[-1][view.shell.tabs]["selected"] == "train"


def sampled(number: int, text: str) -> Step:
    return event("sampled", step=number, answers=[{"prompt": "Where is it?", "expected": "", "text": text}])


def test_answers_are_followed_over_the_checkpoints(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    early = [sampled(0, "As a model."), step(1), sampled(20, "At home."), sampled(40, "At the depot.")]
    run = plan(started(99), *early, {"wait": "more"}, sampled(60, "Right here."), {"wait": "more still"}, step(2))
    until(lambda: studio.runs.get(run.id).step == 1)
    view.refresh(run.id)
    slider = view.find("After step")
    moved = view.states[-1][slider]
    assert (moved["minimum"], moved["maximum"], moved["step"], moved["value"]) == (0, 40, 20, 40)
    assert "At the depot." in view.seen()
    assert "As a model." in view.seen()

    Path(run.path, "more").touch()
    until(lambda: "Right here." in Path(run.path, "events.jsonl").read_text())
    tick(view)
    assert "Right here." in view.seen(), "it follows the newest answers"

    view.press("After step", "input", 22)
    assert "At home." in view.seen()
    assert "Right here." not in view.seen()


def test_the_step_whose_answers_are_shown_becomes_a_version(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    early = [sampled(0, "As a model."), step(1), sampled(1, "At home."), step(2), sampled(2, "At the depot.")]
    run = plan(started(2), *early, {"wait": "more"}, {"adapter": "Better."}, finished(2))
    Path(run.path, "checkpoints", "step-1").mkdir(parents=True)
    until(lambda: studio.runs.get(run.id).step == 2)
    until(lambda: "At the depot." in Path(run.path, "events.jsonl").read_text())
    view.refresh(run.id)
    assert not view.was("Keep this step as a version", "visible"), "the run is not over"
    Path(run.path, "more").touch()
    until(lambda: studio.runs.get(run.id).adapter)
    view.refresh(run.id)
    view.press("After step", "input", 1)
    view.press("Keep this step as a version")
    assert view.was("Keep this step as a version", "value") == "Step 1 is v2"
    assert [adapter.version for adapter in studio.adapters.list()] == [2, 1]


def test_the_charts_are_a_table_for_those_who_open_it(view: Any, studio: Studio, plan: Callable[..., Run]) -> None:
    run = plan(started(9), step(1), step(2), {"wait": "more"}, step(3), {"wait": "end"})
    until(lambda: studio.runs.get(run.id).step == 2)
    view.refresh(run.id)
    assert "<th>Gradient norm</th>" not in view.seen(), "nobody asked for it"
    view.press("Show as table", "expand")
    assert "<th>Gradient norm</th>" in view.seen()
    assert '<td class="num">2.000</td>' in view.seen()


@pytest.mark.spec("U35.1")
def test_after_half_a_minute_without_news_it_looks_half_as_often(
    view: Any, studio: Studio, plan: Callable[..., Run]
) -> None:
    run = plan(started(9), step(1), {"wait": "more"}, step(2), {"wait": "end"})
    until(lambda: studio.runs.get(run.id).step == 1)
    view.refresh(run.id)
    beat = next(fn for fn in view.demo.fns.values() if (timer_of(view)._id, "tick") in fn.targets).inputs[2]
    assert tick(view) == {}
    since, every = view.values[beat]
    assert every == tab.LIVE
    view.values[beat] = (since - 31, every)
    tick(view)
    assert view.states[-1][timer_of(view)]["value"] == 2 * tab.LIVE

    Path(run.path, "more").touch()
    until(lambda: studio.runs.get(run.id).step == 2)
    tick(view)
    assert view.states[-1][timer_of(view)]["value"] == tab.LIVE, "it goes on, so it is looked at again"


@pytest.mark.spec("U35.4")
def test_on_battery_it_looks_half_as_often(
    view: Any, plan: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.common.on_battery", lambda: True)
    run = plan(started(9), step(1), {"wait": "end"})
    view.refresh(run.id)
    assert view.states[-1][timer_of(view)]["value"] == 2 * tab.LIVE


@pytest.mark.spec("U34.2")
def test_many_steps_at_once_are_one_picture(
    view: Any, studio: Studio, plan: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = chart.loss
    monkeypatch.setattr(chart, "loss", lambda *all: drawn.append(1) or draw(*all))
    run = plan(
        started(500),
        *[step(n) for n in range(1, 300)],
        {"wait": "more"},
        *[step(n) for n in range(300, 500)],
        {"wait": "end"},
    )
    until(lambda: studio.runs.get(run.id).step == 299)
    view.refresh(run.id)
    Path(run.path, "more").touch()
    until(lambda: studio.runs.get(run.id).step == 499)
    tick(view)
    assert len(drawn) == 2, "one for each look, however many steps there were"
    assert timer_of(view).value >= tab.LIVE >= 0.1


def test_the_load_is_drawn_anew_without_the_rest(
    view: Any, studio: Studio, plan: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(10, 100))
    monkeypatch.setattr(studio.meter, "look", lambda run: Usage(processor_share=next(looks) / 100))
    run = plan(started(9), step(1), {"wait": "end"})
    until(lambda: studio.runs.get(run.id).step == 1)
    view.refresh(run.id)
    told = view.seen()
    drawn = tick(view)
    assert view.seen() != told
    assert len(drawn) <= 4, "its figures, state and charts alone"
