"""The things the studio keeps a list of: models, data sets, runs, adapters."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel


class Status(StrEnum):
    """The states of a run, one word each; the same words in the page, the CLI and the docs."""

    QUEUED = "queued"
    STARTING = "starting"
    TRAINING = "training"
    PAUSED = "paused"
    EVALUATING = "evaluating"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"

    @property
    def active(self) -> bool:
        """Whether an engine process is, or soon will be, at work."""
        return self in (Status.QUEUED, Status.STARTING, Status.TRAINING, Status.EVALUATING)

    @property
    def working(self) -> bool:
        """Whether an engine process is at work."""
        return self.active and self is not Status.QUEUED


class Model(BaseModel):
    """A base model on this machine. `revision` is the Hub commit, or the sha256 of the source file."""

    id: str
    path: str
    source: str
    revision: str = ""
    sha256: str = ""
    parameters: int = 0
    context: int = 0
    licence: str = ""
    bytes: int = 0


class Dataset(BaseModel):
    """A data set in the home folder; its examples are in `train.jsonl` and `eval.jsonl` of its folder."""

    id: str
    name: str
    path: str
    source: str
    sha256: str
    format: str
    kind: Literal["chat", "text"]
    map: dict[str, str] = {}
    rows: int
    usable: int
    train_rows: int
    eval_rows: int
    repairs: list[str] = []
    created: str


class Difference(BaseModel):
    """What a repair does to a row, shortened to where it differs; without `after` the row is left out.

    `like` is the row it nearly repeats, `like_text` the text of that one.
    """

    row: int
    before: str
    after: str | None = None
    like: int = 0
    like_text: str = ""


class Finding(BaseModel):
    """One kind of fault in the rows of a file: how many have it, the first ones, why it hurts and what to do.

    `repair` is the name of the repair that ends it, as `data repair --fix` and an import take it; empty when only a
    person can. `about`: the count is estimated from a sample of the rows. `unusable`: how many of them cannot be used
    before the repair.
    """

    kind: str
    title: str
    count: int
    about: bool = False
    unusable: int = 0
    rows: list[int]
    why: str
    remedy: str
    repair: str = ""
    examples: list[Difference] = []


class Run(BaseModel):
    """A training run, read back from its directory. Times are UTC ISO 8601, durations seconds, memory bytes."""

    id: str
    name: str
    path: str
    status: Status
    model: str
    dataset: str
    method: str
    created: str
    started: str | None = None
    ended: str | None = None
    phase: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    base_loss: float | None = None
    learning_rate: float | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    seconds: float = 0.0
    seconds_left: tuple[float, float] | None = None
    checkpoint: int | None = None  # the step it can be resumed from, when it has ended before its last one
    since: str | None = None  # in the queue; without it a queued run is only prepared and does not start by itself
    priority: int = 0  # in the queue, the higher first
    after: str | None = None  # the run that has to end first
    adapter: str | None = None
    error: str = ""
    hint: str = ""
    result: dict[str, Any] = {}


class Adapter(BaseModel):
    """Version N of a named adapter; `ref` is what commands take: name@vN. Version 0: a folder outside the studio.

    `held` says why a version was not made active when it was made. `lineage` is what it came from. `exports` is the
    last thing made of it in each form: format, weights, path, at, parity.
    """

    name: str
    version: int
    path: str
    base: str
    base_path: str
    run: str
    step: int | None = None  # where it was kept from an earlier step of its run than the one the run kept
    method: str
    created: str
    bytes: int
    active: bool = False
    archived: bool = False
    note: str = ""
    tags: list[str] = []
    held: str = ""
    lineage: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    exports: list[dict[str, Any]] = []

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}" if self.version else self.path
