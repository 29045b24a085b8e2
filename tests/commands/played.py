"""The command line on an engine that plays a plan: for tests in this process, and as `played.py ARGUMENTS` in another.

The plan is the JSON in PLAN; without it a run of three steps ends well.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import studio.studio
from studio import cli
from studio.domain.records import Model, Run
from studio.services.models import RECORD
from studio.storage.paths import Home

FAKE = (sys.executable, str(Path(__file__).parents[1] / "services" / "fake_engine.py"))
ROWS = "".join(f"How do I reset number {n}?,Hold button {n} for {n} seconds.\n" for n in range(40))

_FIGURES = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 500, "trainable_parameters": 3_000_000}
STARTED = {"emit": {"type": "started", "steps": 3, **_FIGURES, "device": "cpu", "precision": "fp32"}}
EVAL = {
    "rows": 4,
    "base": {"loss": 3.0, "perplexity": 20.0855, "exact_match": 0.0, "token_f1": 0.1},
    "adapter": {"loss": 1.0, "perplexity": 2.7183, "exact_match": 0.75, "token_f1": 0.9},
    "difference": {"exact_match": {"mean": 0.75, "low": 0.25, "high": 1.0, "p": 0.01}},
    "verdict": "Better: 3 against 0 of 4 answers exactly right.",
    "samples": [{"prompt": "How?", "expected": "So.", "base": "As an AI", "adapter": "So."}],
}
RESULT = {
    "steps": 3,
    "real_tokens": 300,
    "tokens_per_second": 50.0,
    "train_seconds": 6.0,
    "final_loss": float("nan"),
    "peak_memory_bytes": 1000,
    "eval": EVAL,
    "closing": {"score": 67, "words": "67 of 100: lower.", "advice": "Train longer.", "edit": {"train.max_steps": 6}},
}


def step(number: int) -> dict[str, Any]:
    facts = {"loss": 2.0 / number, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": 100 * number}
    return {"emit": {"type": "step", "step": number, **facts, "tokens_per_second": 50.0, "memory_bytes": 10}}


def checked(number: int, loss: float) -> dict[str, Any]:
    return {"emit": {"type": "evaluated", "step": number, "loss": loss}}


def finished(stopped: bool = False) -> dict[str, Any]:
    return {"emit": {"type": "finished", "step": 3, "stopped": stopped, "result": RESULT}}


SAVED = {"adapter": "Better: 3 of 4."}
WELL = [
    {"emit": {"type": "phase", "words": "Loading the model"}},
    checked(0, 3.0),
    STARTED,
    step(1),
    step(2),
    step(3),
    checked(3, 1.0),
    {"emit": {"type": "warned", "words": "Two examples were left out.", "hint": "They are too long."}},
    SAVED,
    finished(),
]
WAITING = [STARTED, step(1), {"wait": "control/stop"}, SAVED, finished(stopped=True)]
PAUSING = [STARTED, step(1), {"wait": "control/pause"}, {"emit": {"type": "paused", "step": 1}}]
DEAF = [STARTED, step(1), {"wait": "never"}]


class Studio(studio.studio.Studio):
    """The studio, with the engine replaced and the starter at hand."""

    def __init__(self, home: str | Path | None = None) -> None:
        super().__init__(home)
        self.runs.command = self.chat.server.command = self.evaluate.command = FAKE
        prepare = self.runs.prepare

        def planned(*args: Any, **kwargs: Any) -> Run:
            run = prepare(*args, **kwargs)
            Path(run.path, "plan.json").write_text(os.environ.get("PLAN") or json.dumps(WELL))
            return run

        self.runs.prepare = planned  # type: ignore[method-assign]
        put_starter(self.home)


def put_starter(home: Home) -> None:
    place = home.models / "starter"
    if not place.exists():
        place.mkdir()
        (place / "model.safetensors").write_bytes(b"")
        model = Model(id="starter", path=str(place), source="package", sha256="5a", parameters=135_000_000, bytes=10)
        (place / RECORD).write_text(model.model_dump_json())


if __name__ == "__main__":
    studio.studio.Studio = Studio  # type: ignore[misc]
    cli.main()
