"""Runs are chosen, stand side by side with the best marked, and one of them is gone on from."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest

from studio.domain.records import Run, Status
from studio.studio import Studio
from studio.ui import compare
from tests.ui.test_runs import checked, finished, plan, started, step, until, view

__all__ = ["plan", "view"]  # fixtures


def picked(view: Any, id: str) -> None:
    """Press a run among those to choose from."""
    other = view.find("Choose others")
    select = [fn for fn in view.demo.fns.values() if fn.targets and fn.targets[0][1] == "select"]
    (handler,) = (fn for fn in select if len(fn.inputs) == 2 and other in fn.outputs)
    data = gr.SelectData(None, {"index": id, "value": id})
    view._take(handler.fn(*[view.values[each] for each in handler.inputs], data), handler.outputs)


@pytest.fixture
def two(studio: Studio, plan: Callable[..., Run]) -> list[str]:
    runs = []
    for lowest in (1.5, 1.1):
        steps = [checked(0, 3.0), started(2), step(1), checked(1, 2.0), step(2), checked(2, lowest)]
        run = plan(*steps, {"adapter": "Better."}, finished(2))
        until(lambda run=run: studio.runs.get(run.id).status is Status.FINISHED)
        runs.append(run.id)
    return runs


@pytest.mark.spec("U17.3")
def test_chosen_runs_stand_side_by_side_with_the_best_marked(view: Any, two: list[str]) -> None:
    view.refresh()
    assert view.was("Compare…", "visible")
    view.press("Compare…")
    view.refresh(view.values[view.item])
    assert "Choose two to five of them." in view.seen()
    picked(view, two[0])
    assert view.was("Compare", "interactive") is False
    picked(view, two[1])
    assert view.was("Compare", "value") == "Compare 2 runs"
    view.press("Compare")
    assert view.values[view.item] == ",".join(two)
    view.refresh(view.values[view.item])
    text = view.seen()
    assert "2 runs side by side" in text
    assert '<b>1.100</b> <em class="good">best</em>' in text
    assert "<b>1.500</b>" not in text
    assert text.count("New run from this") == 2
    assert "stroke-dasharray" in text
    assert "They ran with the same settings." in text


def test_a_run_that_is_gone_leads_back_to_the_choice(view: Any, two: list[str]) -> None:
    view.refresh(f"{two[0]},gone-1")
    assert "There is no run gone-1." in view.seen()
    assert "Choose two to five of them." in view.seen()


def test_a_sixth_run_does_not_fit(view: Any, two: list[str]) -> None:
    view.refresh("a-1,b-2,c-3,d-4")
    view.values[next(each for each in view.values if view.values[each] == compare.CHOOSE)] = "a-1,b-2,c-3,d-4,e-5"
    picked(view, two[0])
    assert "Five runs at most stand side by side." in view.seen()


def test_ids_and_items() -> None:
    assert compare.joined([]) == compare.joined(["a"])[1:] == ","
    assert compare.parts(compare.joined(["a", "b", "a"])) == ["a", "b"]
    assert compare.compares(",")
    assert not compare.compares("desk-1")
