"""A run's largest step, traced or done by an engine before the run starts; what was measured is remembered."""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from studio.domain.document import to_yaml
from studio.domain.events import Report, ignore
from studio.domain.quote import Quote
from studio.services import jobs
from studio.services.past import Past
from studio.services.prepare import Resolved
from studio.storage.paths import Home, write_atomic

KEPT = 200  # measurements
STEPS = 10  # that take as long as what is tried: a warming up, five steps, a check and the fixed questions
PASTS = TypeAdapter(list[Past])


class Traced(BaseModel):
    """Bytes of the largest step by part."""

    parts: dict[str, int]
    again: int


class Side(BaseModel):
    """Seconds to look at a token and to read all questions, with the base or with an adapter.

    A token of all answers takes `a_turn`, and `a_token` for each answer that has not ended.
    """

    look: float
    read: float
    a_turn: float
    a_token: float

    def answers(self, words: float, room: float) -> float:
        """Seconds for answers of so many tokens together, the longest of them of `room`."""
        return self.read + room * self.a_turn + words * self.a_token


class Compared(BaseModel):
    """Seconds of the comparison at the end: to load, and those of either side."""

    load: float
    base: Side
    adapter: Side


class Measured(BaseModel):
    """The peak in bytes; seconds to load, for each step besides its work, of the first step besides, for a check.

    `speed` is operations a second, `others` the share of the processors that other programs took meanwhile.
    """

    peak: int
    again: int
    others: float = 0.0
    load: float
    a_step: float
    speed: float
    first: float = 0.0
    check: float
    compared: Compared | None = None


class Trial(BaseModel):
    """What the measure job found. Tokens, squared lengths and labels are those of all steps together."""

    steps: int
    tokens: int
    squares: int
    labels: int
    held: int
    held_tokens: int
    answer: int  # tokens of the longest answer to a held-out question
    answers: float = 0.0  # and of the mean one
    traced: Traced | None = None
    untraced: str = ""
    measured: Measured | None = None


def seconds(quote: Quote) -> float:
    """Return about how long measuring will take for a run of this quote."""
    return 2 * quote.load_seconds + STEPS * quote.train_seconds / max(1, quote.steps)


def run(
    home: Home,
    resolved: Resolved,
    steps: bool,
    report: Report = ignore,
    command: Sequence[str] = jobs.ENGINE,
) -> Trial:
    """Let an engine trace the largest step, and with `steps` do it and some others."""
    for left in home.cache.glob("measure-*"):  # of a process that was killed
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="measure-", dir=home.cache) as folder:
        work = Path(folder)
        write_atomic(work / "config.yaml", to_yaml(resolved.config))
        lineage = {"model": resolved.model.model_dump(), "dataset": resolved.dataset.model_dump()}
        write_atomic(work / "lineage.json", json.dumps(lineage))
        write_atomic(work / "request.json", json.dumps({"steps": steps}))
        jobs.run("measure", work, home.logs / "measure.log", report, command)
        return Trial.model_validate_json((work / "result.json").read_bytes())


def remembered(home: Home) -> list[Past]:
    """Return what was measured on this home's machine, the newest first."""
    with suppress(OSError, ValidationError):
        return PASTS.validate_json((home.root / "measured.json").read_bytes())
    return []


def remember(home: Home, past: Past) -> None:
    kept = [past, *remembered(home)][:KEPT]
    write_atomic(home.root / "measured.json", PASTS.dump_json(kept).decode())
