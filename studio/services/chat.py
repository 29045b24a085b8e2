"""Talking with a model: one engine process holds the base, answers stream from it one after the other."""

import atexit
import json
import logging
import queue
import subprocess
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from studio.domain.errors import EngineError, ModelError
from studio.domain.events import Phase
from studio.domain.records import Adapter, Model
from studio.services import jobs
from studio.services.adapters import Adapters, base_of
from studio.services.models import Models
from studio.storage.paths import Home

log = logging.getLogger(__name__)
LOG_LIMIT = 5_000_000  # bytes; a longer chat.log is started anew


class Token(BaseModel):
    """The next piece of an answer."""

    type: Literal["token"] = "token"
    text: str


class Done(BaseModel):
    """An answer is complete, or was stopped. `swap_seconds` is what it took to change the adapter."""

    type: Literal["done"] = "done"
    text: str = ""
    tokens: int = 0
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None
    swap_seconds: float | None = None
    memory_bytes: int | None = None
    stopped: bool = False


class Gone(Exception):
    """The engine's output ended."""


class Engine:
    """One engine process with one base model: requests go in, its lines come out through a queue."""

    def __init__(self, model: Model, home: Home, command: Sequence[str]) -> None:
        self.model = model
        self.log = home.logs / "chat.log"
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.unlink()
        self.process = jobs.spawn("chat", Path(model.path), self.log, command=command, pipes=True)
        self.ready = False
        self.dismissed = False  # ended by us
        self.memory_bytes: int | None = None
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
        log.error("The chat engine ended with code %s:\n%s", code, jobs.tail(self.log, 20))
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
            self._lines.put(line)
        self._lines.put(None)


class Chat:
    """Answers by one model at a time, with any of its adapters. Requests queue; `stop` may come from any thread."""

    def __init__(self, home: Home, models: Models, adapters: Adapters, command: Sequence[str] = jobs.ENGINE) -> None:
        self.home, self.models, self.adapters, self.command = home, models, adapters, command
        self._turn = threading.Lock()
        self._engine: Engine | None = None
        self._stop = threading.Event()
        self._id = 0
        atexit.register(self.unload)

    @property
    def loaded(self) -> str | None:
        """The id of the model in memory, if there is one."""
        engine = self._engine
        return engine.model.id if engine and engine.ready and engine.alive else None

    @property
    def memory_bytes(self) -> int | None:
        return self._engine.memory_bytes if self._engine and self.loaded else None

    def answer(
        self,
        model: Model | str | None,
        adapter: Adapter | str | None,
        messages: list[dict[str, str]],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int | None = None,
    ) -> Iterator[Phase | Token | Done]:
        """Stream the answer to `messages`. Without a model, the adapter's own base; closing the iterator stops it."""
        worn = self.adapters.get(adapter) if isinstance(adapter, str) else adapter
        base = self._base(model, worn)
        if self._turn.locked():
            yield Phase(words="Waiting for the answer before this one")
        with self._turn:
            self._stop.clear()
            self._id += 1
            request = {
                "do": "answer",
                "id": self._id,
                "adapter": worn.path if worn else None,
                "messages": messages,
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "seed": seed,
            }
            done = yield from self._answer(base, request)
        yield done  # outside the turn: a reader who forgets us after it blocks nobody

    def stop(self) -> None:
        """End the answer being written; what is written so far stays."""
        self._stop.set()
        if engine := self._engine:
            engine.send(do="stop")
            engine.wake()

    def unload(self) -> None:
        """Free the memory the model takes. The next question loads it again."""
        engine, self._engine = self._engine, None
        if engine:
            engine.dismiss()

    def _base(self, model: Model | str | None, adapter: Adapter | None) -> Model:
        if isinstance(model, str):
            found = self.models.find(model)
            if found is None:
                raise ModelError(f"{model} is not on this machine.", f"`peft-studio models fetch {model}` gets it.")
            model = found
        if model is None:
            if adapter is None:
                raise ModelError("Neither a model nor an adapter is named.", "Name one, for example `starter`.")
            return base_of(adapter, self.models)
        if adapter and model.path != adapter.base_path and model.id != adapter.base:
            raise ModelError(
                f"{adapter.ref} was trained on {adapter.base}, not on {model.id}.",
                "Choose that model, or another adapter.",
            )
        return model

    def _answer(self, base: Model, request: dict[str, Any]) -> Generator[Phase | Token, None, Done]:
        engine = self._engine
        if engine is None or not engine.alive or engine.model.path != base.path:
            self.unload()
            engine = self._engine = Engine(base, self.home, self.command)
        was_ready = engine.ready
        try:
            yield from self._loading(engine)
            if self._stop.is_set():
                return Done(stopped=True)
            return (yield from self._streaming(engine, request))
        except Gone:
            # a model that nobody asked for some minutes unloads itself, perhaps in the moment of this question
            if not was_ready or engine.dismissed or engine.process.wait():
                raise engine.why() from None
        return (yield from self._answer(base, request))

    def _loading(self, engine: Engine) -> Iterator[Phase]:
        while not engine.ready and not self._stop.is_set():
            line = engine.next()
            if line["type"] == "phase":
                yield Phase.model_validate(line)
            elif line["type"] == "error":
                self.unload()
                raise EngineError(line["message"], line.get("hint", ""))

    def _streaming(self, engine: Engine, request: dict[str, Any]) -> Generator[Phase | Token, None, Done]:
        engine.send(**request)
        over = False
        try:
            if self._stop.is_set():  # asked in the moment before the request was out
                engine.send(do="stop")
            while True:
                line = engine.next()
                mine = line.get("id") in (None, request["id"])  # else of an answer whose reader has gone
                match line["type"]:
                    case "phase":
                        yield Phase.model_validate(line)
                    case "token" if mine:
                        yield Token.model_validate(line)
                    case "done" if mine:
                        over = True
                        return Done.model_validate(line)
                    case "error" if mine:
                        over = True
                        raise EngineError(line["message"], line.get("hint", ""))
        except Gone:
            over = True
            raise
        finally:
            if not over:
                engine.send(do="stop")  # the reader has gone
