"""Talking with a model: one engine process holds the base, answers stream from it one after the other."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Literal

from pydantic import BaseModel

from studio.domain.errors import ModelError, StudioError
from studio.domain.events import Phase
from studio.domain.records import Adapter, Model
from studio.services import jobs
from studio.services.adapters import Adapters, base_of
from studio.services.models import Models
from studio.services.serving import Server
from studio.storage.paths import Home

SHRUNK = "It is held in 4 bits, as the memory is short: it answers slower, and not quite as it would."


class Token(BaseModel):
    """The next piece of an answer. `lane` is the place of who answers among those asked."""

    type: Literal["token"] = "token"
    lane: int = 0
    text: str


class Done(BaseModel):
    """An answer is complete, or was stopped. `swap_seconds` is what it took to change the adapter.

    `finish` is "length" when there was no more room for it, `prompt_tokens` what the model read.
    """

    type: Literal["answer"] = "answer"
    lane: int = 0
    text: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None
    swap_seconds: float | None = None
    memory_bytes: int | None = None
    stopped: bool = False
    finish: str = "stop"


class Chat:
    """Answers by one model at a time, with any of its adapters. Requests queue; `stop` may come from any thread."""

    def __init__(self, home: Home, models: Models, adapters: Adapters, command: Sequence[str] = jobs.ENGINE) -> None:
        self.models, self.adapters = models, adapters
        self.server = Server("chat", home, command)
        self.stop, self.unload = self.server.stop, self.server.unload

    @property
    def loaded(self) -> str | None:
        """The id of the model in memory, if there is one."""
        engine = self.server.engine
        return engine.model.id if engine and engine.ready and engine.alive else None

    @property
    def memory_bytes(self) -> int | None:
        engine = self.server.engine
        return engine.memory_bytes if engine and self.loaded else None

    @property
    def shrunk(self) -> bool:
        """Whether the model in memory is held in fewer bits than it has, as the memory was short."""
        engine = self.server.engine
        return bool(engine and self.loaded and engine.quantization != "none")

    def bases(self) -> list[Model]:
        """Return the models on this machine, and those that adapters were made on."""
        models = self.models.list()
        known = {model.path for model in models}
        for adapter in self.adapters.list():
            if not any(belongs(adapter, model) for model in models):
                with suppress(StudioError):  # the folder is there, but no model any more
                    found = self.models.find(adapter.base_path)
                    if found and found.path not in known:
                        models.append(found)
                        known.add(found.path)
        return models

    def adapters_of(self, model: Model) -> list[Adapter]:
        """Return a model's adapters, the newest first."""
        mine = [adapter for adapter in self.adapters.list() if belongs(adapter, model)]
        return sorted(mine, key=lambda adapter: adapter.created, reverse=True)

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
        stop: Sequence[str] = (),
    ) -> Iterator[Phase | Token | Done]:
        """Stream the answer to `messages`. Without a model, the adapter's own base; closing the iterator stops it.

        An answer ends before a word in `stop`, which is not part of it.
        """
        yield from self.answers(
            model,
            [(adapter, messages)],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )

    def answers(
        self,
        model: Model | str | None,
        lanes: Sequence[tuple[Adapter | str | None, list[dict[str, str]]]],
        **sampling: Any,
    ) -> Iterator[Phase | Token | Done]:
        """Stream the answers of several, each to its own messages: side by side where the adapters allow it.

        Each lane ends with its Done; all take the options of `answer`.
        """
        worn = [self.adapters.get(adapter) if isinstance(adapter, str) else adapter for adapter, _ in lanes]
        base = self._base(model, worn[0])
        for other in worn[1:]:
            self._base(base, other)
        if self.server.turn.locked():
            yield Phase(words="Waiting for the answer before this one")
        asked = [
            {"adapter": adapter.path if adapter else None, "messages": messages}
            for adapter, (_, messages) in zip(worn, lanes, strict=True)
        ]
        with self.server.turn:
            last = yield from self._answers(base, {"do": "answer", "lanes": asked, **sampling}, len(lanes))
        yield from last  # outside the turn: a reader who forgets us after it blocks nobody

    def _answers(
        self, base: Model, request: dict[str, Any], number: int
    ) -> Generator[Phase | Token | Done, None, list[Done]]:
        """Yield what comes; return the ends of the last lane and of those that were stopped before their turn."""
        waiting = {lane: Done(lane=lane, stopped=True) for lane in range(number)}
        with closing(self.server.ask(base, request)) as lines:
            for line in lines:
                if line["type"] == "answer":
                    done = Done.model_validate(line)
                    waiting.pop(done.lane)
                    if waiting:
                        yield done
                    else:
                        last = [done]
                elif line["type"] != "done":
                    yield Phase.model_validate(line) if line["type"] == "phase" else Token.model_validate(line)
        return list(waiting.values()) or last

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
        if adapter and not belongs(adapter, model):
            raise ModelError(
                f"{adapter.ref} was trained on {adapter.base}, not on {model.id}.",
                "Choose that model, or another adapter.",
            )
        return model


def belongs(adapter: Adapter, model: Model) -> bool:
    """Whether an adapter was made on this model."""
    return adapter.base_path == model.path or adapter.base == model.id
