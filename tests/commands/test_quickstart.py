"""`quickstart` leads from nothing to an adapter; a second time nothing is done twice without a word."""

import json
import sys
from typing import Any

import pytest

from studio.domain.errors import Taken
from studio.storage.paths import Home
from tests.commands import played
from tests.commands.conftest import Call

Page = list[dict[str, Any]]


def test_it_trains_compares_and_opens_the_run(call: Call, home: Home, page: Page) -> None:
    result = call("quickstart")
    assert result.exit_code == 0, result.stderr
    assert "Model: SmolLM2-135M-Instruct" in result.stderr
    assert "sample conversations" in result.stderr
    for words in ("Held-out loss", "Exactly right", "Question: How?", "Base model: As an AI", "support-desk@v1: So."):
        assert words in result.stdout
    assert page == [{"path": "/?view=runs&run=support-desk-1"}]


def test_beside_an_open_studio_its_address_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*args: Any, **options: Any) -> None:
        raise Taken("Another PEFT Studio serves it.", address="http://127.0.0.1:7999")

    monkeypatch.setattr(sys.modules["studio.ui.app"], "launch", launch)
    result = call("quickstart")
    assert result.exit_code == 0, result.stderr
    assert "open already: http://127.0.0.1:7999/?view=runs&run=support-desk-1" in result.stdout


def test_no_ui_ends_when_the_adapter_is_there(call: Call, page: Page) -> None:
    result = call("quickstart", "--no-ui", "--json")
    assert json.loads(result.stdout)["adapter"] == "support-desk@v1"
    assert page == []


def test_a_second_time_the_run_is_used_again(call: Call, home: Home) -> None:
    call("quickstart", "--no-ui")
    again = call("quickstart", "--no-ui", "--json")
    assert json.loads(again.stdout)["run"] == "support-desk-1"
    assert "is used again" in again.stderr
    assert len(list(home.runs.iterdir())) == len(list(home.datasets.iterdir())) == 1
    assert json.loads(call("quickstart", "--no-ui", "--again", "--json").stdout)["run"] == "support-desk-2"


def test_a_failed_first_try_is_tried_again(call: Call) -> None:
    plan = [played.STARTED, {"emit": {"type": "failed", "message": "No memory.", "hint": "Close a program."}}]
    failed = call("quickstart", "--no-ui", plan=plan)
    assert failed.exit_code == 1
    assert "No memory." in failed.stderr
    assert json.loads(call("quickstart", "--no-ui", "--json").stdout)["status"] == "finished"


def test_a_paused_one_goes_on(call: Call, home: Home) -> None:
    paused = call("quickstart", "--no-ui", "--json", plan=[*played.PAUSING[:2], played.PAUSING[3]])
    assert json.loads(paused.stdout)["status"] == "paused"
    run = home.runs / "support-desk-1"
    (run / "checkpoints" / "step-1").mkdir(parents=True)
    (run / "plan.json").write_text(json.dumps(played.WELL))
    result = call("quickstart", "--no-ui", "--json")
    assert "goes on after step 1" in result.stderr
    assert (json.loads(result.stdout)["run"], json.loads(result.stdout)["status"]) == ("support-desk-1", "finished")


def test_a_run_that_still_trains_is_waited_for(call: Call, home: Home) -> None:
    call(
        "train", "--model", "starter", "--dataset", sample(), "--name", "support-desk", "--detach", plan=played.WAITING
    )
    (home.runs / "support-desk-1" / "control" / "stop").touch()
    result = call("quickstart", "--no-ui", "--json")
    assert json.loads(result.stdout)["run"] == "support-desk-1"


def sample() -> str:
    from studio.services.datasets import sample_path

    return str(sample_path())
