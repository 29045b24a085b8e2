"""How long the comparison at the end of a run will take: a little of it is done."""

import time
from collections.abc import Callable
from typing import Any

from studio.engine import evaluate, generate, tokens, train
from studio.engine.job import Job
from studio.engine.plan import Plan
from studio.engine.rows import Row

LOOKED = 2_000  # tokens that are looked at
WORDS = 12  # tokens of an answer, after the first


def tried(job: Job, plan: Plan) -> dict[str, float]:
    """Return seconds: to load, for a token that is looked at, for all questions to be read, for a token of all answers.

    `a_token` is that of each answer, `a_turn` what a token of all answers takes besides.
    """
    begin = time.monotonic()
    pipeline = generate.Pipeline(job.base, job.config.quantization, job.dtype, job.device)
    load = time.monotonic() - begin
    rows: list[Row] = []
    length = 0
    while len(rows) < len(plan.held) and length < LOOKED:
        rows.append(plan.held[len(rows)])
        length += len(rows[-1])
    looked = _seconds(lambda: evaluate.row_losses(pipeline.model, rows, job.device, lambda done, total: None))
    found = {"load": load, "look": looked / length if length else 0.0, "read": 0.0, "a_turn": 0.0, "a_token": 0.0}
    asked = [
        tokens.question(job.tokenizer, example)
        for example in evaluate.questions(train.questions(job))[: job.config.evaluate.answers]
    ]
    if not asked:
        return found

    def answer(prompts: list[str], room: int) -> float:
        return _seconds(
            lambda: evaluate.answer_all(
                pipeline.model, job.tokenizer, prompts, room, job.device, lambda done, total: None
            )
        )

    few = asked[: evaluate.lanes_of(pipeline.model, job.device).number]
    found["read"] = answer(asked, 1)
    all_of, some_of = ((answer(those, 1 + WORDS) - answer(those, 1)) / WORDS for those in (asked, few))
    if len(asked) > len(few):
        found["a_token"] = max(0.0, all_of - some_of) / (len(asked) - len(few))
    found["a_turn"] = max(0.0, all_of - found["a_token"] * len(asked))
    return found


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
