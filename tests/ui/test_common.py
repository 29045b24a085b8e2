"""What the tabs share: errors, progress, the item a run is in a list."""

import logging
import re
from collections.abc import Callable, Iterator

import gradio as gr
import pytest

from studio.domain.errors import NotFound, StudioError
from studio.domain.events import Phase
from studio.domain.records import Run, Status
from studio.ui.common import confirm, consequences, edge, go, phases, problem, run_item


def run(status: Status, **more: object) -> Run:
    facts = {"id": "support-desk-3", "name": "support-desk", "path": "", "model": "starter", "dataset": "tickets"}
    return Run(**(facts | {"method": "lora", "created": "2026-11-21T10:00:00+00:00", "status": status} | more))


def test_a_known_error_keeps_its_words_but_not_its_tags() -> None:
    def handler() -> None:
        raise NotFound("There is no <b>run</b>.", "Choose one.")

    with pytest.raises(gr.Error) as shown:
        edge(handler)()
    assert shown.value.message == "There is no &lt;b&gt;run&lt;/b&gt;. Choose one."


def test_an_unknown_error_is_a_reference_that_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def handler() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("secret detail")

    stream = edge(handler)()
    assert next(stream) == 1
    with caplog.at_level(logging.ERROR, "studio.ui"), pytest.raises(gr.Error) as shown:
        next(stream)
    reference = re.search("Reference ([0-9A-F]{4})", str(shown.value.message))
    assert reference
    assert reference[1] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in str(shown.value.message)


def test_an_error_meant_for_the_page_passes() -> None:
    def handler() -> None:
        raise gr.Error("As it is")

    with pytest.raises(gr.Error, match="As it is"):
        edge(handler)()


def test_phases_come_while_the_work_goes_on() -> None:
    def work(report: Callable[[Phase], None]) -> str:
        report(Phase(words="Loading", done=1, total=2))
        report(Phase(words="Starting"))
        return "done"

    assert [each.words if isinstance(each, Phase) else each for each in phases(work)] == ["Loading", "Starting", "done"]


def test_what_the_work_raises_is_raised_to_the_reader() -> None:
    def work(report: Callable[[Phase], None]) -> str:
        report(Phase(words="Loading"))
        raise StudioError("No room.")

    stream = phases(work)
    assert isinstance(next(stream), Phase)
    with pytest.raises(StudioError, match="No room"):
        next(stream)


@pytest.mark.parametrize("status", Status)
def test_every_state_has_its_word_and_tone(status: Status) -> None:
    item = run_item(run(status, step=42, steps=100, loss=1.0412, seconds=60.0))
    assert item["title"] == "support-desk, run 3"
    assert item["state"].lower() == status
    assert item["tone"] in ("live", "good", "warn", "bad")
    assert item["meta"][0] == "loss 1.041"
    assert ("percent" in item) == status.working


def test_a_failed_run_says_why_in_the_list() -> None:
    assert run_item(run(Status.FAILED, error="Out of memory at step 41."))["text"] == "Out of memory at step 41."


def test_going_somewhere_selects_the_tab_and_names_the_item() -> None:
    tabs, item = go("runs", "support-desk-3")
    assert (tabs.selected, item) == ("runs", "support-desk-3")


def test_a_confirmation_opens_and_closes_in_place() -> None:
    with gr.Blocks() as demo:
        button = gr.Button("Delete…")
        asked = confirm(button, "Delete it?", "Delete it, 66 MB", "Keep it")
    by_trigger = {target: event.fn for event in demo.fns.values() for target in event.targets}
    assert not asked.panel.visible
    assert by_trigger[(button._id, "click")]()["visible"] is True
    assert by_trigger[(asked.act._id, "click")]()["visible"] is False


def test_notes_of_errors_and_consequences_name_the_next_step() -> None:
    shown = problem(StudioError("Row 41 has no `reply`.", "Map the column."), "Not read")
    assert 'role="alert"' in shown
    assert "Map the column." in shown
    assert consequences(["66 MB of weights.", "It cannot be undone."]).count("<li>") == 2
