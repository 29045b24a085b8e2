"""Around the cards: notes and tags, archive, two side by side, the rule, and what may go when the disk is full."""

import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.studio import Studio
from tests.ui.test_adapters import METRICS, card, keep, open_at

__all__ = ["open_at"]


@pytest.mark.spec("U28.4")
def test_a_version_gets_a_note_and_tags_is_archived_and_brought_back(
    open_at: Callable[[str], Any], studio: Studio
) -> None:
    keep(studio, "desk", 1, METRICS, dataset_sha256="abcdef1234567890", seed=7)
    keep(studio, "desk", 2)
    page = open_at("/?view=adapters&adapter=desk")
    card(page, "v1").get_by_role("button", name="More…").click()
    expect(card(page, "v1").get_by_text("abcdef123456", exact=True)).to_be_visible()
    card(page, "v1").get_by_label("Note").fill("For returns.")
    card(page, "v1").get_by_label("Tags, with commas between").fill("mild, old")
    card(page, "v1").get_by_role("button", name="Save").click()
    expect(card(page, "v1").locator(".c-head em", has_text="mild")).to_be_visible()
    assert studio.adapters.get("desk@v1").note == "For returns."

    card(page, "v1").get_by_role("button", name="More…").click()
    card(page, "v1").get_by_role("button", name="Archive").click()
    expect(card(page, "v1")).to_have_count(0)
    page.get_by_role("button", name="Archived: 1 version").click()
    page.get_by_role("button", name="Bring back").click()
    expect(card(page, "v1")).to_be_visible()
    card(page, "v1").get_by_role("button", name="Chat with v1").click()
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")


@pytest.mark.spec("U28.3")
def test_two_versions_stand_side_by_side(open_at: Callable[[str], Any], studio: Studio) -> None:
    better = METRICS | {"adapter": METRICS["adapter"] | {"exact_match": 0.9}}
    keep(studio, "desk", 1, METRICS)
    keep(studio, "desk", 2, better)
    page = open_at("/?view=adapters&adapter=desk")
    page.get_by_role("button", name="Compare two versions").click()
    row = page.get_by_role("row", name=re.compile("^Exactly right"))
    expect(row).to_contain_text("90")
    expect(row).to_contain_text("best")


def test_the_rule_is_kept_when_it_is_set(open_at: Callable[[str], Any], studio: Studio) -> None:
    keep(studio, "desk", 1, METRICS)
    page = open_at("/?view=adapters&adapter=desk")
    page.get_by_role("button", name="Which new version becomes active").click()
    page.get_by_label("Only if it forgot little").check()
    field = page.get_by_label("General points it may lose")
    expect(field).to_be_visible()
    field.fill("2")
    field.blur()
    page.wait_for_timeout(500)
    assert studio.versions.rule("desk") == 2
    page.get_by_label("Only if it forgot little").uncheck()
    expect(field).to_be_hidden()
    assert studio.versions.rule("desk") is None


@pytest.mark.spec("U28.5")
def test_a_full_disk_names_the_largest_and_deletes_only_what_is_pressed(
    open_at: Callable[[str], Any], studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(10**12, 10**12, 10**9))
    keep(studio, "desk", 1, METRICS)
    keep(studio, "desk", 2)
    page = open_at("/?view=adapters&adapter=desk")
    expect(page.get_by_text("1.0 GB are free on the disk.")).to_be_visible()
    spare = page.locator(".item").filter(has_text="desk@v1")
    expect(spare).to_contain_text("Not active. 2.0 MB")
    assert len(studio.adapters.list()) == 2
    spare.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete, 2.0 MB").click()
    expect(card(page, "v1")).to_have_count(0)
    expect(page.get_by_text("No version and no checkpoint here can be spared.")).to_be_visible()
