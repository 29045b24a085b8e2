"""An engine process that serves requests about one model: started when asked, replaced when it is gone."""

import atexit
import json
import logging
import queue
import subprocess
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.domain.errors import EngineError
from studio.domain.records import Model
from studio.services import jobs
from studio.storage.paths import Home

log = logging.getLogger(__name__)
LOG_LIMIT = 5_000_000  # bytes; a longer log is started anew
Line = dict[str, Any]


class Gone(Exception):
    """The engine's output ended."""


class Engine:
    """One engine process with one model: requests go in, its lines come out through a queue."""

    def __init__(self, job: str, model: Model, home: Home, command: Sequence[str]) -> None:
        self.model = model
        self.log = home.logs / f"{job}.log"
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.unlink()
        self.process = jobs.spawn(job, Path(model.path), self.log, command=command, pipes=True)
        self.ready = False
        self.dismissed = False  # ended by us
        self.memory_bytes: int | None = None
        self.quantization = "none"
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._write = threading.Lock()
        # always drained, so that the engine never waits for a reader who has gone
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self.dismissed and self.process.poll() is None

    def send(self, **request: Any) -> None:
        """Write one request. That the engine is gone shows in `next`."""
        assert self.process.stdin
        with suppress(OSError, ValueError), self._write:  # a broken pipe, a closed one
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        """Wait for the engine's next line."""
        line = self._lines.get()
        if line is None:
            self._lines.put(None)  # whoever asks again hears the same
            raise Gone
        return line

    def wake(self) -> None:
        """Let the reader that waits in `next` look up."""
        self._lines.put({"type": "wake"})

    def dismiss(self) -> None:
        """Ask the engine to exit, and end it if it does not."""
        self.dismissed = True
        self.send(do="stop")  # it exits after the answer it is at
        self.send(do="exit")
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            jobs.end(self.process.pid)

    def why(self) -> EngineError:
        """Return the reason of the engine's death, and put its last words into the log."""
        if self.dismissed:
            return EngineError("The model was unloaded while it answered.", "Ask again to load it.")
        code = self.process.wait()
        log.error("The engine in %s ended with code %s:\n%s", self.log.name, code, jobs.tail(self.log, 20))
        return EngineError(jobs.died(code, self.log), f"Ask again to start it anew. The log is in {self.log}.")

    def _read(self) -> None:
        assert self.process.stdout
        for text in self.process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # something a library printed
            if line.get("type") in ("ready", "done"):
                self.ready = True
                self.memory_bytes = line.get("memory_bytes")
                self.quantization = line.get("quantization", self.quantization)
            self._lines.put(line)
        self._lines.put(None)


class Server:
    """At most one engine for a job, with the model that was asked last. Callers take `turn`; `stop` needs none."""

    def __init__(self, job: str, home: Home, command: Sequence[str]) -> None:
        self.job, self.home, self.command = job, home, command
        self.turn = threading.Lock()
        self.engine: Engine | None = None
        self.stopped = threading.Event()
        self._id = 0
        atexit.register(self.unload)

    def ask(self, model: Model, request: Line) -> Generator[Line]:
        """Yield phases of loading, then the lines that answer a request, the last of type "done".

        Without one it was stopped before the engine was ready. Raise EngineError with what went wrong.
        """
        self.stopped.clear()
        self._id += 1
        yield from self._ask(model, request | {"id": self._id})

    def _ask(self, model: Model, request: Line) -> Generator[Line]:
        engine = self.engine
        if engine is None or not engine.alive or engine.model.path != model.path:
            self.unload()
            engine = self.engine = Engine(self.job, model, self.home, self.command)
        was_ready = engine.ready
        try:
            yield from self._loading(engine)
            if not self.stopped.is_set():
                yield from self._streaming(engine, request)
            return
        except Gone:
            # a model that nobody asked for some minutes unloads itself, perhaps in the moment of this request
            if not was_ready or engine.dismissed or engine.process.wait():
                raise engine.why() from None
        yield from self._ask(model, request)

    def stop(self) -> None:
        """End the answer being written; what is written so far stays."""
        self.stopped.set()
        if engine := self.engine:
            engine.send(do="stop")
            engine.wake()

    def unload(self) -> None:
        """Free the memory the engine takes. The next request starts one again."""
        engine, self.engine = self.engine, None
        if engine:
            engine.dismiss()

    def _loading(self, engine: Engine) -> Generator[Line]:
        while not engine.ready and not self.stopped.is_set():
            line = engine.next()
            if line["type"] == "phase":
                yield line
            elif line["type"] == "error":
                self.unload()
                raise _told(line)

    def _streaming(self, engine: Engine, request: Line) -> Generator[Line]:
        engine.send(**request)
        over = False
        try:
            if self.stopped.is_set():  # asked in the moment before the request was out
                engine.send(do="stop")
            while not over:
                line = engine.next()
                if line.get("id") not in (None, request["id"]):  # of an answer whose reader has gone
                    continue
                over = line["type"] in ("done", "error")
                if line["type"] == "error":
                    raise _told(line)
                if line["type"] not in ("ready", "wake"):
                    yield line
        except Gone:
            over = True
            raise
        finally:
            if not over:
                engine.send(do="stop")  # the reader has gone


def _told(line: Line) -> EngineError:
    return EngineError(line["message"], line.get("hint", ""), line.get("kind", ""))
