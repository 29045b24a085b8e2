"""Comparing on the page: runs are chosen from the list, stand side by side, and any of them can be done again."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.config import TrainingConfig
from studio.domain.events import AnyEvent, Evaluated, Finished, Started, Step, dump
from studio.domain.records import Model, Run
from studio.studio import Studio
from studio.ui import runs as tab
from studio.ui.app import create, serve
from studio.ui.compare import short_names

FACTS: dict[str, Any] = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 900, "trainable_parameters": 3}
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
Make = Callable[..., Run]


def prepared(studio: Studio, data: Path, name: str = "desk", fall: float = 0.1, **settings: Any) -> Run:
    """A run of 20 steps that ended well, as its files tell it; its loss falls by `fall` each step."""
    document = {"name": name, "model": {"id": "starter"}, "data": {"path": str(data)}, **settings}
    document["data"]["map"] = {"prompt": "they_wrote", "response": "we_said"}
    run = studio.runs.prepare(TrainingConfig.model_validate(document))
    told: list[AnyEvent] = [Started(steps=20, device="processor", precision="fp32", **FACTS)]
    told.append(Evaluated(step=0, loss=3.0))
    for number in range(1, 21):
        loss, at = 3 - fall * number, float(number)
        facts: dict[str, Any] = {"learning_rate": 1e-4, "grad_norm": 1, "tokens_per_second": 50, "memory_bytes": 900}
        told.append(Step(step=number, loss=loss, tokens=100 * number, elapsed=at, **facts))
        if number % 5 == 0:
            told.append(Evaluated(step=number, loss=loss + 0.2, elapsed=at))
    told.append(Finished(step=20, elapsed=21, result={"steps": 20, "train_seconds": 20.0}))
    Path(run.path, "events.jsonl").write_text("".join(map(dump, told)))
    return studio.runs.get(run.id)


def with_starter(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = studio.home.root / "starter-model"
    folder.mkdir()
    model = Model(id="starter", path=str(folder), source="package", parameters=135_000_000)
    monkeypatch.setattr(studio.models, "resolve", lambda *_: model)


@pytest.fixture
def make(studio: Studio, tickets: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    with_starter(studio, monkeypatch)
    return lambda name="desk", fall=0.1, **settings: prepared(studio, tickets, name, fall, **settings)


@pytest.fixture
def view(page: Callable[..., Any]) -> Any:
    return page(tab.build, "runs")


def pick(view: Any, label: str, id: str) -> Any:
    """Press what has this id in a block; return what its handler said."""
    block = next(
        each
        for each in view.demo.blocks.values()
        if f'data-id="{id}"' in str(view.values.get(each)) and label in str(view.values[each])
    )
    handler = next(fn for fn in view.demo.fns.values() if (block._id, "select") in fn.targets)
    said = handler.fn(*[view.values[each] for each in handler.inputs], SimpleNamespace(index=id))
    view._take(said, handler.outputs)
    return said


def test_runs_are_chosen_compared_and_one_is_done_again(view: Any, make: Make) -> None:
    runs = [make(), make(fall=0.12, method={"rank": 4})]
    view.refresh()
    view.press("Compare…")
    view.refresh(view.values[view.item])
    assert "Choose two to five of them." in view.seen()
    pick(view, "Runs to compare", runs[0].id)
    assert view.seen().count('aria-pressed="true"') == 1
    assert view.was("Compare", "interactive") is False
    pick(view, "Runs to compare", runs[1].id)
    assert view.was("Compare", "value") == "Compare 2 runs"

    view.press("Compare")
    assert view.values[view.item] == "desk-1,desk-2"
    view.refresh("desk-1,desk-2")
    seen = view.seen()
    assert "2 runs side by side" in seen
    lowest = seen.split("Held-out loss, lowest")[1].split("</tr>")[0]
    assert re.findall("best", lowest) == ["best"]
    assert "<b>0.800</b>" in lowest
    assert "Rank" in seen.split("What differs")[-1]
    assert len(set(re.findall(r'stroke-dasharray="([^"]+)"', seen))) == 1, "the second line is dashed"

    tabs, opened = pick(view, "Go on from here", "desk-2")
    assert (tabs.selected, opened) == ("train", "run:desk-2:{}")


def test_no_more_than_five_are_chosen(view: Any, make: Make) -> None:
    runs = [make() for _ in range(6)]
    view.refresh(",")
    for run in runs[:5]:
        pick(view, "Runs to compare", run.id)
    pick(view, "Runs to compare", runs[5].id)
    assert "Five runs at most" in view.seen()
    assert view.seen().count('aria-pressed="true"') == 5


def test_an_address_with_a_run_that_is_gone_says_so(view: Any, make: Make) -> None:
    make()
    view.refresh("desk-1,desk-9")
    assert "There is no run desk-9." in view.seen()


def test_the_comparison_goes_away_with_the_way_back(view: Any, make: Make) -> None:
    make()
    make()
    view.refresh("desk-1,desk-2")
    view.refresh("")
    assert 'data-run="desk-1,desk-2"' not in view.seen()
    assert view.was("Compare…", "visible") is True


def test_names_leave_out_what_all_begin_with() -> None:
    def runs(*ids: str) -> list[Run]:
        facts: dict[str, Any] = {"name": "", "path": "", "status": "finished", "model": "", "dataset": "", "method": ""}
        return [Run(id=id, created="", **facts) for id in ids]

    assert short_names(runs("desk-1", "desk-2")) == ["run 1", "run 2"]
    assert short_names(runs("desk-1", "sql-2")) == ["desk, run 1", "sql, run 2"]


@pytest.fixture
def served(studio: Studio) -> Iterator[str]:
    demo = serve(studio, create(studio), browser=False)
    yield str(demo.local_url).rstrip("/")
    demo.close()
    studio.lock.release()


@pytest.mark.spec("U17.5")
def test_five_runs_side_by_side_in_a_browser(browser: Any, served: str, studio: Studio, make: Make) -> None:
    ids = [make(fall=0.1 + 0.01 * n, method={"rank": 4 + n}).id for n in range(5)]
    for size in (DESK, PHONE):
        page = browser.new_page(viewport=size)
        page.goto(f"{served}/?view=runs&run={','.join(ids)}")
        page.get_by_role("heading", name="5 runs side by side").wait_for()
        styles = page.evaluate(
            """() => [...document.querySelectorAll('.charts figure:first-child svg.desk path')].map(
              path => path.getAttribute('stroke') + path.getAttribute('stroke-dasharray'))"""
        )
        assert len(set(styles)) == 5
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if size is DESK:
            chart = page.locator(".charts svg.desk").first
            chart.hover(position={"x": 400, "y": 100})
            read = page.locator(".charts .read").first.inner_text()
            assert read.count("run ") == 5
            assert "tokens" in read
            page.get_by_role("button", name="New run from run 5").click()
            page.get_by_role("heading", name="New run").wait_for()
            expect(page.locator("dd", has_text=re.compile("rank.* 8,", re.DOTALL)).first).to_be_visible()
        page.close()
