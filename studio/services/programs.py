"""Answers for programs: the switch and the key, the names that can be asked for, and when there is no answer now."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from studio.domain.completions import ChatRequest, Refused
from studio.domain.errors import DataError, EngineError, StudioError, TooLong
from studio.domain.events import Phase
from studio.domain.records import Adapter, Model
from studio.services import jobs
from studio.services.chat import Chat, Done, Token
from studio.services.machine import Machine
from studio.services.runs import Runs
from studio.storage.locks import Lock
from studio.storage.paths import Home, write_atomic

log = logging.getLogger(__name__)
FILE = "api.json"
PREFIX = "sk-studio-"  # a form by which the data doctor, too, knows a key
WEIGHT = 1.25  # of a model's files: what it takes to load them and to answer
SOONEST, USUAL, LATEST = 5, 60, 600  # seconds after which to ask again


class Access(BaseModel):
    """Content of `api.json`: whether programs may ask, and the SHA-256 of the key, never the key itself."""

    on: bool = False
    key_sha256: str = ""
    made: str = ""


class Busy(StudioError):
    """There is no answer now; `seconds` says when to ask again."""

    def __init__(self, message: str, seconds: int = USUAL) -> None:
        super().__init__(message, f"Ask again in {seconds} seconds.")
        self.seconds = seconds


@dataclass(frozen=True)
class Voice:
    """Who can be asked: a base, alone or with an adapter. `names` are all a program may use, the full one first."""

    names: tuple[str, ...]
    model: Model
    adapter: Adapter | None = None

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def made(self) -> int:
        """When it was made or came here, in seconds since 1970."""
        if self.adapter and self.adapter.created:
            return int(datetime.fromisoformat(self.adapter.created).timestamp())
        return int(Path(self.model.path).stat().st_mtime)


class Programs:
    """Lets programs ask the models on this machine, through the chat's own engine."""

    def __init__(self, home: Home, chat: Chat, runs: Runs, machine: Machine, lock: Lock) -> None:
        self.chat, self.runs, self.machine, self.lock = chat, runs, machine, lock
        self.file = home.root / FILE

    @property
    def access(self) -> Access:
        """What the user chose. It is read each time, so that a change on the command line is one here."""
        try:
            return Access.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.warning("%s is not used: %s", self.file, type(error).__name__)
        return Access()

    @property
    def address(self) -> str:
        """Where programs ask the studio that is open; "" when none is."""
        holder = self.lock.holder()
        return f"{holder.address}/v1" if holder and holder.address and psutil.pid_exists(holder.pid) else ""

    def switch(self, on: bool) -> Access:
        """Let programs ask, or not."""
        return self._keep(self.access.model_copy(update={"on": on}))

    def new_key(self) -> str:
        """Make a key in place of the one before, and return it; it cannot be had again."""
        key = PREFIX + secrets.token_hex(24)
        self._keep(self.access.model_copy(update={"key_sha256": _digest(key), "made": jobs.now()}))
        return key

    def _keep(self, access: Access) -> Access:
        write_atomic(self.file, access.model_dump_json(indent=1), mode=0o600)
        return access

    def admit(self, key: str) -> None:
        """Refuse a program that has not the key, or all while the switch is off."""
        access = self.access
        if not access.on:
            raise Refused(
                "This studio does not answer programs.",
                "Switch it on in Settings, or with `peft-studio api on`.",
                status=404,
            )
        if not access.key_sha256 or not hmac.compare_digest(_digest(key), access.key_sha256):
            raise Refused(
                "The key is missing or wrong.",
                "Send `Authorization: Bearer KEY`; Settings and `peft-studio api key` make a new one.",
                code="invalid_api_key",
                status=401,
            )

    def voices(self) -> list[Voice]:
        """Return who can be asked: each base, then its adapters, the newest first."""
        return [voice for model in self.chat.bases() for voice in self._voices(model)]

    def _voices(self, model: Model) -> Iterator[Voice]:
        yield Voice((model.id,), model)
        for adapter in self.chat.adapters_of(model):
            numbers = [f"@v{adapter.version}", f"@{adapter.version}", *([""] if adapter.active else [])]
            short = [adapter.name + number for number in numbers]
            yield Voice((*(f"{model.id}:{name}" for name in short), *short), model, adapter)

    def find(self, name: str) -> Voice:
        """Return who is meant by `base`, `base:adapter`, `base:adapter@v2`, or an adapter alone."""
        found = next((voice for voice in self.voices() if name in voice.names), None)
        if found is None:
            raise Refused(
                f"There is no model {name}.", "`GET /v1/models` lists those there are.", "model", "model_not_found", 404
            )
        return found

    def answer(self, voice: Voice, asked: ChatRequest) -> Generator[Token | Done]:
        """Stream the answer of one of them; closing it stops the answer."""
        self._refuse_while_training(voice.model)
        try:
            for piece in self.chat.answer(voice.model, voice.adapter, asked.talk(), **asked.sampling()):
                if not isinstance(piece, Phase):
                    yield piece
        except EngineError as error:
            if error.kind == TooLong.__name__:
                raise Refused(error.message, "Shorten it.", "messages", "context_length_exceeded") from error
            if error.kind == DataError.__name__:  # the template takes no such conversation
                raise Refused(error.message, error.hint, "messages") from error
            if wait := self._training():
                raise Busy(
                    f"A run is training, and the model could not answer beside it. {error.message}", wait
                ) from error
            raise

    def _training(self) -> int:
        """Return in how many seconds the first run that is at work may have ended; 0 when none is."""
        working = [run for run in self.runs.list() if run.status.working]
        ends = [run.seconds_left[0] for run in working if run.seconds_left]
        return int(min(LATEST, max(SOONEST, min(ends, default=USUAL)))) if working else 0

    def _refuse_while_training(self, model: Model) -> None:
        """Refuse to load a model for which a run leaves no room: it would take the memory of one of them."""
        if self.chat.loaded == model.id:
            return
        wait, live = self._training(), self.machine.live()
        free = live.memory_free_bytes if live.gpu_free_bytes is None else live.gpu_free_bytes
        if wait and WEIGHT * model.bytes > free + (self.chat.memory_bytes or 0):
            raise Busy(f"A run is training and leaves no room for {model.id}.", wait)


def full_name(model: Model, adapter: Adapter) -> str:
    """Return the name that programs ask for, here and where else the adapter is served."""
    return f"{model.id}:{adapter.ref}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
