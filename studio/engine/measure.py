"""The measure job: what a run would need, from its real rows; by tracing its largest step, or by doing some steps."""

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from studio.domain.lanes import lanes
from studio.domain.shape import Shape
from studio.engine import attention, comparing, gate, memory, models, tokens, train
from studio.engine.batches import Steps, labels_in
from studio.engine.job import Job
from studio.engine.others import Others
from studio.engine.plan import Plan, make_plan
from studio.engine.report import Reporter, Wishes, write_json

LARGEST = 20  # steps with most tokens, among which the largest batch is looked for
TIMED = 5  # steps that are done to see how long they take
# What a processor's allocator keeps beside what lives, as a share of it, and the code that a step loads; fitted to
# runs of the starter model (docs/reference/benchmarks.md).
HEAP, CODE = 0.1, 0.15e9
if TYPE_CHECKING:
    from studio.engine.trace import Traced

Batches = list[dict[str, Any]]


def run(directory: Path, reporter: Reporter) -> None:
    """Write result.json: the plan's figures, the traced memory by part, and with `steps` in the request the measured.

    Memory in bytes, time in seconds.
    """
    request = models.request(directory)
    job = Job.open(directory, reporter)
    at_rest = 0 if job.device.type == "cuda" else models.memory_bytes(job.device)
    plan = make_plan(job, tokens.template_of(job.tokenizer))
    result = _sizes(job, plan)
    if request["steps"]:
        result["measured"] = _measured(job, plan)
    result |= _traced(job, plan, at_rest)
    write_json(directory / "result.json", result)


def _traced(job: Job, plan: Plan, at_rest: int) -> dict[str, Any]:
    """Trace the largest step, or say why it cannot be."""
    from studio.engine.trace import Untraceable, trace  # torch's compiler comes with it, and is no part of a run

    job.reporter.phase("Tracing a step")
    steps = _steps(job, plan)
    largest = _largest(steps)
    batch = max(largest, key=_width)
    try:
        traced = trace(job.base, job.config, job.dtype, job.device, batch, plan.steps)
    except Untraceable as error:
        return {"untraced": str(error)[:200]}
    return {"traced": _parts(job, plan, traced, largest, batch, at_rest, steps.lanes)}


def _sizes(job: Job, plan: Plan) -> dict[str, Any]:
    """Figures of the plan: of all its steps together, and the longest and the mean answer to a held-out question."""
    total, squares, labels = _totals(plan, job.config.train.seed)
    answers = plan.held.labels() if len(plan.held) else np.zeros(1)
    return {
        "steps": plan.steps,
        "tokens": total,
        "squares": squares,
        "labels": labels,
        "held": len(plan.held),
        "held_tokens": plan.held.tokens,
        "answer": int(answers.max()),
        "answers": round(float(answers.mean()), 1),
        "precision": job.precision,
        "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "processor",
    }


def _totals(plan: Plan, seed: int) -> tuple[int, int, int]:
    """Tokens, squared lengths and labels over all steps."""
    steps = Steps(plan.rows, plan.per_step, plan.size, plan.steps, seed, None)
    lengths, labels = plan.rows.lengths.astype(np.int64), plan.rows.labels()
    whole, rest = divmod(plan.steps, steps.per_pass)
    some = [steps.chosen(whole * steps.per_pass + index) for index in range(rest)]
    last = np.concatenate(some) if some else np.zeros(0, np.int64)
    found = (int(whole * value.sum() + value[last].sum()) for value in (lengths, lengths**2, labels))
    return next(found), next(found), next(found)


def _steps(job: Job, plan: Plan) -> Steps:
    """The steps as the run will cut them, as far as that is known without the model."""
    config = job.config
    sizes = gate.base(job.base)
    family = str(sizes.get("model_type"))
    packed = config.train.packing != "off" and config.row.packing and family in attention.ARCHITECTURES
    number = lanes(config, torch.get_num_threads(), plan.size) if job.device.type == "cpu" else 1
    pad = None if packed else int(job.tokenizer.pad_token_id or 0)
    return Steps(plan.rows, plan.per_step, plan.size, plan.steps, config.train.seed, pad, number)


def _largest(steps: Steps) -> Batches:
    """The batches that are in memory at the same time in the step that needs most."""
    tokens_in = [int(steps.rows.lengths[steps.chosen(step)].sum()) for step in range(steps.total)]
    found = (steps[int(step)] for step in np.argsort(tokens_in)[-LARGEST:])
    at_once = [sorted(batches, key=_width)[-steps.lanes :] for batches in found]
    return max(at_once, key=lambda batches: sum(map(_width, batches)))


def _width(batch: dict[str, Any]) -> int:
    """Tokens that are computed, padding included."""
    return int(batch["input_ids"].numel())


def _parts(
    job: Job, plan: Plan, traced: "Traced", largest: Batches, batch: dict[str, Any], at_rest: int, lanes: int
) -> dict[str, Any]:
    """The peak by part, and how many layers are computed again."""
    config, width = job.config, _width(batch)
    moments = 2 if config.train.optimizer == "adamw_8bit" else 8
    held = traced.base + traced.adapter * 4
    wanted = config.train.recompute if config.row.recompute else "off"
    longest, per_token = int(plan.rows.lengths.max()), traced.layers * traced.layer / width
    free = memory.free_bytes(job.device) - held
    again, number = memory.fit(wanted, traced.layers, per_token, plan.size, longest, lanes, free)
    at_once = sum(map(_width, largest)) / width if number == lanes else max(plan.size, longest) / width
    inputs = again * width * 4 * int(gate.base(job.base).get("hidden_size") or 0)
    kept = (traced.layers - again) * traced.layer + (traced.layer + inputs if again else 0)
    parts = {
        "Model": traced.base,
        "Adapter": 4 * traced.adapter,
        "Gradients and optimiser": (4 * number + moments) * traced.adapter,
        "Activations": kept * at_once,
        "Loss": traced.start * at_once,
        "Programs": at_rest,
    }
    if at_rest:
        parts["Programs"] += CODE + HEAP * (parts["Activations"] + parts["Loss"])
    return {"parts": {name: round(value) for name, value in parts.items()}, "again": again}


def _measured(job: Job, plan: Plan) -> dict[str, Any]:
    """Do the largest step and some others: the peak, and seconds by the work there is in a step."""
    begin = time.monotonic()
    made = train.ready(job, plan)
    trainer = train.trainer_of(job, plan, made, Wishes(job.directory))
    load = time.monotonic() - begin
    shape = Shape.of(gate.base(job.base), sum(value.numel() for value in made.model.parameters()))
    order = np.argsort([int(plan.rows.lengths[trainer.steps.chosen(step)].sum()) for step in range(plan.steps)])
    some = [int(order[place]) for place in np.linspace(0, len(order) - 1, min(TIMED, len(order))).astype(int)]
    work, seconds, others = [], [], Others()
    for number, step in enumerate([some[0], *some]):  # the first one is slow: memory is touched, code is loaded
        job.reporter.phase("Trying steps", number, 1 + len(some), "steps")
        parts = trainer.steps[step]
        at_once = sorted(parts, key=_width)[-2 * made.lanes :]  # as much at once as the whole step has
        begin = time.monotonic()
        trainer.correct(at_once)
        seconds.append(time.monotonic() - begin)
        work.append(sum(_work(shape, job, batch) for batch in at_once))
    begin = time.monotonic()
    if trainer.held:
        job.reporter.phase("Trying a check")
        trainer.held_out_loss()
    trainer.samples.ask(made.model)
    check = time.monotonic() - begin
    base, slope = _line(np.array(work[1:], float), np.array(seconds[1:]))
    found: dict[str, Any] = {
        "peak": models.peak_memory_bytes(job.device),
        "again": made.again,
        "load": load,
        "a_step": base,
        "speed": 1 / slope,
        "first": max(0.0, seconds[0] - base - slope * work[0]),
        "check": check,
        "compared": None,
    }
    if trainer.held:
        adapter = train.save(job, plan, tokens.template_of(job.tokenizer), 0, made.model)
        job.reporter.phase("Trying a comparison")
        del made, trainer
        gc.collect()
        found["compared"] = comparing.tried(job, plan, adapter)
    return found | {"others": others.share() if job.device.type == "cpu" else 0.0}


def _work(shape: Shape, job: Job, batch: dict[str, Any]) -> float:
    lengths = batch.get("lengths") or [batch["input_ids"].shape[1]] * len(batch["input_ids"])
    return shape.flops(job.config, sum(lengths), sum(length**2 for length in lengths), labels_in(batch))


def _line(work: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Fit seconds = a + b·work by least squares with neither below zero: tokens and squared lengths are in the work."""
    slope = (
        float(np.cov(work, seconds)[0, 1] / work.var(ddof=1)) if len(work) > 2 and work.std() > 0.1 * work.mean() else 0
    )
    base = float(seconds.mean() - slope * work.mean())
    if slope <= 0 or base < 0:
        return 0.0, float((work * seconds).sum() / (work**2).sum())
    return base, slope
