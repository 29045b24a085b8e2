"""`runs`: what is trained is listed, shown, watched and stopped."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from studio.domain.records import Run
from studio.services import machine
from studio.storage.paths import Home
from tests.commands import played
from tests.commands.conftest import Call

BASICS = ("train", "--model", "starter", "--dataset")


def test_an_empty_home_says_what_to_do(call: Call) -> None:
    assert "peft-studio train" in call("runs").stdout
    assert json.loads(call("runs", "list", "--json").stdout) == []
    assert "A finished run puts one here" in call("adapters").stdout
    assert json.loads(call("adapters", "list", "--json").stdout) == []


def test_runs_are_listed_as_records(call: Call, trained: dict[str, Any]) -> None:
    (found,) = json.loads(call("runs", "list", "--json").stdout)
    assert Run.model_validate(found).id == trained["run"]
    assert found["result"]["steps"] == 3
    listed = call("runs", "list", "--status", "finished").stdout
    assert "support-desk-1" in listed
    assert "3 of 3" in listed
    assert "support-desk-1" not in call("runs", "list", "--status", "failed").stdout
    assert call("runs", "list", "--status", "odd").exit_code == 2


def test_a_run_is_shown_with_its_comparison(call: Call, trained: dict[str, Any]) -> None:
    shown = call("runs", "show", trained["run"]).stdout
    for words in ("support-desk, run 1", "Finished", "3 of 3", "0.667", "Better: 3 against 0"):
        assert words in shown
    assert json.loads(call("runs", "show", trained["run"], "--json").stdout)["id"] == trained["run"]


def test_an_adapter_is_shown_with_its_comparison(call: Call, trained: dict[str, Any]) -> None:
    path = Path(trained["adapter_path"]) / "studio.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": played.EVAL}))
    assert "On 4 held-out rows" in call("adapters", "show", "support-desk").stdout


def test_a_failed_run_tells_why_wherever_it_is_shown(call: Call, rows: Path) -> None:
    plan = [played.STARTED, {"emit": {"type": "failed", "message": "It broke.", "hint": "Use QLoRA."}}]
    call(*BASICS, rows, plan=plan)
    assert "Failed. It broke. Use QLoRA." in call("runs", "show", "support-desk-1").stdout
    tail = call("runs", "tail", "support-desk-1")
    assert tail.exit_code == 1
    assert "It broke." in tail.stderr


def test_tail_shows_a_run_from_its_beginning(call: Call, trained: dict[str, Any]) -> None:
    tail = call("runs", "tail", trained["run"])
    assert tail.exit_code == 0
    assert "The adapter is support-desk@v1." in tail.stdout


def test_stop_ends_a_run_or_says_that_it_is_over(call: Call, rows: Path, trained: dict[str, Any]) -> None:
    assert "is over already: finished" in call("runs", "stop", trained["run"]).stdout
    call(*BASICS, rows, "--name", "deaf", "--detach", plan=played.DEAF)
    assert call("runs", "stop", "deaf-1").stdout == "deaf, run 1 stops at its next step.\n"
    stopped = json.loads(call("runs", "stop", "deaf-1", "--force", "--json").stdout)
    assert (stopped["status"], stopped["adapter"]) == ("stopped", None)


def test_the_queue_is_shown_changed_and_left(call: Call, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0+cpu")
    assert call("runs", "queue").stdout == "No run waits.\n"
    for name in ("busy", "a", "b"):
        call(*BASICS, rows, "--name", name, "--detach", plan=played.DEAF)
    shown = call("runs", "queue").stdout
    assert shown.index("a-1") < shown.index("b-1")
    assert "busy, run 1 goes first" in shown
    assert (
        "b, run 1 waits in the queue: busy, run 1 goes first." in call("runs", "queue", "b-1", "--priority", 2).stderr
    )
    assert [run["id"] for run in json.loads(call("runs", "queue", "--json").stdout)] == ["b-1", "a-1"]
    refused = call("runs", "queue", "b-1", "--after", "b-1")
    assert refused.exit_code == 1
    assert "a run does not wait for itself" in refused.stderr
    told = json.loads(call("runs", "queue", "b-1", "--after", "a-1", "--json").stdout)
    assert (told["after"], told["phase"]) == ("a-1", "after a, run 1")
    assert "busy, run 1 goes first" in call("runs", "show", "a-1").stdout
    assert call("runs", "stop", "a-1").stdout == "a, run 1 is out of the queue.\n"
    assert "is over already" in call("runs", "stop", "a-1").stdout
    assert "it is training" in call("runs", "queue", "busy-1").stderr


def test_the_list_is_filtered_by_method_model_and_day(call: Call, rows: Path, trained: dict[str, Any]) -> None:
    call(*BASICS, rows, "--method", "dora")

    def ids(*options: str) -> list[str]:
        return [run["id"] for run in json.loads(call("runs", "list", *options, "--json").stdout)]

    today = datetime.now().date()
    assert ids("--method", "dora") == ["support-desk-2"]
    assert ids("--method", "lora", "--status", "finished") == ["support-desk-1"]
    assert ids("--model", "smollm2") == ids("--model", "STARTER") == ["support-desk-2", "support-desk-1"]
    assert ids("--since", str(today)) == ["support-desk-2", "support-desk-1"]
    assert ids("--since", str(today + timedelta(days=1))) == ids("--model", "qwen") == []
    assert "No run is like that." in call("runs", "list", "--method", "qlora").stdout
    assert call("runs", "list", "--since", "soon").exit_code == 2


def test_runs_are_compared_with_the_best_of_each_row(call: Call, rows: Path, trained: dict[str, Any]) -> None:
    worse = [*played.WELL[:5], played.checked(2, 2.5), played.SAVED, played.finished()]
    call("train", "--model", "starter", "--dataset", rows, "--set", "method.rank=4", plan=worse)
    shown = call("runs", "compare", "support-desk-1", "support-desk-2").stdout
    assert "support-desk, run 2" in shown
    held = next(line for line in shown.splitlines() if line.startswith("Held-out loss, lowest"))
    assert held.split()[-3:] == ["1.000", "best", "2.500"]
    assert next(line for line in shown.splitlines() if line.startswith("Rank")).split()[-1] == "4"
    found = json.loads(call("runs", "compare", "support-desk-1", "support-desk-2", "--json").stdout)
    assert found["runs"] == ["support-desk-1", "support-desk-2"]
    assert next(row for row in found["results"] if row["name"] == "Held-out loss, lowest")["best"] == [0]
    alone = call("runs", "compare", "support-desk-1")
    assert alone.exit_code == 1
    assert "Name two to five different runs." in alone.stderr


def test_unknown_names_are_said(call: Call) -> None:
    for words in (
        ("runs", "show", "none-1"),
        ("runs", "tail", "none-1"),
        ("runs", "stop", "../../etc"),
        ("adapters", "show", "none"),
        ("adapters", "activate", "none@v3"),
        ("adapters", "remove", "none", "--yes"),
    ):
        result = call(*words)
        assert result.exit_code == 1, words
        assert words[2].partition("@")[0] in result.stderr
        assert "Traceback" not in result.stderr


def test_a_paused_run_that_is_stopped_says_that_it_makes_its_adapter(call: Call, rows: Path, home: Home) -> None:
    call("train", "--model", "starter", "--dataset", rows, plan=[*played.PAUSING[:2], played.PAUSING[3]])
    (home.runs / "support-desk-1" / "plan.json").write_text(
        json.dumps([played.STARTED, played.SAVED, played.finished(True)])
    )
    assert "makes an adapter of where it was" in call("runs", "stop", "support-desk-1").stdout
    assert json.loads(call("runs", "tail", "support-desk-1", "--json").stdout)["adapter"] == "support-desk@v1"


@pytest.mark.spec("U18.4")
def test_a_run_s_settings_are_passed_on_and_trained_with_again(
    call: Call, trained: dict[str, Any], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.Machine, "_gpu", lambda self: None)
    text = call("runs", "settings", trained["run"]).stdout
    about = json.loads(call("runs", "settings", trained["run"], "--json").stdout)["about"]
    assert about["results"]["eval"]["verdict"].startswith("Better")
    assert about["hardware"]["cores"] >= 1
    file = tmp_path / "passed-on.yaml"
    file.write_text(text.replace("device: auto", "device: cuda"))
    result = call("train", file, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["run"] == "support-desk-2"
    assert "hardware.device is auto: there is no CUDA card here." in result.stderr
    elsewhere = call("train", file, "--dataset", tmp_path / "none.csv")
    assert elsewhere.exit_code == 1
    assert "none.csv" in elsewhere.stderr, "what is named on the command line is not replaced"
