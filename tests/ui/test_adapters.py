"""Adapters: every version with what was measured; choosing, deleting and chatting from its card."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.studio import Studio
from studio.ui import adapters as tab
from studio.ui.app import create, serve

METRICS = {
    "rows": 20,
    "verdict": "Better: 14 against 0 of 20 answers exactly right.",
    "base": {"loss": 2.0, "perplexity": 7.4, "exact_match": 0.0, "token_f1": 0.3},
    "adapter": {"loss": 1.0, "perplexity": 2.7, "exact_match": 0.7, "token_f1": 0.8},
    "difference": {"exact_match": {"mean": 0.7, "low": 0.5, "high": 0.9, "p": 0.0}},
}


def keep(studio: Studio, name: str, version: int, metrics: dict[str, Any] | None = None, **more: Any) -> Path:
    """Put a version into the home folder, as the service does."""
    folder = studio.home.adapters / name / f"v{version}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"w" * 2_000_000)
    facts = {"base": {"id": "starter", "path": "/models/starter"}, "run": f"{name}-{version}", "method": "dora"}
    facts |= {"created": "2026-11-21T10:00:00+00:00", "metrics": metrics or {}} | more
    (folder / "studio.json").write_text(json.dumps(facts))
    return folder


def test_the_empty_tab_leads_to_a_run(page: Callable[..., Any]) -> None:
    view = page(tab.build, "adapters")
    view.refresh()
    assert "No adapters yet. A finished run puts one here." in view.seen()
    view.press("New run")
    assert view.states[-1][view.shell.tabs]["selected"] == "train"


def test_the_heading_counts_and_weighs_the_versions(page: Callable[..., Any], studio: Studio) -> None:
    keep(studio, "desk", 1)
    keep(studio, "desk", 2)
    keep(studio, "sql", 1)
    view = page(tab.build, "adapters")
    view.refresh("desk@v1")
    assert "Adapter for SmolLM2-135M-Instruct. 2 versions, 4.0 MB." in view.seen()
    assert view.was("Adapter", "choices") == ["desk", "sql"]
    view.refresh("gone@v1")
    assert "There is no adapter gone@v1." in view.seen()


def test_a_card_says_what_was_measured(studio: Studio) -> None:
    keep(studio, "desk", 1, METRICS)
    keep(studio, "desk", 2)
    unmeasured, measured = studio.adapters.list("desk")
    assert '<b class="good">Better</b>: 14 against 0' in tab.card_head(measured)
    assert "desk, run 1 · DoRA · 2.0 MB" in tab.card_head(measured)
    assert "Not measured" in tab.card_head(unmeasured)


@pytest.fixture
def open_at(studio: Studio, browser: Any) -> Iterator[Callable[[str], Any]]:
    demo = serve(studio, create(studio), browser=False)
    context = browser.new_context(viewport={"width": 1280, "height": 900})

    def visit(address: str) -> Any:
        page = context.new_page()
        page.goto(str(demo.local_url).rstrip("/") + address)
        return page

    yield visit
    context.close()
    demo.close()


def card(page: Any, version: str) -> Any:
    return page.locator(".card").filter(has=page.locator(".c-head b", has_text=version))


@pytest.mark.spec("U28.4")
def test_a_version_is_made_active_chatted_with_and_deleted(open_at: Callable[[str], Any], studio: Studio) -> None:
    keep(studio, "desk", 1, METRICS)
    keep(studio, "desk", 2)
    (studio.home.models / "starter").mkdir()
    page = open_at("/?view=adapters&adapter=desk")
    expect(card(page, "v2").get_by_text("Active", exact=True)).to_be_visible()
    expect(card(page, "v1").get_by_role("img")).to_have_accessible_name("+70 points, +50 to +90; higher is better")

    card(page, "v1").get_by_role("button", name="Make active…").click()
    expect(page.get_by_text("v2 stays.")).to_be_visible()
    assert studio.adapters.get("desk").version == 2
    card(page, "v1").get_by_role("button", name="Make v1 active").click()
    expect(card(page, "v1").get_by_text("Active", exact=True)).to_be_visible()
    assert studio.adapters.get("desk").version == 1

    card(page, "v2").get_by_role("button", name="Delete…").click()
    card(page, "v2").get_by_role("button", name="Keep it").click()
    assert len(studio.adapters.list("desk")) == 2
    card(page, "v2").get_by_role("button", name="Delete…").click()
    card(page, "v2").get_by_role("button", name="Delete v2, 2.0 MB").click()
    expect(card(page, "v2")).to_have_count(0)
    assert [each.version for each in studio.adapters.list("desk")] == [1]


def test_many_versions_are_shown_ten_at_a_time(open_at: Callable[[str], Any], studio: Studio) -> None:
    for version in range(1, 14):
        keep(studio, "desk", version)
    page = open_at("/?view=adapters")
    older = page.get_by_role("button", name="Show 3 older")
    expect(older).to_be_visible()
    expect(page.locator(".card")).to_have_count(10)
    older.click()
    expect(page.locator(".card")).to_have_count(13)


def test_opening_a_name_again_draws_nothing_anew(page: Callable[..., Any], studio: Studio) -> None:
    keep(studio, "desk", 1)
    keep(studio, "desk", 2)
    opened = page(tab.build, "adapters")
    opened.refresh("desk")
    first = opened.values[opened.tab.outputs[-1]]
    opened.refresh("desk")
    assert opened.values[opened.tab.outputs[-1]] == first
    studio.adapters.activate("desk@v1")
    opened.refresh("desk")
    assert opened.values[opened.tab.outputs[-1]] != first


@pytest.mark.parametrize(
    ("held", "words"), [("General texts −2.1 points; 1 may be lost.", "Not made active by itself. General"), ("", "")]
)
def test_a_card_says_why_its_version_was_not_made_active(studio: Studio, held: str, words: str) -> None:
    keep(studio, "desk", 1, METRICS, held=held)
    keep(studio, "desk", 2)
    shown = tab.card_head(studio.adapters.get("desk@v1"))
    assert words in shown
    assert ("Not made active" in shown) == bool(held)
    studio.adapters.activate("desk@v1")
    assert "Not made active" not in tab.card_head(studio.adapters.get("desk@v1"))
