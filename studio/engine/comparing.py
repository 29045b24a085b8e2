"""How long the comparison at the end of a run will take: a little of it is done, with the base and with an adapter."""

import time
from pathlib import Path
from typing import Any

from studio.engine import attention, evaluate, generate, tokens, train
from studio.engine.decode import decode
from studio.engine.job import Job
from studio.engine.lanes import Lanes
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
    answers = [example["messages"][-1]["content"] for example in asked]
    for side, chosen in (("base", None), ("adapter", adapter)):
        pipeline.select(chosen)
        found[side] = _side(pipeline, rows, prompts, answers)
    return found


def _side(pipeline: generate.Pipeline, rows: list[Row], prompts: list[str], answers: list[str]) -> dict[str, float]:
    """Return seconds: for a token that is looked at, for all prompts to be read, for a token of all answers.

    `a_token` is that of each answer, `a_turn` what a token of all answers takes besides. Both are tried after the
    expected answers, as the longer the text, the longer a token takes, and most are said after some others.
    """
    found = {"look": 0.0, "read": 0.0, "a_turn": 0.0, "a_token": 0.0}
    if rows:
        begin = time.monotonic()
        evaluate.row_losses(pipeline.model, rows, pipeline.device, lambda done, total: None)
        found["look"] = (time.monotonic() - begin) / sum(map(len, rows))
    if prompts:
        short, texts = (
            pipeline.tokenizer(those, add_special_tokens=False)["input_ids"] for those in (prompts, answers)
        )
        whole = [prompt + text for prompt, text in zip(short, texts, strict=True)]
        lanes = evaluate.lanes_of(pipeline.model, pipeline.device)
        few = whole[: lanes.number]
        _, some_of = _answered(pipeline, few, lanes)
        read, all_of = _answered(pipeline, whole, lanes)
        found["read"] = read * sum(map(len, short)) / sum(map(len, whole))
        if len(whole) > len(few):
            found["a_token"] = max(0.0, all_of - some_of) / (len(whole) - len(few))
        found["a_turn"] = max(0.0, all_of - found["a_token"] * len(whole))
    return found


def _answered(pipeline: generate.Pipeline, asked: list[list[int]], lanes: Lanes) -> tuple[float, float]:
    """Return seconds until all are read, and for a token of each answer."""

    def timed(group: list[int]) -> tuple[float, float]:
        begin = time.monotonic()
        said = decode(
            pipeline.model,
            [asked[i] for i in group],
            room=1 + WORDS,
            stops=set(),
            temperature=0,
            top_p=1,
            seed=None,
        )
        first, *_, last = [time.monotonic() for _ in said]
        return first - begin, (last - first) / WORDS

    groups = evaluate.groups_of(pipeline.model, asked, 1 + WORDS, lanes)
    with attention.through(evaluate.inner(pipeline.model), packed=False):
        reads, words = zip(*lanes.map(timed, groups), strict=True)
    at_once = min(lanes.number, len(groups))
    return sum(reads) / at_once, sum(words) / at_once
