"""How the finished runs went against what was said before: it corrects what is said of the next ones."""

import json
import statistics
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from studio.domain.quote import Quote
from studio.domain.records import Run, Status

LEAST = 0.1  # share of the processors that is counted as left at least: under that nothing is certain


class Past(BaseModel):
    """One finished run, or one that was tried. `memory` and `others` are actual by quoted, where that is known.

    `speed` is operations a second in its steps, as `free` says it.
    """

    key: tuple[str, str, str]  # model, method, quantisation
    device: str
    parameters: int
    memory: dict[Literal["rough", "calculated"], float]  # by how the peak was foretold
    others: float | None  # of the time around the steps
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
        memory={"rough" if said.memory_basis == "rough" else "calculated": peak / said.uncorrected_bytes},
        others=max(0.0, run.seconds - took) / around,
        speed=free(said.work / said.tokens * tokens / took, run.result.get("others_share") or 0.0),
    )


def free(speed: float, others: float) -> float:
    """Return the speed on a machine of its own of what reached this one while others took a share of the processors."""
    return speed / max(LEAST, 1 - others)


@lru_cache(maxsize=1024)
def quoted(path: str, created: str) -> Quote | None:
    """Return what was said of the run in this folder, made at that time, before it started."""
    try:
        return Quote.model_validate(json.loads((Path(path) / "lineage.json").read_bytes())["quote"])
    except (OSError, ValueError, KeyError, ValidationError):
        return None


def correction(past: Iterable[Past], basis: Literal["rough", "calculated"]) -> float:
    """Return by what a peak foretold in this way has to be multiplied."""
    return statistics.median([each.memory[basis] for each in past if basis in each.memory] or [1.0])


def slower_around(past: Iterable[Past]) -> float:
    """Return by what the time foretold around the steps has to be multiplied."""
    return statistics.median([each.others for each in past if each.others] or [1.0])
