"""A real studio process with the real starter model, and a browser that notices what leaves the machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from studio.domain.errors import StudioError
from studio.domain.records import Model
from studio.services.models import Models
from studio.storage.paths import Home

CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS = [*QUIET.split(), "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def starter(request: pytest.FixtureRequest) -> Model:
    """The starter model, fetched into pytest's cache folder, from where each home gets it by links."""
    kept = Home(request.config.cache.mkdir("starter"))
    try:
        return Models(kept).fetch_starter()
    except StudioError as error:
        pytest.skip(f"The starter model could not be fetched. {error}")


@dataclass
class Server:
    """A studio at work on its home folder."""

    home: Path
    address: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def server(starter: Model, tmp_path: Path) -> Iterator[Server]:
    """`peft-studio ui` on a fresh home folder that has the starter model."""
    home = Home(tmp_path / "home").prepare()
    shutil.copytree(starter.path, home.models / "starter", copy_function=_link)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "studio.cli", "ui", "--no-browser", "--port", str(port)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PEFT_STUDIO_HOME": str(home.root), "PYTHONPATH": str(root)}
    with open(tmp_path / "studio.out", "wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, tmp_path / "studio.out")
        yield Server(home.root, address, process)
    finally:
        leftovers = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        for pid in reversed(leftovers):
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        process.wait()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _wait_for(address: str, process: subprocess.Popen[bytes], out: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, out.read_text()
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"The studio did not answer.\n{out.read_text()}")


@dataclass
class Browser:
    """Opens pages, and remembers what they asked of other machines and what they complained about."""

    context: object
    left: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str):
        page = self.context.new_page()
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("tab", name="Home").wait_for()
        return page


@pytest.fixture
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"There is no browser at {CHROMIUM}.")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        found = Browser(context)

        def check(route) -> None:
            if urlsplit(route.request.url).hostname == "127.0.0.1":
                route.continue_()
            else:
                found.left.append(route.request.url)
                route.abort()

        context.route("**/*", check)
        yield found
        chromium.close()
