"""The shell: tabs, what is public, how it is served, and how it looks in a browser."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from studio.domain.errors import StudioError
from studio.domain.records import Run, Status
from studio.services import datasets
from studio.studio import Studio
from studio.ui import app
from studio.ui.app import TABS, create, launch_options, serve

PUBLISHED = {"list_datasets", "list_runs", "list_adapters", "check_data", "start_training", "stop_run", "chat"}
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Studio, str]]:
    studio = Studio(tmp_path_factory.mktemp("home"))
    demo = serve(studio, create(studio), browser=False)
    yield studio, str(demo.local_url).rstrip("/")
    demo.close()


def test_only_the_published_functions_are_public(studio: Studio) -> None:
    demo = create(studio)
    public = {
        event["api_name"] for event in demo.get_config_file()["dependencies"] if event["api_visibility"] != "private"
    }
    assert public == PUBLISHED
    described = demo.get_api_info()["named_endpoints"]
    assert {name.strip("/") for name in described} == PUBLISHED
    assert all(about["description"] for about in described.values())


def test_nothing_polls_before_something_is_live(studio: Studio) -> None:
    timers = [block for block in create(studio).blocks.values() if isinstance(block, gr.Timer)]
    assert timers
    assert not any(timer.active for timer in timers)


@pytest.mark.spec("U30.5")
def test_no_data_is_in_the_page_until_it_is_asked_for(studio: Studio) -> None:
    studio.datasets.add(datasets.sample_path(), name="a-very-special-name")
    assert "a-very-special-name" not in json.dumps(create(studio).get_config_file(), default=str)


def test_what_it_is_launched_with(studio: Studio) -> None:
    options = launch_options(studio, set())
    assert str(studio.home.runs) in options["blocked_paths"]
    assert str(studio.home.database) in options["blocked_paths"]
    assert not {"share", "server_name"} & set(options)
    for off in ("show_error", "mcp_server", "run_history", "enable_monitoring", "ssr_mode", "pwa"):
        assert options[off] is False


def test_a_port_in_use_is_named_with_the_way_out(studio: Studio) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudioError) as refused:
            serve(studio, create(studio), port=port, browser=False)
    assert refused.value.message == f"Port {port} is in use by another program."
    assert f"--port {port + 1}" in refused.value.hint


def test_a_second_studio_on_the_same_home_is_told_of_the_first(studio: Studio) -> None:
    demo = serve(studio, create(studio), browser=False)
    try:
        command = [sys.executable, "-m", "studio.cli", "ui", "--no-browser"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
        beside = subprocess.run(
            [*command[:-2], "runs", "list"], capture_output=True, text=True, env=environment, timeout=100
        )
    finally:
        demo.close()
        studio.lock.release()
    address = str(demo.local_url).rstrip("/")
    assert second.returncode == 1
    for word in (f"process {os.getpid()} on {socket.gethostname()}", address, "PEFT_STUDIO_HOME"):
        assert word in second.stderr
    assert "Traceback" not in second.stderr
    assert (beside.returncode, beside.stdout) == (0, "No runs yet. `peft-studio train` starts one.\n")


@pytest.mark.parametrize("asked", [{"host": "0.0.0.0"}, {"host": "192.168.1.5"}, {"share": True}])
def test_what_others_can_reach_needs_a_password(studio: Studio, asked: dict[str, Any]) -> None:
    with pytest.raises(StudioError, match="password"):
        serve(studio, browser=False, **asked)


def test_with_a_password_nothing_is_shown_before_the_login(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_STUDIO_PASSWORD", "correct horse")
    demo = serve(studio, create(studio), browser=False)
    try:
        assert "dependencies" not in httpx.get(f"{demo.local_url}config").text
        assert httpx.post(f"{demo.local_url}gradio_api/queue/join", json={"data": []}).status_code == 401
        wrong = httpx.post(f"{demo.local_url}login", data={"username": "studio", "password": "no"})
        assert wrong.status_code == 400
    finally:
        demo.close()


def test_the_browser_is_sent_to_the_path(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    demo = serve(studio, create(studio), path="/?view=runs&run=a-1")
    demo.close()
    assert opened == [f"{str(demo.local_url).rstrip('/')}/?view=runs&run=a-1"]


def test_published_functions_answer(served: tuple[Studio, str]) -> None:
    studio, address = served
    client = Client(address, verbose=False)
    assert client.predict(api_name="/list_runs") == []
    found = client.predict(str(datasets.sample_path()), None, api_name="/check_data")
    assert found["usable"] == found["rows"] > 100
    studio.datasets.add(datasets.sample_path())
    assert [each["name"] for each in client.predict(api_name="/list_datasets")] == ["support"]
    with pytest.raises(Exception, match=r"There is no run nothing-1\b|nothing-1"):
        client.predict("nothing-1", api_name="/stop_run")


def test_private_files_are_not_served(served: tuple[Studio, str]) -> None:
    studio, address = served
    secret = studio.home.runs / "secret.txt"
    secret.write_text("x", encoding="utf-8")
    for path in (secret, "/etc/passwd", studio.home.runs / ".." / "runs" / "secret.txt"):
        assert httpx.get(f"{address}/gradio_api/file={path}").status_code in (403, 404)


def test_an_error_nobody_expected_is_a_reference_in_the_page_and_a_trace_in_the_log(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, browser: Any
) -> None:
    demo = serve(studio, create(studio), browser=False)
    try:
        page = browser.new_page(viewport=DESK)
        page.goto(str(demo.local_url))
        page.locator("#shell .rows").first.wait_for()
        monkeypatch.setattr(studio.adapters, "list", lambda: 1 / 0)
        tab(page, "Adapters")
        toast = page.get_by_text("Something failed here.").first
        toast.wait_for()
        reference = re.search(r"Reference (\w{4})", toast.inner_text())
        assert reference
        assert "ZeroDivisionError" not in page.content()
        log = (studio.home.logs / "studio.log").read_text(encoding="utf-8")
        assert reference[1] in log
        assert "ZeroDivisionError" in log
    finally:
        demo.close()


def tab(page: Any, name: str) -> None:
    page.locator("#shell > .tab-wrapper button", has_text=name).first.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_each_tab_fits_the_screen(served: tuple[Studio, str], browser: Any, size: dict[str, int], scheme: str) -> None:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(here) else None)
    here = ("data:", "blob:", served[1])
    page.goto(served[1])
    page.locator("#bar .bar").wait_for()
    page.locator("#shell .facts").first.wait_for()
    assert page.title() == "PEFT Studio"
    buttons = page.locator("#shell > .tab-wrapper [role=tablist] button[role=tab]")
    assert buttons.all_inner_texts() == [name.capitalize() for name in TABS]
    rail = page.locator("#shell > .tab-wrapper").bounding_box()
    assert rail["width"] == (200 if size is DESK else 390)
    for name in TABS:
        tab(page, name.capitalize())
        page.locator("h1:visible").wait_for()
        assert page.locator("h1:visible").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    dark = page.evaluate("getComputedStyle(document.body).getPropertyValue('--card').trim()")
    assert dark == ("#171a1d" if scheme == "dark" else "#ffffff")
    assert (errors, foreign) == ([], [])
    page.close()


def test_an_address_opens_a_view(served: tuple[Studio, str], browser: Any) -> None:
    studio, address = served
    dataset = studio.datasets.add(datasets.sample_path())
    page = browser.new_page(viewport=DESK)
    page.goto(f"{address}/?view=data&data={dataset.id}")
    page.get_by_role("heading", name="support").wait_for()
    page.goto(f"{address}/?view=nowhere")
    page.get_by_role("heading", name="Home", exact=True).wait_for()
    page.close()


def test_a_reloaded_page_opens_the_tab_it_was_on(served: tuple[Studio, str], browser: Any) -> None:
    studio, address = served
    dataset = studio.datasets.add(datasets.sample_path())
    page = browser.new_page(viewport=DESK)
    page.goto(f"{address}/?view=data&data={dataset.id}")
    page.get_by_role("heading", name="support").wait_for()
    assert f"data={dataset.id}" in page.url, "what it opened with stays"
    page.get_by_role("tab", name="Adapters").click()
    page.wait_for_url("**/?view=adapters")
    page.reload()
    page.get_by_role("heading", name="Adapters").wait_for()
    page.close()


def training(studio: Studio, step: int) -> Run:
    path = str(studio.home.runs)  # the marks that were told are written there
    facts = {"name": "desk", "path": path, "model": "starter", "dataset": "tickets", "method": "lora", "steps": 100}
    return Run(id="desk-7", status=Status.TRAINING, created="2026-11-21T10:00:00Z", step=step, **facts)


@pytest.mark.spec("U29.3")
def test_title_and_icon_show_how_far_the_run_is(
    served: tuple[Studio, str], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, address = served
    runs = [training(studio, 42)]
    monkeypatch.setattr(studio.runs, "list", lambda *_: runs)
    page = browser.new_page(viewport=DESK)
    page.goto(address)
    page.wait_for_function("document.title === '42\u202f% · desk, run 7'")
    assert page.evaluate("document.querySelector('link[rel~=icon]').href").startswith("data:image/png")
    runs.clear()
    page.wait_for_function("document.title === 'PEFT Studio'")
    assert not page.evaluate("document.querySelector('link[rel~=icon]').href").startswith("data:")
    page.close()


@pytest.mark.spec("U35.3")
def test_a_hidden_page_looks_every_half_minute_and_at_once_when_it_is_shown_again(
    served: tuple[Studio, str], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, address = served
    looked: list[float] = []
    monkeypatch.setattr(studio.runs, "list", lambda *_: looked.append(1) or [training(studio, len(looked))])
    page = browser.new_page(viewport=DESK)
    page.clock.install()
    page.goto(address)
    page.locator("#bar .now").wait_for()
    state = "state => { Object.defineProperty(document, 'visibilityState', {value: state, configurable: true}); "
    state += "Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true}) }"
    page.evaluate(state, "hidden")
    page.clock.run_for(1000)
    page.wait_for_timeout(500)
    before = len(looked)
    page.clock.run_for(61_000)
    page.wait_for_function("n => parseInt(document.title) > n", arg=before)
    page.wait_for_timeout(500)
    assert 1 <= len(looked) - before <= 2, "a shown page would have looked a dozen times"
    page.evaluate(state, "visible")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("n => parseInt(document.title) > n", arg=len(looked))
    page.close()


def test_the_bar_is_looked_at_half_as_often_when_nothing_is_new(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio.runs, "list", lambda *_: [training(studio, 42)])
    _, first, beat = app._pulse(studio, ("", 0.0))
    title, since = beat
    assert first.value == app.PULSE
    assert app._pulse(studio, beat)[2] == beat
    assert app._pulse(studio, (title, since - 31))[1].value == 2 * app.PULSE
