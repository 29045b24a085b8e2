"""What an engine tells the studio: one event, one JSON line in `events.jsonl`."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class Event(BaseModel):
    """What every event carries. `seq` counts from 0 in a run, `time` is UTC ISO 8601, `elapsed` monotonic seconds."""

    model_config = ConfigDict(extra="ignore")
    type: str
    seq: int = 0
    time: str = ""
    elapsed: float = 0.0


class Phase(Event):
    """A step of the work that has no training step yet: loading, tokenising. `done` and `total` in `unit`, if known."""

    type: Literal["phase"] = "phase"
    words: str
    done: float | None = None
    total: float | None = None
    unit: str = ""


Report = Callable[[Phase], None]  # how a long call tells its progress


def ignore(phase: Phase) -> None:
    """Report to nobody."""


class Started(Event):
    """Training begins: the plan is known. `tokens_per_epoch` counts real tokens, padding left out.

    With `resumed_from` it goes on after that step: whatever was told of later steps before is void, they come again.
    """

    type: Literal["started"] = "started"
    steps: int
    rows: int
    eval_rows: int
    tokens_per_epoch: int
    trainable_parameters: int
    device: str
    precision: str
    resumed_from: int | None = None
    settings: dict[str, Any] = {}


class Step(Event):
    """One optimizer step. `loss` is the mean over labelled tokens, `tokens` the real tokens so far, memory in bytes."""

    type: Literal["step"] = "step"
    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    memory_bytes: int


class Evaluated(Event):
    """Held-out loss at `step`; step 0 is the base model. `final` carries the base-against-adapter report."""

    type: Literal["evaluated"] = "evaluated"
    step: int
    loss: float
    best: bool = False
    final: dict[str, Any] | None = None


class Saved(Event):
    """Weights are on disk and verified. `path` is relative to the run directory: the adapter, or a checkpoint."""

    type: Literal["saved"] = "saved"
    step: int
    path: str
    bytes: int


class Sampled(Event):
    """What the model answers to fixed prompts after `step`; each answer has `prompt`, `expected` and `text`."""

    type: Literal["sampled"] = "sampled"
    step: int
    answers: list[dict[str, str]]


class Paused(Event):
    """The engine ends here and gives its memory back; `checkpoint` is where it goes on, relative to the run."""

    type: Literal["paused"] = "paused"
    step: int
    checkpoint: str = ""
    memory_bytes: int = 0  # what it held
    words: str = ""  # why, when nobody asked for it
    hint: str = ""


class Warned(Event):
    """Something the user should know. `rule` is the guard's that saw it, `did` what was done about it.

    `edit` is the change of settings that helps, as `group.key: value`, for a new run or for going on.
    """

    type: Literal["warned"] = "warned"
    words: str
    hint: str = ""
    step: int | None = None
    rule: str = ""
    did: Literal["told", "paused", "acted"] = "told"
    edit: dict[str, Any] = {}


class Failed(Event):
    type: Literal["failed"] = "failed"
    message: str
    hint: str = ""


class Finished(Event):
    """The run is over. `stopped` when the user ended it early. `result` is what `train --json` prints."""

    type: Literal["finished"] = "finished"
    step: int
    stopped: bool = False
    result: dict[str, Any] = {}


AnyEvent = Annotated[
    Phase | Started | Step | Evaluated | Sampled | Saved | Paused | Warned | Failed | Finished,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


def dump(event: Event) -> str:
    """Return the event as one JSON line, newline included."""
    return event.model_dump_json() + "\n"


def parse(line: str | bytes) -> AnyEvent | None:
    """Return the event of a line, or None when the line is torn or of an unknown type."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None
