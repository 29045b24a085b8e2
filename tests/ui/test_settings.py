"""Settings on the page: what is chosen is kept, a test says what came of it, a browser tells each notice once."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.config import TrainingConfig
from studio.domain.notices import NotifySettings
from studio.domain.records import Model, Run
from studio.services import notify
from studio.studio import Studio
from studio.ui import app, settings
from studio.ui.app import create, serve

FAKE = (sys.executable, str(Path(__file__).parents[1] / "services" / "fake_engine.py"))
FACTS = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 5, "trainable_parameters": 3, "settings": {}}
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# stands for the browser's own, which shows nothing a test could read
RECORDER = """window.shown = [];
window.Notification = class {
  static permission = 'default';
  static async requestPermission() { return Notification.permission = window.answer || 'granted'; }
  constructor(title, options) { shown.push(options.body); }
};"""


@pytest.fixture
def view(page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(settings, "has_desktop", lambda: True)
    made = page(settings.build, "settings")
    made.refresh()
    return made


def test_what_is_chosen_is_kept_at_once(view: Any, studio: Studio) -> None:
    assert view.values[view.find("On the desktop")] is False
    view.press("Tell me when", "input", ["failed"])
    view.press("On the desktop", "input", True)
    view.press("From", "input", "22:00")
    view.press("To", "input", "07:00")
    view.press("Webhook", "blur", " https://example.org/hook ")
    assert studio.notify.settings == NotifySettings(
        quarters=False,
        paused=False,
        desktop=True,
        webhook="https://example.org/hook",
        quiet_from="22:00",
        quiet_to="07:00",
    )
    view.refresh()
    assert view.values[view.find("Tell me when")] == ["failed"]
    assert view.values[view.find("From")] == "22:00"


def test_an_address_that_is_none_is_said_where_it_stands(view: Any, studio: Studio) -> None:
    view.press("Webhook", "submit", "example.org")
    assert "an address begins with https:// or http://" in view.seen()
    assert studio.notify.settings.webhook == ""
    view.press("Webhook", "submit", "https://example.org")
    assert "begins with" not in view.seen()


def test_a_test_says_what_came_of_it(view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    view.press("Send a test")
    assert "Nothing is switched on." in view.seen()
    monkeypatch.setattr(notify, "PAUSE", 0.0)
    studio.notify.change(webhook="http://127.0.0.1:9/")
    view.press("Send a test")
    assert "127.0.0.1 cannot be reached." in view.seen()
    assert "Nothing is switched on." not in view.seen()


def test_a_desktop_is_offered_only_where_there_is_one(
    page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "has_desktop", lambda: False)
    made = page(settings.build, "settings")
    assert made.find("On the desktop").parent.parent.visible is False


@pytest.fixture
def plan(studio: Studio, tickets: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], Run]]:
    """Start a run of four steps that waits for a file after each; `go(run, n)` lets it take step n."""
    folder = studio.home.root / "starter-model"
    folder.mkdir()
    model = Model(id="starter", path=str(folder), source="package", parameters=135_000_000)
    monkeypatch.setattr(studio.models, "resolve", lambda *_: model)
    studio.runs.command = FAKE
    data = {"path": str(tickets), "map": {"prompt": "they_wrote", "response": "we_said"}}

    def make(name: str, steps: int) -> Run:
        facts = {"learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_second": 50.0, "memory_bytes": 9}
        said: list[dict[str, Any]] = [
            {"emit": {"type": "started", "steps": steps, "device": "processor", "precision": "fp32", **FACTS}}
        ]
        for step in range(1, steps + 1):
            said.append({"wait": f"go-{step}"})
            said.append({"emit": {"type": "step", "step": step, "loss": 1.0, "tokens": step, **facts}})
        closing = {"score": 60, "words": "60 of 100: better.", "advice": "", "edit": {}}
        said += [{"wait": "end"}, {"emit": {"type": "finished", "step": steps, "result": {"closing": closing}}}]
        run = studio.runs.prepare(
            TrainingConfig.model_validate({"name": name, "model": {"id": "starter"}, "data": data})
        )
        Path(run.path, "plan.json").write_text(json.dumps(said))
        return studio.runs.start(run.id)

    yield make
    for run in studio.runs.list():
        if run.status.active:
            studio.runs.stop(run.id, force=True)


def go(run: Run, step: int) -> None:
    Path(run.path, f"go-{step}").touch()


@pytest.fixture
def served(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(app, "PULSE", 0.5)
    demo = serve(studio, create(studio), browser=False)
    yield str(demo.local_url).rstrip("/")
    demo.close()
    studio.lock.release()


def test_a_browser_tells_each_notice_once(browser: Any, served: str, plan: Callable[[str, int], Run]) -> None:
    run = plan("desk", 4)
    go(run, 1)
    context = browser.new_context(viewport=DESK)
    context.add_init_script(RECORDER)
    page = context.new_page()
    page.goto(f"{served}/?view=settings")
    page.get_by_text("25 %").first.wait_for()
    assert page.evaluate("Notification.permission") == "default", "it is not asked before the box is ticked"
    box = page.get_by_label("In this browser")
    box.check()
    page.wait_for_function("localStorage.studioNotify === 'on'")
    page.get_by_role("button", name="Send a test").click()
    page.get_by_text("This browser: shown.").wait_for()
    assert page.evaluate("shown") == ["This is a test. Notices arrive here."], "what happened before is no news"
    page.evaluate("shown.length = 0")

    go(run, 2)
    page.wait_for_function("shown.length")
    assert page.evaluate("shown[0]").startswith("desk, run 1 has passed 50 %")
    other = context.new_page()
    other.add_init_script("Notification.permission = 'granted'")
    other.goto(f"{served}/?view=runs")
    other.get_by_text("50 %").first.wait_for()
    go(run, 3)
    page.wait_for_function("document.title.startsWith('75')")
    other.wait_for_function("document.title.startsWith('75')")
    told = [text for each in (page, other) for text in each.evaluate("shown")]
    assert [text.split(" %")[0] for text in told] == ["desk, run 1 has passed 50", "desk, run 1 has passed 75"]
    context.close()


@pytest.mark.spec("U29.4")
def test_a_quiet_sound_comes_with_the_end_of_a_run_and_what_came_of_it(
    browser: Any, served: str, plan: Callable[[str, int], Run]
) -> None:
    run = plan("desk", 1)
    context = browser.new_context(viewport=DESK)
    context.add_init_script(
        RECORDER + "window.tones = 0; const start = OscillatorNode.prototype.start;"
        "OscillatorNode.prototype.start = function () { tones += 1; start.call(this); };"
    )
    page = context.new_page()
    page.goto(f"{served}/?view=settings")
    page.get_by_label("A quiet sound when a run ends").check()
    page.wait_for_function("tones === 1 && localStorage.studioSound === 'on'")
    assert page.evaluate("Notification.permission") == "default", "a sound needs no permission"
    go(run, 1)
    page.get_by_text("100 %").first.wait_for()
    assert page.evaluate("tones") == 1, "only an end is heard"
    Path(run.path, "end").touch()
    page.wait_for_function("tones === 2")
    page.goto(f"{served}/?view=runs&run={run.id}")
    page.get_by_text("60 of 100: better.").wait_for()
    page.goto(f"{served}/?view=settings")
    box = page.get_by_label("A quiet sound when a run ends")
    expect(box).to_be_checked()
    box.uncheck()
    page.wait_for_function("localStorage.studioSound === ''")
    context.close()


def test_a_browser_that_refuses_is_said(browser: Any, served: str) -> None:
    context = browser.new_context(viewport=PHONE)
    context.add_init_script(RECORDER + "window.answer = 'denied';")
    page = context.new_page()
    page.goto(f"{served}/?view=settings")
    page.get_by_role("heading", name="Settings").wait_for()
    page.get_by_label("In this browser").click()
    page.get_by_text("This browser does not let the page tell you.").wait_for()
    expect(page.get_by_label("In this browser")).not_to_be_checked()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()


def test_the_price_of_electricity_is_asked_for_once(view: Any, studio: Studio) -> None:
    view.press("Currency", "blur", "EUR")
    view.press("Watts while training", "blur", 90)
    view.press("Price of a kWh", "blur", 0.31)
    assert studio.power.settings.model_dump() == {"price": 0.31, "currency": "EUR", "watts": 90}
    view.press("Price of a kWh", "blur", 500)
    assert studio.power.settings.price == 0.31
