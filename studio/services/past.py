"""How the finished runs went against what was said before: it corrects what is said of the next ones."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from studio.domain.quote import Quote
from studio.domain.records import Run, Status


@dataclass(frozen=True)
class Past:
    """One finished run. `memory` and `others` are actual by quoted, `speed` is operations a second in its steps."""

    key: tuple[str, str, str]  # model, method, quantisation
    device: str
    parameters: int
    memory: float
    others: float  # of the time around the steps
    speed: float


def past_of(runs: Iterable[Run]) -> list[Past]:
    """Return the finished runs that were quoted, the newest first."""
    found = (_past(run) for run in runs if run.status is Status.FINISHED)
    return [each for each in found if each]


def _past(run: Run) -> Past | None:
    said = quoted(run.path, run.created)
    took, peak, tokens = (run.result.get(key) or 0 for key in ("train_seconds", "peak_memory_bytes", "real_tokens"))
    if not said or not (took and peak and tokens and said.tokens):
        return None
    # what is done besides training is as fast as training is
    faster = took / tokens * said.tokens / said.train_seconds
    around = said.load_seconds + (said.seconds - said.train_seconds - said.load_seconds) * faster
    return Past(
        key=(run.model, run.method, said.quantization),
        device=said.device,
        parameters=said.parameters,
        memory=peak / said.uncorrected_bytes,
        others=max(0.0, run.seconds - took) / around,
        speed=said.work / said.tokens * tokens / took,
    )


@lru_cache(maxsize=1024)
def quoted(path: str, created: str) -> Quote | None:
    """Return what was said of the run in this folder, made at that time, before it started."""
    try:
        return Quote.model_validate(json.loads((Path(path) / "lineage.json").read_bytes())["quote"])
    except (OSError, ValueError, KeyError, ValidationError):
        return None
