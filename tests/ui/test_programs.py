"""Your programs in Settings: one tick makes the key, shows it once and says where to ask."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.completions import Refused
from studio.studio import Studio
from studio.ui import settings
from studio.ui.app import create, serve

KEY = "The key, shown this once"


@pytest.fixture
def served(studio: Studio) -> Iterator[str]:
    demo = serve(studio, create(studio), browser=False)
    yield str(demo.local_url).rstrip("/")
    demo.close()
    studio.lock.release()


def test_ticking_the_box_makes_a_key_once(page: Callable[..., Any], studio: Studio) -> None:
    view = page(settings.build, "settings")
    view.refresh()
    assert view.values[view.find("Answer programs")] is False
    view.press("Answer programs", "input", True)
    key = view.values[view.find(KEY)]
    studio.programs.admit(key)
    view.press("Answer programs", "input", False)
    with pytest.raises(Refused, match="does not answer programs"):
        studio.programs.admit(key)
    assert view.values[view.find(KEY)] == ""
    view.press("Answer programs", "input", True)
    assert view.values[view.find(KEY)] == "", "it is shown once"
    studio.programs.admit(key)


def test_a_new_key_is_asked_for_and_takes_the_place_of_the_first(browser: Any, served: str, studio: Studio) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(f"{served}/?view=settings")
    page.get_by_text("Each change applies at once.").wait_for()
    page.get_by_label("Answer programs").check()
    shown = page.get_by_label(KEY)
    shown.wait_for()
    first = shown.input_value()
    studio.programs.admit(first)
    expect(page.get_by_text(f"{served}/v1")).to_be_visible()
    page.get_by_role("button", name="New key…").click()
    expect(page.get_by_text("Programs that have the key of now are refused from then on.")).to_be_visible()
    page.get_by_role("button", name="Make a new key").click()
    expect(shown).not_to_have_value(first)
    studio.programs.admit(shown.input_value())
    with pytest.raises(Refused, match="missing or wrong"):
        studio.programs.admit(first)
    page.reload()
    expect(page.get_by_text("A key, made")).to_be_visible()
    expect(page.get_by_label(KEY)).to_be_hidden()
    context.close()
