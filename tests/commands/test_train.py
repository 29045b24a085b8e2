"""`train` and `run`: flags, YAML and their union; one JSON document; Ctrl-C keeps the adapter."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from studio.domain.document import from_document
from studio.services import machine
from studio.storage.paths import Home
from tests.commands import played
from tests.commands.conftest import Call

KEYS = {
    "run",
    "status",
    "adapter",
    "adapter_path",
    "steps",
    "real_tokens",
    "tokens_per_second",
    "train_seconds",
    "final_loss",
    "eval",
    "closing",
    "peak_memory_bytes",
}
BASICS = ("train", "--model", "starter", "--dataset")


def test_train_prints_one_document_and_the_rest_elsewhere(trained: dict[str, Any]) -> None:
    assert set(trained) == KEYS
    assert (trained["run"], trained["status"], trained["adapter"]) == ("support-desk-1", "finished", "support-desk@v1")
    assert Path(trained["adapter_path"], "adapter_model.safetensors").is_file()
    assert trained["final_loss"] is None, "what is not a number is null in JSON"
    assert trained["eval"]["verdict"].startswith("Better")


def test_a_run_in_the_foreground_tells_a_webhook_that_it_is_over(call: Call, rows: Path, home: Home) -> None:
    got, answered = [], threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            answered.set()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (home.root / "notify.json").write_text(json.dumps({"webhook": f"http://127.0.0.1:{server.server_port}/"}))
        assert call(*BASICS, rows).exit_code == 0
        assert answered.wait(30)
        assert call("runs", "tail", "support-desk-1").exit_code == 0
        server.shutdown()
    assert [(each["run"], each["event"], each["percent"]) for each in got] == [("support-desk-1", "finished", 100)]


def test_train_says_what_happens_in_words(call: Call, rows: Path) -> None:
    result = call(*BASICS, rows)
    assert result.exit_code == 0
    for words in (
        "Loading the model",
        "support-desk, run 1: 3 steps, 9 examples, 4 held out, 3.0\u202fM trainable parameters, cpu, fp32.",
        "Held-out loss of the base model: 3.000.",
        "Held-out loss after step 3 (the base has 3.000): 1.000.",
        "Two examples were left out. They are too long.",
    ):
        assert words in result.stderr
    assert "support-desk, run 1 finished after 3 steps and 6 s. The adapter is support-desk@v1." in result.stdout
    assert "Exactly right" in result.stdout
    assert "+75 points, +25 to +100" in result.stdout
    assert "Better: 3 against 0 of 4" in result.stdout
    assert "peft-studio chat --adapter support-desk@v1" in result.stdout


def test_a_failed_run_is_exit_code_1_with_its_reason(call: Call, rows: Path) -> None:
    plan = [
        played.STARTED,
        {"emit": {"type": "failed", "message": "The loss is no number.", "hint": "Lower the rate."}},
    ]
    result = call(*BASICS, rows, "--json", plan=plan)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert "The loss is no number." in told["error"]
    assert told["hint"] == "Lower the rate."
    assert "Lower the rate." in result.stderr


def test_options_override_the_file_and_set_overrides_both(call: Call, rows: Path, tmp_path: Path) -> None:
    document = {
        "name": "from file",
        "model": {"id": "nobody/nothing"},
        "data": {"path": "nowhere.csv"},
        "train": {"epochs": 7, "seed": 5},
        "method": {"name": "dora"},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(document))
    options = ("--epochs", 2, "--max-steps", 9, "--method", "pissa", "--set", "train.seed=8", "--set", "method.rank=4")
    result = call("train", path, *BASICS[1:], rows, *options, "--print-config")
    assert result.exit_code == 0, result.stderr
    config = from_document(yaml.safe_load(result.stdout))
    assert (config.name, config.model.id, config.data.path) == ("from file", "starter", str(rows))
    assert (config.train.epochs, config.train.max_steps, config.train.seed) == (2, 9, 8)
    assert (config.method.name, config.method.rank) == ("pissa", 4)


def test_the_printed_settings_are_those_of_the_run_and_start_nothing(call: Call, rows: Path, home: Home) -> None:
    printed = call(*BASICS, rows, "--print-config")
    assert "# Twice the rank is the usual strength." in printed.stdout
    assert list(home.runs.iterdir()) == []
    told = json.loads(call(*BASICS, rows, "--print-config", "--json").stdout)
    assert told["reasons"]["method.alpha"].startswith("Twice the rank")
    call(*BASICS, rows)
    written = yaml.safe_load((home.runs / "support-desk-1" / "config.yaml").read_text())
    assert {**told["config"], "name": ""} == {**written, "name": ""}


def test_a_run_s_own_settings_repeat_it(call: Call, trained: dict[str, Any], home: Home) -> None:
    result = call("train", home.runs / trained["run"] / "config.yaml", "--json")
    assert json.loads(result.stdout)["adapter"] == "support-desk@v2"


def test_the_schema_is_json(call: Call) -> None:
    schema = json.loads(call("train", "--schema").stdout)
    assert schema["properties"]["train"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--dataset", "a.csv"), "--model"),
        (("train", "--model", "starter"), "--dataset"),
        (("train", "--model", "starter", "--dataset", "a.csv", "--map", "prompt"), "--map"),
        (("train", "--epochs", "many"), "--epochs"),
    ],
)
def test_wrong_usage_is_exit_code_2(call: Call, words: tuple[str, ...], said: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "There is no file"),
        ("model: [", "line 2: this is not YAML"),
        ("just words", "not a list of keys and values"),
        ("zip: 1\nmodel: {id: starter}\ndata: {path: a.csv}", "zip"),
        ("model: {id: starter}\ndata: {path: a.csv}\ntrain: {learning_rate: 9}", "learning_rate"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(call: Call, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "c.yaml"
    if text:
        path.write_text(text + "\n")
    result = call("train", path)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_columns_of_unclear_meaning_ask_for_a_map(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("kunde,was wir sagten\n" + played.ROWS)
    result = call(*BASICS, path)
    assert result.exit_code == 1
    assert "`kunde`" in result.stderr
    assert "--map" in result.stderr
    assert call(*BASICS, path, "--map", "prompt=kunde", "--map", "response=was wir sagten").exit_code == 0


def test_bad_rows_are_left_out_only_when_told_so(call: Call, rows: Path) -> None:
    rows.write_text(rows.read_text() + "A question without an answer,\n")
    result = call(*BASICS, rows)
    assert result.exit_code == 1
    assert "--skip-bad-rows" in result.stderr
    assert call(*BASICS, rows, "--skip-bad-rows").exit_code == 0


def test_findings_are_mended_first_when_told_so(call: Call, rows: Path) -> None:
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[-1] + "\n")
    result = call(*BASICS, rows, "--fix", "duplicates", "--print-config", "--json")
    assert json.loads(result.stdout)["config"]["data"]["repairs"] == ["duplicates"]
    result = call(*BASICS, rows, "--fix", "typos")
    assert result.exit_code == 1
    assert "There is no repair `typos`" in result.stderr


def test_a_detached_run_is_stopped_by_its_id(call: Call, rows: Path) -> None:
    result = call(*BASICS, rows, "--detach", "--json", plan=played.WAITING)
    started = json.loads(result.stdout)
    assert started["run"] == "support-desk-1"
    assert call("runs", "stop", started["run"]).exit_code == 0
    tail = call("runs", "tail", started["run"], "--json")
    assert tail.exit_code == 0
    assert json.loads(tail.stdout)["status"] == "stopped"
    assert json.loads(tail.stdout)["adapter"] == "support-desk@v1"


def test_on_a_busy_machine_a_run_is_queued_and_said_so(call: Call, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0+cpu")
    assert "waits" not in call(*BASICS, rows, "--detach", plan=played.WAITING).stderr
    result = call(*BASICS, rows, "--detach", "--json")
    assert json.loads(result.stdout) == {"run": "support-desk-2", "status": "queued"}
    assert "support-desk, run 2 waits in the queue: support-desk, run 1 goes first." in result.stderr
    call(*BASICS, rows, "--detach", "--priority", 3)
    after = call(*BASICS, rows, "--detach", "--after", "support-desk-3")
    assert "run 4 waits in the queue: after support-desk, run 3." in after.stderr
    assert call(*BASICS, rows, "--after", "none-1").exit_code == 1
    assert [run["id"] for run in json.loads(call("runs", "queue", "--json").stdout)] == [
        "support-desk-3",
        "support-desk-2",
        "support-desk-4",
    ]
    call("runs", "stop", "support-desk-1")
    tail = call("runs", "tail", "support-desk-4")  # keeps the queue going until this one has ended
    assert tail.exit_code == 0, tail.stderr
    states = {run["id"]: run["status"] for run in json.loads(call("runs", "list", "--json").stdout)}
    assert states["support-desk-3"] == states["support-desk-4"] == "finished"


def test_a_run_in_the_foreground_waits_for_its_turn(call: Call, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0+cpu")
    call(*BASICS, rows, "--detach", plan=played.WAITING)
    threading.Timer(1, lambda: played.Studio().runs.stop("support-desk-1")).start()
    result = call(*BASICS, rows)
    assert result.exit_code == 0
    assert "run 2 waits in the queue: support-desk, run 1 goes first." in result.stderr
    assert "support-desk, run 2 finished" in result.stdout


def test_a_prepared_directory_is_executed_here(call: Call, rows: Path, home: Home, tmp_path: Path) -> None:
    run = played.Studio().runs.prepare(from_document({"model": {"id": "starter"}, "data": {"path": str(rows)}}))
    result = call("run", run.path, "--json")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)) == KEYS
    empty = call("run", tmp_path)
    assert empty.exit_code == 1
    assert "is not a run directory" in empty.stderr


def test_ctrl_c_takes_a_run_that_waits_out_of_the_queue(home: Home, rows: Path, call: Call) -> None:
    call(*BASICS, rows, "--name", "busy", "--detach", plan=played.DEAF)
    call(*BASICS, rows, "--name", "desk", "--detach", "--after", "busy-1", plan=played.DEAF)
    train = Pressed(home, rows, played.DEAF, "--after", "desk-1")
    train.until("queue.json", "desk-1")
    time.sleep(1)  # it has said that it waits, and waits
    train.press()
    code, out, err = train.end()
    assert code == 130, err
    assert json.loads(out)["status"] == "stopped"
    assert "It leaves the queue." in err


# Ctrl-C, in a process of its own


class Pressed:
    """`train --json` in a process; `press` sends it what Ctrl-C sends."""

    def __init__(self, home: Home, rows: Path, plan: list[dict[str, Any]], *more: str) -> None:
        self.home = home
        root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {"PLAN": json.dumps(plan), "PYTHONPATH": path}
        command = [sys.executable, played.__file__, *BASICS, str(rows), *more, "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]

    @property
    def run(self) -> Path:
        return self.home.runs / "support-desk-1"

    def press(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def until(self, path: str, text: str) -> None:
        limit = time.monotonic() + 30
        while not ((self.run / path).exists() and text in (self.run / path).read_text()):
            assert time.monotonic() < limit, f"{path} never held {text}"
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.05)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def test_ctrl_c_pauses_the_run(home: Home, rows: Path) -> None:
    train = Pressed(home, rows, played.PAUSING)
    train.until("events.jsonl", '"step": 1')
    train.press()
    code, out, err = train.end()
    assert code == 130, err
    told = json.loads(out)
    assert (told["status"], told["adapter"]) == ("paused", None)
    assert "then pausing" in err


def test_a_second_ctrl_c_ends_the_engine_at_once(home: Home, rows: Path) -> None:
    train = Pressed(home, rows, played.DEAF)
    train.until("events.jsonl", '"step": 1')
    engine = json.loads((train.run / "process.json").read_text())["pid"]
    train.press()
    train.until("control/pause", "")
    assert psutil.pid_exists(engine)
    train.press()
    code, out, err = train.end()
    assert code == 130, err
    assert json.loads(out)["adapter"] is None
    assert not psutil.pid_exists(engine)
