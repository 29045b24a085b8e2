"""Chat: who answers, one after another in lanes; stopping, errors, and text that stays text."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.records import Model
from studio.studio import Studio
from studio.ui import chat as tab
from studio.ui.app import create, serve

FAKE = (sys.executable, str(Path(__file__).parents[1] / "services" / "fake_engine.py"))
BASE = "SmolLM2-135M-Instruct (no adapter)"


@pytest.fixture
def model(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """A base on this machine, answered for by an engine that says each question again."""
    folder = studio.home.models / "starter"
    folder.mkdir()
    here = Model(id="starter", path=str(folder), source="package")
    monkeypatch.setattr(studio.models, "list", lambda: [here])
    monkeypatch.setattr(studio.models, "find", lambda id: here if id in (here.id, here.path) else None)
    studio.chat.server.command = FAKE
    yield here
    studio.chat.unload()


def keep(studio: Studio, version: int, base: str = "starter", name: str = "desk") -> None:
    folder = studio.home.adapters / name / f"v{version}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"w")
    facts = {"base": {"id": base, "path": f"/models/{base}"}, "created": f"2026-11-2{version}T10:00:00+00:00"}
    (folder / "studio.json").write_text(json.dumps(facts))


@pytest.fixture
def view(page: Callable[..., Any]) -> Any:
    return page(tab.build, "chat")


def ask(view: Any, text: str) -> None:
    view.press("Message", "submit", text)


def lanes(view: Any) -> list[str]:
    return [part.split("</div>")[0] for part in view.seen().split('class="lane-head"')[1:]]


def test_without_a_model_the_way_to_one_is_shown(view: Any) -> None:
    view.refresh()
    assert "No model is on this machine yet." in view.seen()
    view.press("New run")
    assert view.states[-1][view.shell.tabs]["selected"] == "train"


def test_only_adapters_of_the_base_are_offered_the_newest_answers(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    keep(studio, 2)
    keep(studio, 3, base="another")
    view.refresh()
    assert view.was("Who answers, up to three", "choices") == [
        (BASE, BASE), ("desk v2", "desk@v2"), ("desk v1", "desk@v1"),
    ]  # fmt: skip
    assert view.values[view.find("Who answers, up to three")] == ["desk@v2"]


def test_an_adapter_that_was_handed_over_answers(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    keep(studio, 2)
    view.refresh("desk@v1")
    assert view.values[view.find("Who answers, up to three")] == ["desk@v1"]
    assert view.values[view.item] == ""  # taken: coming back later keeps whom the user chose since
    view.refresh("desk@v7")
    assert "has no version 7" in view.seen()


@pytest.mark.spec("U10.4")
def test_the_same_message_is_answered_in_each_lane(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    view.refresh()
    view.press("Who answers, up to three", "input", ["desk@v1", BASE])
    ask(view, "hello !adapter")
    first, second = lanes(view)
    assert "desk v1" in first
    assert "9 tokens/s" in first
    assert BASE in second
    assert f"hello {studio.adapters.get('desk@v1').path}" in view.seen()
    assert "hello None" in view.seen()
    assert "SmolLM2-135M-Instruct is in memory" in view.seen()
    assert view.was("Message", "submit_btn") == "Send"

    ask(view, "again")
    assert view.seen().count("hello None") == 1
    view.press("Clear the conversation")
    assert "hello" not in view.seen()


def test_the_answer_is_seen_while_it_is_written(view: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tab, "REDRAW", -1.0)
    view.refresh()
    view.states.clear()
    ask(view, "one two three")
    said = [str(value.get("value", "")) for state in view.states for value in state.values()]
    loading = next(i for i, text in enumerate(said) if "Loading SmolLM2-135M-Instruct" in text)
    partly = next(i for i, text in enumerate(said) if "<p>one </p>" in text)
    whole = next(i for i, text in enumerate(said) if text.count("<p>one two three</p>") == 2)  # question and answer
    assert loading < partly < whole
    assert view.states[0][view.find("Message")]["stop_btn"] == "Stop"


def test_stop_ends_this_answer_and_those_to_come(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    view.refresh()
    view.press("Who answers, up to three", "input", ["desk@v1", BASE])
    message = view.find("Message")
    view.values[message] = "so far !wait never"
    sending, stopping = (
        next(fn for fn in view.demo.fns.values() if (message._id, event) in fn.targets) for event in ("submit", "stop")
    )
    for update in sending.fn(*[view.values[each] for each in sending.inputs]):
        view._take(update, sending.outputs)
        if "<p>so </p>" in view.seen():
            stopping.fn()
    assert view.seen().count("<p>so") == 3  # both questions, one answer
    assert "stopped" in lanes(view)[0]
    assert "never" not in view.seen().replace("so far !wait never", "")
    assert view.was("Message", "submit_btn") == "Send"


def test_an_error_stands_there_as_a_note_and_the_message_comes_back(view: Any, model: Model) -> None:
    view.refresh()
    ask(view, "!error")
    assert "The adapter does not fit." in view.seen()
    assert "Choose another." in view.seen()
    assert view.values[view.find("Message")] == "!error"
    ask(view, "fine")
    assert "The adapter does not fit." not in view.seen()
    assert "<p>fine</p>" in view.seen()


def test_the_reason_one_cannot_answer_keeps_no_other_from_it(
    view: Any, studio: Studio, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(studio, 1)
    view.refresh()
    view.press("Who answers, up to three", "input", ["desk@v1", BASE])
    spoken = tab.spoken
    monkeypatch.setattr(
        tab, "spoken", lambda choice, *rest: spoken(choice, [{"asked": "hi !error"}] if "desk" in choice else rest[0])
    )
    ask(view, "hello there")
    assert "The adapter does not fit." in view.seen()
    assert view.seen().count("<p>hello there</p>") == 3  # both questions, the answer of the base
    assert view.values[view.find("Message")] == ""


def test_nobody_chosen_is_said(view: Any, model: Model) -> None:
    view.refresh()
    view.press("Who answers, up to three", "input", [])
    ask(view, "hello")
    assert "Nobody answers." in view.seen()


def test_a_model_that_left_memory_is_mentioned(view: Any, studio: Studio, model: Model) -> None:
    view.refresh()
    ask(view, "hello")
    (timer,) = view.tab.timers
    handler = next(fn for fn in view.demo.fns.values() if (timer._id, "tick") in fn.targets)
    view._take(handler.fn(), handler.outputs)
    assert "is in memory" in view.seen()
    studio.chat.unload()
    view._take(handler.fn(), handler.outputs)
    assert "The model has left the memory" in view.seen()
    assert view.states[-1][timer]["active"] is False


def test_the_instruction_is_that_of_the_training_data(
    view: Any, studio: Studio, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talks.jsonl"
    lines = [
        {"messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": f"q{i}"},
                      {"role": "assistant", "content": f"a{i}"}]} for i in range(20)
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, lines)))
    studio.datasets.add(file)
    keep(studio, 1)
    monkeypatch.setattr(studio.runs, "get", lambda _: type("", (), {"dataset": "talks"}))
    view.refresh("desk@v1")
    assert view.values[view.find("Instruction")] == "You are brief."


def test_the_accordion_says_what_is_set(view: Any, model: Model) -> None:
    view.refresh()
    view.press("Temperature", "release", 0.3)
    assert view.states[-1][view.find("Instruction and sampling: temperature 0.7, up to 256 tokens")]["label"] == (
        "Instruction and sampling: temperature 0.3, up to 256 tokens"
    )


@pytest.fixture
def open_chat(studio: Studio, browser: Any) -> Iterator[Any]:
    demo = serve(studio, create(studio), browser=False)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(str(demo.local_url).rstrip("/") + "/?view=chat")
    yield page
    context.close()
    demo.close()


def test_what_a_model_writes_does_not_run_in_the_browser(model: Model, open_chat: Any) -> None:
    page = open_chat
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    evil = '<img src="/leak.png" onerror="document.title=1"> ![x](/leak.md) ${document.title=2} <b>bold</b>'
    page.get_by_label("Message").fill(evil)
    page.keyboard.press("Enter")
    answer = page.locator(".said li:not(.user) p")
    expect(answer).to_have_text(evil, timeout=20_000)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.locator(".said img, .said b").count() == 0
    assert page.title() not in ("1", "2")
    assert not [url for url in asked if "leak" in url]
