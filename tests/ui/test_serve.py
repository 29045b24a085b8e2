"""Serve in an adapter's card: the command for those chosen, and what is left out with the way round."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.records import Model
from studio.services.models import RECORD
from studio.studio import Studio
from studio.ui.app import create, serve
from tests.services.test_vllm import keep


@pytest.fixture
def page(studio: Studio, browser: Any) -> Iterator[Any]:
    folder = studio.home.models / "tiny"
    folder.mkdir()
    (folder / RECORD).write_text(Model(id="some/tiny", path=str(folder), source="hub").model_dump_json())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"")
    keep(studio, "desk", template="")
    keep(studio, "odd", template="", use_dora=True)
    keep(studio, "sql", template="", r=20)
    demo = serve(studio, create(studio), browser=False)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.goto(str(demo.local_url).rstrip("/") + "/?view=adapters&adapter=desk")
    yield opened
    context.close()
    demo.close()
    studio.lock.release()


def test_the_command_follows_those_who_are_chosen(page: Any, studio: Studio) -> None:
    page.get_by_role("button", name="Serve…").click()
    command = page.get_by_label("Command")
    expect(command).to_have_value(studio.vllm.plan(["desk@v1"]).shell)
    who = page.get_by_label("Adapters, all of one base")
    for name in ("sql@v1", "odd@v1"):
        who.click()
        page.get_by_role("option", name=name).click()
    expect(page.get_by_text("odd@v1 is a DoRA adapter.")).to_be_visible()
    expect(page.get_by_text("peft-studio export odd@v1 --format merged --out DIR")).to_be_visible()
    expect(command).to_have_value(studio.vllm.plan(["desk@v1", "sql@v1"]).shell)
    expect(page.get_by_text("some/tiny:desk@v1, some/tiny:sql@v1")).to_be_visible()
    page.locator(".remove-all").first.click()
    expect(page.get_by_text("No adapter is named.")).to_be_visible()
    expect(command).to_be_hidden()
