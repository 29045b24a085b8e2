"""What an engine leaves in its directory, and finds there: events, its process, settings, wishes of the studio."""

import errno
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import yaml
from filelock import FileLock

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.document import from_document, with_edit

MEETING = "PEFT_STUDIO_MEETING"  # in a run of several processes, the file where they meet; only such a process has it
HANDOVER = 30.0  # seconds an engine waits for the one before it to let go of the run

LOG_MOST, LOG_KEPT = 50_000_000, 1_000_000  # bytes of a log, and of its beginning that stay when it is cut
LOOK = 5.0  # seconds between two looks at the log

_held: list[FileLock] = []  # for as long as this process lives


def sole(directory: Path) -> None:
    """Become the one engine of a directory until this process ends, or raise `filelock.Timeout`.

    An engine that was paused or ended may need a moment more, so this waits. The studio starts no second one; somebody
    at a keyboard may, and two would write the same events and checkpoints.
    """
    lock = FileLock(directory / "engine.lock", timeout=HANDOVER, thread_local=False, fallback_to_soft=False)
    lock.acquire()
    _held.append(lock)


def bound_log() -> None:
    """Cut the log this process writes to whenever a library floods it; a full disk would end other runs too."""

    def watch() -> None:
        while True:
            time.sleep(LOOK)
            about = os.fstat(2)
            if stat.S_ISREG(about.st_mode) and about.st_size > LOG_MOST:
                os.ftruncate(2, LOG_KEPT)  # opened to append: what comes next stands behind
                os.write(2, f"\n[{about.st_size - LOG_KEPT:,} bytes of the log were cut here]\n".encode())

    threading.Thread(target=watch, daemon=True).start()


class Reporter:
    """Appends events to `events.jsonl` of one directory; the only writer of that file. A silent one writes nothing."""

    def __init__(self, directory: Path, silent: bool = False) -> None:
        self.directory, self.silent = directory, silent
        self.path = directory / "events.jsonl"
        self.seq = self._mend()
        self.begin = time.monotonic()
        self._phase = 0.0

    def _mend(self) -> int:
        """End a torn last line, so that the next event starts a line of its own; return the next number."""
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            with open(self.path, "ab") as file:
                file.write(b"\n")
        return len(lines)

    def emit(self, event: events.Event) -> None:
        """Write one event, numbered and timed."""
        if self.silent:
            return
        event.seq, self.seq = self.seq, self.seq + 1
        event.time = datetime.now(UTC).isoformat(timespec="milliseconds")
        event.elapsed = round(time.monotonic() - self.begin, 3)
        with open(self.path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                _whole(file, events.dump(event).encode())
            except OSError:  # the disk is full: half a line would spoil the next one
                file.truncate(size)
                raise

    def phase(self, words: str, done: float | None = None, total: float | None = None, unit: str = "") -> None:
        """Say what is going on; counts come at most twice a second."""
        now = time.monotonic()
        if done and done != total and now - self._phase < 0.5:
            return
        self._phase = now
        self.emit(events.Phase(words=words, done=done, total=total, unit=unit))


class Wishes:
    """What the studio asks of a run by files in `control`, and the system by a signal.

    `agree` is told what this process sees and returns what all processes of the run see, which all must ask together.
    """

    def __init__(self, directory: Path, agree: Callable[[bool], bool] = bool) -> None:
        self.control, self.agree = directory / "control", agree
        self.terminated = False

    def listen(self) -> None:
        """Take SIGTERM for a wish to pause; a second one ends the process at once."""
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: Any) -> None:
        if self.terminated and MEETING not in os.environ:  # else it may be the same one, passed on
            os._exit(128 + number)
        self.terminated = True

    def stop(self) -> bool:
        return self.agree((self.control / "stop").exists())

    def pause(self) -> bool:
        return self.agree(self.terminated or (self.control / "pause").exists())

    def save(self) -> bool:
        """Whether a checkpoint is asked for; a wish is heard once."""
        try:
            (self.control / "checkpoint").unlink()
        except FileNotFoundError:
            return self.agree(False)
        return self.agree(True)


def settings(directory: Path) -> TrainingConfig:
    """The settings of a run directory, with those changed when it was resumed."""
    document = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    edit = directory / "control" / "edit.json"
    if edit.exists():
        document = with_edit(document, json.loads(edit.read_text(encoding="utf-8")))
    return from_document(document)


def _whole(file: Any, data: bytes) -> None:
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def identify(directory: Path) -> None:
    """Write who we are, so that a studio adopts this process and never a recycled pid."""
    process = psutil.Process()
    facts = {
        "pid": process.pid,
        "started": process.create_time(),
        "token": os.environ.get("PEFT_STUDIO_TOKEN", ""),
    }
    write_json(directory / "process.json", facts)


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    os.replace(temporary, path)
