"""What an engine leaves in its directory: events, its process, the word to stop."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from studio.domain import events

MEETING = "PEFT_STUDIO_MEETING"  # in a run of several processes, the file where they meet; only such a process has it


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
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(events.dump(event))

    def phase(self, words: str, done: float | None = None, total: float | None = None, unit: str = "") -> None:
        """Say what is going on; counts come at most twice a second."""
        now = time.monotonic()
        if done and done != total and now - self._phase < 0.5:
            return
        self._phase = now
        self.emit(events.Phase(words=words, done=done, total=total, unit=unit))

    def stop_asked(self) -> bool:
        return (self.directory / "control" / "stop").exists()


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
