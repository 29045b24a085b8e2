"""For tests of commands: `call`, which runs one in this process, and a data file."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import studio.studio
from studio.cli import app
from studio.services import jobs
from studio.storage.paths import Home
from tests.commands import played

Call = Callable[..., Result]


@pytest.fixture
def call(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Run a command on a home with the starter and an engine that plays; engines that are left are ended."""
    monkeypatch.setattr(studio.studio, "Studio", played.Studio)
    monkeypatch.delenv("PEFT_STUDIO_DEBUG", raising=False)
    runner = CliRunner()

    def run(*words: object, plan: list[dict[str, Any]] | None = None, input: str | None = None) -> Result:
        monkeypatch.setenv("PLAN", json.dumps(plan) if plan else "")
        return runner.invoke(app, [str(word) for word in words], input=input)

    yield run
    for folder in home.runs.iterdir():
        if (record := jobs.recorded(folder)) and jobs.alive(record):
            jobs.end(record.pid)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "support desk.csv"
    path.write_text("question,answer\n" + played.ROWS)
    return path


@pytest.fixture
def trained(call: Call, rows: Path) -> dict[str, Any]:
    """A run that ended well, as `train --json` told it."""
    result = call("train", "--model", "starter", "--dataset", rows, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands for the page, so that no test opens it; holds what it was opened with."""
    opened: list[dict[str, Any]] = []
    module = type(sys)("studio.ui.app")
    module.launch = lambda *args, **options: opened.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "studio.ui.app", module)
    return opened
