"""What a run trains on: the rows, brought to length, and how they are cut into steps."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studio.domain import events
from studio.domain.errors import DataError
from studio.engine import gate, tokens
from studio.engine.job import Job
from studio.engine.rows import Table


@dataclass
class Plan:
    """The rows and how they are cut into steps."""

    rows: Table
    held: Table
    limit: int  # tokens an example may have
    per_step: int
    size: int  # tokens in one forward pass
    steps: int
    rate: float


def make_plan(job: Job, template: str) -> Plan:
    """Tokenise, bring rows to length, and cut them into steps."""
    config, reporter = job.config, job.reporter
    data = Path(job.lineage["dataset"]["path"])
    rows, held = (
        tokens.tokenise(job.tokenizer, data / name, template, partial(reporter.phase, words, unit="examples"))
        for name, words in (("train.jsonl", "Reading the examples"), ("eval.jsonl", "Reading the held-out examples"))
    )
    limit = config.length_limit(gate.context(gate.base(job.base)), int(rows.lengths.max(initial=1)))
    over = config.when_longer(job.lineage["dataset"]["kind"])
    rows, longer = rows.fit(limit, over)
    held, _ = held.fit(limit, "drop" if over == "ask" else over)
    if longer:
        done = "split into pieces" if over == "split" else "left out"
        reporter.emit(events.Warned(words=f"{longer} examples are longer than {limit:,} tokens and were {done}."))
    usable = rows[np.flatnonzero(rows.labels())]
    if not len(usable):
        raise DataError("No example has an answer to learn from.", "Look at the answer column in Data.")
    if len(usable) < len(rows):
        left = len(rows) - len(usable)
        reporter.emit(events.Warned(words=f"{left} examples have no token to train and were left out."))
    per_step = min(chosen(config.train.effective_rows, 16), len(usable))
    planned = math.ceil(chosen(config.train.epochs, 3) * math.ceil(len(usable) / per_step))
    most = config.train.max_steps
    # A step limit alone says exactly how long to train; beside a number of passes it is a limit.
    steps = planned if not most else most if config.train.epochs == "auto" else min(planned, most)
    return Plan(
        usable,
        held[np.flatnonzero(held.labels())],
        limit,
        per_step,
        chosen(config.train.batch_tokens, 2048),
        steps,
        float(chosen(config.train.learning_rate, 2e-4)),
    )


def chosen(value: Any, default: Any) -> Any:
    return default if value == "auto" else value
