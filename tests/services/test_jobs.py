"""Engine processes: started without secrets, known again, never mistaken for another, never left as zombies."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.domain.errors import EngineError
from studio.services import jobs

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


def plan(directory: Path, *steps: dict) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "plan.json").write_text(json.dumps(steps))
    return directory


def until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture
def engine(tmp_path):
    """An engine that waits for the file `go`."""
    directory = plan(tmp_path / "run", {"wait": "go"})
    jobs.spawn_recorded("train", directory, directory / "worker.log", FAKE)
    yield directory
    jobs.end(jobs.recorded(directory).pid, grace=0.2)


def test_the_environment_of_an_engine_holds_no_secret(monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "aws_secret_access_key", "DB_PASSWORD", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("HF_HOME", "/models")
    given = jobs.environment()
    assert "hush" not in given.values()
    assert given["HF_HOME"] == "/models"
    assert given["HF_HUB_OFFLINE"] == given["TRANSFORMERS_OFFLINE"] == "1"


def test_the_real_engine_is_found_from_a_strange_folder_and_reads_no_module_there(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(jobs.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", ".")
    (tmp_path / "json.py").write_text("raise SystemExit('a module of others was imported')")
    child = jobs.spawn("no-such-job", tmp_path, tmp_path / "worker.log")
    assert child.wait(60) == 2
    assert "usage: python -m studio.engine" in jobs.tail(tmp_path / "worker.log")


def test_an_engine_is_known_by_its_record_until_it_ends(engine):
    record = jobs.recorded(engine)
    assert jobs.alive(record)
    assert os.getsid(record.pid) == record.pid  # a session of its own: no signal meant for the studio reaches it
    (engine / "go").touch()
    until(lambda: not jobs.alive(record))
    assert jobs.exit_code(engine, record) == 0


def test_another_process_of_that_number_is_not_taken_for_the_engine(engine):
    record = jobs.recorded(engine)
    assert not jobs.alive(record.model_copy(update={"pid": os.getpid()}))
    assert not jobs.alive(record.model_copy(update={"token": "of another run"}))
    assert not jobs.alive(record.model_copy(update={"started": record.started - 60, "token": ""}))


def test_an_engine_is_known_although_the_clock_was_set(engine):
    record = jobs.recorded(engine)
    assert jobs.alive(record.model_copy(update={"started": record.started - 86_400}))


@pytest.mark.spec("U36.2")
def test_ended_engines_leave_no_zombie_though_nobody_looks(engine):
    record = jobs.recorded(engine)
    os.kill(record.pid, 9)
    until(lambda: not psutil.pid_exists(record.pid))
    assert jobs.exit_code(engine, record) == -9
    assert jobs.recorded(engine).exit_code == -9  # for a studio that was not its parent


STARTER = """
import os, sys
from pathlib import Path
from studio.services import jobs

write, written = jobs.write_atomic, []

def killed(path, text):
    written.append(path)
    if len(written) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    write(path, text)

jobs.write_atomic = killed
directory = Path(sys.argv[1])
jobs.spawn_recorded("train", directory, directory / "worker.log", sys.argv[3:])
"""


@pytest.mark.parametrize("killed_at", [1, 2])
def test_an_engine_whose_starter_was_killed_before_it_wrote_it_down_is_known(tmp_path, killed_at):
    directory = plan(tmp_path / "run", {"wait": "go"})
    done = subprocess.run(
        [sys.executable, "-c", STARTER, str(directory), str(killed_at), *FAKE], env=jobs.environment(), check=False
    )
    assert done.returncode == -9
    record = jobs.recorded(directory)
    assert (record is not None) == (killed_at == 2), "an engine that was not started is not looked for in vain"
    if record:
        assert jobs.alive(record)
        (directory / "go").touch()
        until(lambda: not jobs.alive(record))


def test_an_engine_that_was_never_started_leaves_what_was_known(tmp_path):
    directory = plan(tmp_path / "run")
    with pytest.raises(EngineError):
        jobs.spawn_recorded("train", directory, directory / "worker.log", ("/nothing/here",))
    assert jobs.recorded(directory) is None
    ended = jobs.Process(pid=2**22 + 1, started=1.0, token="a", cause="The disk is full.")
    (directory / "process.json").write_text(ended.model_copy(update={"next": "b"}).model_dump_json())
    assert jobs.recorded(directory).cause == ended.cause


def test_a_zombie_counts_as_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    record = jobs.Process(pid=child.pid, started=psutil.Process(child.pid).create_time())
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert not jobs.alive(record)
    child.wait()


def test_an_engine_that_met_a_full_disk_is_named_though_nothing_can_be_noted(tmp_path, monkeypatch):
    directory = plan(tmp_path / "run", {"exit": errno.ENOSPC})
    jobs.spawn_recorded("train", directory, directory / "worker.log", FAKE)
    record = jobs.recorded(directory)
    until(lambda: not jobs.alive(record))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "write_atomic", full)
    assert jobs.died(jobs.exit_code(directory, record), directory / "worker.log") == "The disk is full."


def test_ending_takes_the_children_along_and_force_where_asking_does_not_help(tmp_path):
    code = (
        "import signal, subprocess, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[2], 'child').write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    child = jobs.spawn("train", tmp_path, tmp_path / "worker.log", command=(sys.executable, "-c", code))
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    grandchild = psutil.Process(int((tmp_path / "child").read_text()))
    jobs.end(child.pid, grace=0.5)
    assert child.wait(10) == -9
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_an_engine_that_cannot_be_started_is_named(tmp_path):
    with pytest.raises(EngineError, match="The engine for train could not be started"):
        jobs.spawn("train", tmp_path, tmp_path / "worker.log", command=(str(tmp_path / "no-python"),))


def test_a_short_job_passes_its_phases_on(tmp_path):
    directory = plan(tmp_path / "job", {"emit": {"type": "phase", "words": "Measuring"}}, {"exit": 0})
    heard = []
    jobs.run("evaluate", directory, tmp_path / "log", lambda phase: heard.append(phase.words), FAKE)
    assert heard == ["Measuring"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            ({"emit": {"type": "failed", "message": "No row fits.", "hint": "Shorten them."}}, {"exit": 1}),
            "No row fits. Shorten them.",
        ),
        (
            ({"print": "ImportError: no module"}, {"exit": 3}),
            "ended with code 3. Its last words: ImportError: no module",
        ),
        (({"kill": 9},), "ended by the system, most often for lack of memory"),
        (({"exit": 4},), "ended with code 4, without a word in its log"),
    ],
)
def test_a_short_job_that_fails_says_why(tmp_path, steps, said):
    directory = plan(tmp_path / "job", *steps)
    with pytest.raises(EngineError, match=said):
        jobs.run("evaluate", directory, tmp_path / "log", lambda phase: None, FAKE)


def test_a_torn_line_is_left_for_later_and_a_strange_one_skipped(tmp_path):
    file = tmp_path / "events.jsonl"
    assert jobs.read_events(file) == ([], 0)
    file.write_bytes(b'{"type":"phase","words":"one"}\n{"type":"new-kind"}\nrubbish\n{"type":"phase","wo')
    events, offset = jobs.read_events(file)
    assert [event.words for event in events] == ["one"]
    with open(file, "ab") as out:
        out.write('rds":"zwei, drei …"}\n'.encode())
    events, offset = jobs.read_events(file, offset)
    assert [event.words for event in events] == ["zwei, drei …"]
    assert jobs.read_events(file, offset) == ([], file.stat().st_size)


def test_a_log_is_shown_as_plain_text(tmp_path):
    file = tmp_path / "worker.log"
    assert jobs.tail(file) == ""
    file.write_bytes(b"first\n\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\r\nbell\x07 \xff\nlast\n")
    assert jobs.tail(file).splitlines() == ["first", "red", "100%", "bell �", "last"]
    assert jobs.tail(file, 2).splitlines() == ["bell �", "last"]


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        ("Loading\nValueError: no such thing\n", None, "Its last words: ValueError: no such thing"),
        (
            "x.py:3: FutureWarning: old\n  warnings.warn(\n",
            None,
            "why: the system ends one for lack of memory",
        ),
        ("", None, "did not say why"),
        ("out of luck\n", 3, "ended with code 3. Its last words: out of luck"),
        ("torch.OutOfMemoryError: CUDA out of memory\n", None, "OutOfMemoryError"),
    ],
)
def test_a_library_s_warning_is_no_reason_why_an_engine_is_gone(tmp_path, log, code, words):
    (tmp_path / "worker.log").write_text(log)
    assert words in jobs.died(code, tmp_path / "worker.log")
