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


def edit(view: Any, place: int) -> None:
    """Press "Edit" at a message of the first lane."""
    view.take(next(each for each, text in view.values.items() if 'class="said"' in str(text)), str(place))


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
    assert view.was("Who answers, up to six", "choices") == [
        (BASE, BASE), ("desk v2", "desk@v2"), ("desk v1", "desk@v1"),
    ]  # fmt: skip
    assert view.values[view.find("Who answers, up to six")] == ["desk@v2"]


def test_an_adapter_that_was_handed_over_answers(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    keep(studio, 2)
    view.refresh("desk@v1")
    assert view.values[view.find("Who answers, up to six")] == ["desk@v1"]
    assert view.values[view.item] == ""  # taken: coming back later keeps whom the user chose since
    view.refresh("desk@v7")
    assert "has no version 7" in view.seen()


@pytest.mark.spec("U10.4")
def test_the_same_message_is_answered_in_each_lane(view: Any, studio: Studio, model: Model) -> None:
    keep(studio, 1)
    view.refresh()
    view.press("Who answers, up to six", "input", ["desk@v1", BASE])
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
    view.press("New conversation")
    assert "<p>hello" not in view.seen()


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
    view.press("Who answers, up to six", "input", ["desk@v1", BASE])
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
    view.press("Who answers, up to six", "input", ["desk@v1", BASE])
    spoken = tab.spoken
    monkeypatch.setattr(
        tab, "spoken", lambda choice, *rest: spoken(choice, [{"asked": "hi !error"}] if "desk" in choice else rest[0])
    )
    ask(view, "hello there")
    assert "The adapter does not fit." in view.seen()
    assert view.seen().count("<p>hello there</p>") == 3  # both questions, the answer of the base
    assert view.values[view.find("Message")] == ""


@pytest.mark.spec("U28.4")
def test_six_answer_side_by_side(view: Any, studio: Studio, model: Model) -> None:
    for version in range(1, 7):
        keep(studio, version)
    view.refresh()
    view.press("Who answers, up to six", "input", [f"desk@v{version}" for version in range(1, 7)])
    ask(view, "hello !adapter")
    assert len(lanes(view)) == 6
    for version in range(1, 7):
        assert f"<p>hello {studio.adapters.get(f'desk@v{version}').path}</p>" in view.seen()


def test_the_last_message_is_answered_again(view: Any, model: Model) -> None:
    view.refresh()
    ask(view, "one")
    ask(view, "two")
    view.values[view.find("Message")] = "not sent yet"
    view.press("Answer again")
    assert view.seen().count("<p>two</p>") == 2, "the question once, the answer once"
    assert view.seen().count("<p>one</p>") == 2


def test_a_sent_message_is_changed_and_answered(view: Any, model: Model) -> None:
    view.refresh()
    for text in ("one", "two", "three"):
        ask(view, text)
    edit(view, 1)
    assert view.values[view.find("Message")] == "two"
    ask(view, "two and a half")
    assert view.seen().count("<p>one</p>") == 2
    assert view.seen().count("<p>two and a half</p>") == 2
    assert "<p>three</p>" not in view.seen()
    ask(view, "four")
    assert view.seen().count("<p>four</p>") == 2
    assert "<p>two and a half</p>" in view.seen()

    edit(view, 0)
    view.press("Leave the message as it was")
    assert view.values[view.find("Message")] == ""
    ask(view, "five")
    assert "<p>one</p>" in view.seen()


def test_a_changed_message_that_nobody_answers_loses_nothing(view: Any, model: Model) -> None:
    view.refresh()
    for text in ("one", "two"):
        ask(view, text)
    edit(view, 0)
    ask(view, "!error")
    assert view.seen().count("<p>two</p>") == 2
    assert view.values[view.find("Message")] == "!error"
    ask(view, "better")  # still in its place
    assert "<p>two</p>" not in view.seen()
    assert view.seen().count("<p>better</p>") == 2


@pytest.fixture
def held_out(studio: Studio, model: Model, tmp_path: Path) -> list[str]:
    """An adapter whose run held six conversations out; their questions."""
    keep(studio, 1)
    (studio.home.runs / "desk-1").mkdir()
    (studio.home.runs / "desk-1" / "lineage.json").write_text(json.dumps({"dataset": {"path": str(tmp_path)}}))
    facts = studio.home.adapters / "desk" / "v1" / "studio.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"run": "desk-1"}))
    talks = [
        [{"role": "system", "content": f"Be {n}."}, {"role": "user", "content": f"Where is {n}?"},
         {"role": "assistant", "content": f"{n} is here."}, {"role": "user", "content": "Thanks"}] for n in range(6)
    ]  # fmt: skip
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps({"messages": talk, "row": 1}) + "\n" for talk in talks))
    return [talk[1]["content"] for talk in talks]


def test_held_out_questions_are_one_press_away(view: Any, held_out: list[str]) -> None:
    view.refresh("desk@v1")
    for question in held_out[:4]:
        assert question in view.seen()
    ask(view, "something before")
    view.pick("Questions it was not trained on", "2")
    assert view.seen().count("<p>Where is 2?</p>") == 2
    assert "In the data" in view.seen()
    assert "<p>2 is here.</p>" in view.seen()
    assert view.values[view.find("Instruction")] == "Be 2."
    assert "something before" not in lanes(view)[0]
    view.press("Show others")
    assert held_out[4] in view.seen()
    assert held_out[5] in view.seen()
    view.press("Show others")
    assert held_out[0] in view.seen()
    view.press("Who answers, up to six", "input", [BASE])
    assert view.was("Questions it was not trained on", "visible") is False


def test_conversations_are_kept_opened_and_deleted(view: Any, studio: Studio, model: Model) -> None:
    view.refresh()
    view.values[view.find("Instruction")] = "Be brief."
    ask(view, "first question")
    ask(view, "and more")
    view.press("New conversation")
    view.values[view.find("Instruction")] = ""
    ask(view, "second question")
    _, first = studio.conversations.list()
    assert [turn["asked"] for turn in first.turns] == ["first question", "and more"]
    view.pick("Kept conversations", first.id)
    assert "<p>and more</p>" in view.seen()
    assert "<p>second question</p>" not in view.seen()
    assert view.values[view.find("Instruction")] == "Be brief."
    view.press("Name of the open conversation", "submit", "Parcels")
    ask(view, "a third")
    assert [(each.title, len(each.turns)) for each in studio.conversations.list()] == [
        ("Parcels", 3), ("second question", 1),
    ]  # fmt: skip
    file = Path(view.values[view.find("Download as training data")])
    assert file.name == "parcels.jsonl"
    (row,) = map(json.loads, file.read_text().splitlines())
    assert [turn["role"] for turn in row["messages"]] == ["system", *["user", "assistant"] * 3]
    assert len(Path(view.values[view.find("Download all as training data")]).read_text().splitlines()) == 2
    view.press("Delete it")
    assert [each.title for each in studio.conversations.list()] == ["second question"]
    assert not file.exists()
    ask(view, "go on")  # it begins anew, with what is on the page
    assert len(studio.conversations.list()) == 2


def test_keeping_can_be_turned_off(view: Any, studio: Studio, model: Model) -> None:
    view.refresh()
    view.press("Keep conversations on this machine", "input", False)
    ask(view, "secret")
    assert studio.conversations.list() == []
    assert list(studio.home.chats.iterdir()) == []
    view.refresh()
    assert view.values[view.find("Keep conversations on this machine")] is False


def test_a_conversation_that_is_gone_is_not_opened(view: Any, studio: Studio, model: Model) -> None:
    view.refresh()
    ask(view, "hello")
    (kept,) = studio.conversations.list()
    view.press("New conversation")
    studio.conversations.save(kept.model_copy(update={"id": "", "model": "/gone"}))
    view.refresh()
    gone = next(each for each in studio.conversations.list() if each.model == "/gone")
    view.pick("Kept conversations", gone.id)
    assert "Its model is not on this machine any more." in view.seen()
    studio.conversations.remove(kept.id)
    view.pick("Kept conversations", kept.id)
    assert "<p>hello</p>" not in view.seen()


def test_nobody_chosen_is_said(view: Any, model: Model) -> None:
    view.refresh()
    view.press("Who answers, up to six", "input", [])
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
    evil = (
        '<img src="/leak.png" onerror="document.title=1"> ![x](/leak.md) [y](javascript:document.title=3) '
        "${document.title=2} <b>bold</b> <script>document.title=4</script> <svg onload=document.title=5></svg> "
        "<a href=/leak>link</a> http://127.0.0.1/leak.txt"
    )
    page.get_by_label("Message").fill(evil)
    page.keyboard.press("Enter")
    answer = page.locator(".said li:not(.user) p")
    expect(answer).to_have_text(evil, timeout=20_000)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.locator(":is(.said, .rows) :is(img, b, a, script, svg)").count() == 0
    assert page.title() not in map(str, range(1, 6))
    assert not [url for url in asked if "leak" in url]
