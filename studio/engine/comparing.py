"""How long the comparison at the end of a run will take: a little of it is done, with the base and with an adapter."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from studio.engine import evaluate, generate, tokens, train
from studio.engine.job import Job
from studio.engine.plan import Plan
from studio.engine.rows import Row

LOOKED = 2_000  # tokens that are looked at
WORDS = 12  # tokens of an answer, after the first


def tried(job: Job, plan: Plan, adapter: Path) -> dict[str, Any]:
    """Return seconds: to load, and for base and adapter what `_side` finds."""
    begin = time.monotonic()
    pipeline = evaluate.pipeline_for(adapter, job.base, job.config.quantization, job.dtype, job.device)
    found: dict[str, Any] = {"load": time.monotonic() - begin}
    rows: list[Row] = []
    while len(rows) < len(plan.held) and sum(map(len, rows)) < LOOKED:
        rows.append(plan.held[len(rows)])
    asked = evaluate.questions(train.questions(job))[: job.config.evaluate.answers]
    prompts = [tokens.question(job.tokenizer, example) for example in asked]
    for side, chosen in (("base", None), ("adapter", adapter)):
        pipeline.select(chosen)
        found[side] = _side(pipeline, rows, prompts)
    return found


def _side(pipeline: generate.Pipeline, rows: list[Row], prompts: list[str]) -> dict[str, float]:
    """Return seconds: for a token that is looked at, for all prompts to be read, for a token of all answers.

    `a_token` is that of each answer, `a_turn` what a token of all answers takes besides.
    """
    model, device = pipeline.model, pipeline.device
    looked = _seconds(lambda: evaluate.row_losses(model, rows, device, _unheard))
    length = sum(map(len, rows))
    found = {"look": looked / length if length else 0.0, "read": 0.0, "a_turn": 0.0, "a_token": 0.0}
    if not prompts:
        return found

    def answer(prompts: list[str], room: int) -> float:
        return _seconds(partial(evaluate.answer_all, model, pipeline.tokenizer, prompts, room, device, _unheard))

    few = prompts[: evaluate.lanes_of(model, device).number]
    found["read"] = answer(prompts, 1)
    all_of = (answer(prompts, 1 + WORDS) - found["read"]) / WORDS
    if len(prompts) > len(few):
        some_of = (answer(few, 1 + WORDS) - answer(few, 1)) / WORDS
        found["a_token"] = max(0.0, all_of - some_of) / (len(prompts) - len(few))
    found["a_turn"] = max(0.0, all_of - found["a_token"] * len(prompts))
    return found


def _unheard(done: int, total: int) -> None:
    """Nothing is told of the little that is done."""


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
