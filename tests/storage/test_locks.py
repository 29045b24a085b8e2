"""One studio serves a home folder: the second is told which, and a dead one holds nothing."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from studio.domain.errors import StudioError, Taken
from studio.storage.locks import Lock
from studio.storage.paths import Home

ROOT = Path(__file__).parents[2]
OTHER = """
import subprocess, sys
from studio.storage.locks import Lock
from studio.storage.paths import Home
lock = Lock(Home())
lock.take()
lock.tell("http://127.0.0.1:7999", 1)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=2)  # lives on, as an engine
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of this home and has started a third one."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.communicate()
    os.kill(child, signal.SIGKILL)


def test_the_second_is_told_process_host_and_address(home: Home, other: subprocess.Popen[str]) -> None:
    with pytest.raises(Taken) as refused:
        Lock(home).take()
    for word in (f"process {other.pid}", socket.gethostname(), "at http://127.0.0.1:7999", str(home.root)):
        assert word in refused.value.message
    assert refused.value.address == "http://127.0.0.1:7999"
    assert "PEFT_STUDIO_HOME" in refused.value.hint
    holder = Lock(home).holder()
    assert holder
    assert holder.pid == other.pid  # the refused one changed nothing


def test_a_killed_studio_holds_nothing_although_its_engine_lives_on(home: Home, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    lock = Lock(home)
    lock.take()
    holder = lock.holder()
    assert holder
    assert (holder.pid, holder.address) == (os.getpid(), "")
    lock.release()
    assert lock.holder() is None


def test_a_page_built_anew_in_the_same_process_is_no_second_studio(home: Home) -> None:
    Lock(home).take()
    Lock(home).take()
    Lock(home).release()


@pytest.mark.parametrize("text", ["", "{", json.dumps({"pid": "?"}), None])
def test_a_damaged_record_does_not_hide_the_refusal(home: Home, other: subprocess.Popen[str], text: str | None) -> None:
    record = home.root / "serving.json"
    record.unlink()
    if text is not None:
        record.write_text(text)
    with pytest.raises(Taken, match="Another PEFT Studio serves the home folder"):
        Lock(home).take()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_refused_in_words(home: Home, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(fd: int) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", fail)
    with pytest.raises(StudioError, match="cannot be locked") as refused:
        Lock(home).take()
    assert "local disk" in refused.value.hint
