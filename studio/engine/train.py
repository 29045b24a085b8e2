"""The train job: read the run directory, train, save the adapter, compare it with the base, tell every step."""

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio import __version__
from studio.domain import events
from studio.engine import attention, checkpoints, evaluate, fused, gate, inspect, lora, memory, models, parallel, tokens
from studio.engine.batches import Steps, batches
from studio.engine.closing import closing
from studio.engine.history import History
from studio.engine.job import Job
from studio.engine.lanes import lanes_for
from studio.engine.others import Others
from studio.engine.plan import Plan, chosen, make_plan
from studio.engine.report import Reporter, Wishes, write_json
from studio.engine.samples import Samples
from studio.engine.trainer import State, Trainer

# Held-out rows measured while training: at most, at least, and all checks together as a share of the tokens trained on
# (a token checked takes a third of the time). The report at the end takes more.
HELD_ROWS, HELD_LEAST, HELD_SHARE = 100, 16, 0.3


def run(directory: Path, reporter: Reporter) -> None:
    """Do the job of a run directory, up to its `finished` event, or to `paused`."""
    wishes = Wishes(directory, parallel.either)
    wishes.listen()
    job = Job.open(directory, reporter)
    template = tokens.template_of(job.tokenizer)
    with parallel.leader_first():
        if parallel.leads():
            job.extend_lineage(template)
        plan = make_plan(job, template)
    done = _train(job, plan, template, wishes)
    peak = models.peak_memory_bytes(job.device)
    if done.ended != "paused" and (parallel.leads() or job.shared):  # a base held in parts is asked by all together
        _finish(job, plan, done, peak)
    parallel.leave()


def _finish(job: Job, plan: Plan, done: "Done", peak: int) -> None:
    """Compare, and tell the end."""
    state = done.state
    report = _compare(job, plan, done) if len(plan.held) and state.step else None
    result = {
        "steps": state.step,
        "real_tokens": state.tokens,
        "tokens_per_second": round(state.tokens / max(state.train_seconds, 1e-9), 2),
        "train_seconds": round(state.train_seconds, 2),
        "final_loss": state.last_loss,
        "peak_memory_bytes": peak,
        "others_share": done.others if job.device.type == "cpu" else 0.0,
        "eval": report,
        "closing": asdict(closing(done.history, report)),
    }
    job.reporter.emit(events.Finished(step=state.step, stopped=done.stopped, result=result))
    if parallel.leads():  # after the end is told: until then it may be killed and has to go on from one of them
        checkpoints.Keeper(job.directory, job.config.checkpoint.keep).lighten()


@dataclass(frozen=True)
class Done:
    """How training ended. The model is not part of it: the comparison loads the base afresh."""

    state: State
    ended: str
    history: History
    others: float  # share of the processors that other programs took meanwhile

    @property
    def stopped(self) -> bool:
        return self.ended == "stopped"


@dataclass(frozen=True)
class Ready:
    """A model with its adapter on its device. `pad` is None where rows are packed, `again` counts recomputed layers."""

    model: Any
    pad: int | None
    again: int
    lanes: int


def ready(job: Job, plan: Plan) -> Ready:
    """Load the base, add the adapter and let it fit into the memory."""
    config, reporter = job.config, job.reporter
    reporter.phase("Loading the model")
    where = torch.device("cpu") if job.shared else job.device  # the parts go to the device
    model: Any = models.load_base(job.base, config.quantization, job.dtype, where)
    known = attention.packable(model.config)
    packed = config.train.packing != "off" and known and config.row.packing
    if packed:
        model.set_attn_implementation(attention.NAME)
    elif config.train.packing != "off":
        what = config.row.title if known else f"{model.config.model_type} models"
        reporter.emit(events.Warned(words=f"Rows cannot be packed with {what}; they are padded, which is slower."))
    pad = None if packed else int(job.tokenizer.pad_token_id or 0)
    reporter.phase("Adding the adapter")
    model = lora.attach(model, config, job.directory / "start", plan.steps)
    fused.fuse(model)
    wanted = config.train.recompute if config.row.recompute else "off"
    per_token = memory.saved_per_token(model, plan.rows, pad) if wanted == "auto" else 0
    if job.shared:
        parallel.shard(model, memory.layers_of(model), job.device)
    again, number = _fit(model, plan, wanted, per_token, job.device)
    return Ready(model, pad, again, number)


def _train(job: Job, plan: Plan, template: str, wishes: Wishes) -> Done:
    """Train, from the newest checkpoint if there is one, and save the adapter, unless it is paused."""
    reporter = job.reporter
    made = ready(job, plan)
    model = made.model
    trainer = trainer_of(job, plan, made, wishes)
    trainer.announce = partial(
        _announce,
        job,
        plan,
        model,
        {
            "packed": made.pad is None,
            "max_length": plan.limit,
            "effective_rows": plan.per_step,
            "learning_rate": plan.rate,
            "recomputed_layers": made.again,
            "batches_at_once": made.lanes,
            "processes": parallel.size(),
        },
    )
    with parallel.leader_first():
        resumed = _resume(trainer, reporter)
    trainer.announce(resumed)
    others = Others()
    try:
        trainer.run()
    except checkpoints.NoRoom as error:
        trainer.ended = "paused"
        reporter.emit(_paused(trainer, error.message, error.hint))
    else:
        if trainer.ended == "paused":
            why = "The engine was asked to end." if wishes.terminated else ""
            reporter.emit(_paused(trainer, why, "It goes on where it was." if why else ""))
    if trainer.ended != "paused":
        kept = trainer.keep_best()
        if parallel.leads():
            save(job, plan, template, kept, model)
        parallel.wait()
    return Done(trainer.state, trainer.ended, trainer.history, others.share())


def _announce(job: Job, plan: Plan, model: Any, settings: dict[str, Any], resumed_from: int | None) -> None:
    """Tell the plan, at the beginning and whenever it goes on after an earlier step."""
    job.reporter.emit(
        events.Started(
            steps=plan.steps,
            rows=len(plan.rows),
            eval_rows=len(plan.held),
            tokens_per_epoch=plan.rows.tokens,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            device=_name_of(job.device),
            precision=job.precision,
            resumed_from=resumed_from,
            settings=settings,
        )
    )


def save(job: Job, plan: Plan, template: str, step: int, model: Any) -> Path:
    """Write the adapter of this step into the run's folder; return where."""
    job.reporter.phase("Saving the adapter")
    name = job.lineage["model"]["id"] if job.lineage["model"]["source"] == "hub" else str(job.base)
    facts = _facts(job, plan, template, step)
    place = job.directory / "adapter"
    written = lora.save(model, job.config, place, job.directory / "start", facts, name)
    job.reporter.emit(events.Saved(step=step, path=place.name, bytes=written))
    return place


def trainer_of(job: Job, plan: Plan, made: Ready, wishes: Wishes) -> Trainer:
    """Put together what trains, and choose what it is checked on."""
    config = job.config
    # a seeded choice: files are often sorted by what they are about
    some = np.random.default_rng(config.train.seed).permutation(len(plan.held))[:HELD_ROWS]
    every = chosen(config.evaluate.every, max(1, plan.steps // 5))
    trained, checks = plan.rows.tokens / len(plan.rows) * plan.per_step * plan.steps, 1 + plan.steps / every
    few = int(np.searchsorted(np.cumsum(plan.held.lengths[some]), HELD_SHARE * trained / checks))
    samples = Samples(job.tokenizer, questions(job), config.evaluate, trained, checks, job.device)
    return Trainer(
        made.model,
        lora.optimizer(made.model, config, plan.rate),
        Steps(plan.rows, plan.per_step, plan.size, plan.steps, config.train.seed, made.pad, made.lanes),
        config,
        every,
        batches(plan.held[some[: max(few, HELD_LEAST)]], plan.size, made.pad, made.lanes),
        samples,
        job.reporter,
        wishes,
        checkpoints.Keeper(job.directory, config.checkpoint.keep),
    )


def questions(job: Job) -> list[dict[str, Any]]:
    """The held-out examples the fixed questions are taken from: the first ones."""
    path = Path(job.lineage["dataset"]["path"]) / "eval.jsonl"
    return next(tokens.read(path), []) if path.exists() else []


def _resume(trainer: Trainer, reporter: Reporter) -> int | None:
    """Go on from the newest checkpoint that is whole; return its step, 0 if none is, None at the beginning."""
    damaged = []

    def skipped(step: int, wrong: str) -> None:
        damaged.append(step)
        words = f"The checkpoint of step {step:,} is damaged ({wrong}) and was left out."
        reporter.emit(events.Warned(words=words, hint="An earlier one is taken, or the run begins again."))

    found = trainer.keeper.newest(skipped)
    if found is None:
        if parallel.leads():
            trainer.keeper.forget_after(-1)
        return 0 if damaged else None
    reporter.phase("Going on where it was")
    trainer.load(found)
    with open(reporter.path, "rb") as file:
        trainer.remember(map(events.parse, file))
    return trainer.state.step


def _paused(trainer: Trainer, words: str, hint: str) -> events.Paused:
    state = trainer.state
    at = trainer.kept.get("step", state.step)
    return events.Paused(
        step=at,
        checkpoint=f"{checkpoints.FOLDER}/step-{at}",
        memory_bytes=models.memory_bytes(trainer.device),
        words=words,
        hint=hint,
    )


def _fit(model: Any, plan: Plan, wanted: str, per_token: float, device: torch.device) -> tuple[int, int]:
    """Let as many layers be computed again as are asked for, or as the memory asks for.

    Return how many these are, and how many batches are computed at once.
    """
    layers, longest = len(memory.layers_of(model)), int(plan.rows.lengths.max())
    number, free = lanes_for(model, device, plan.size), memory.free_bytes(device)
    again, number = memory.fit(wanted, layers, per_token, plan.size, longest, number, free)
    again = parallel.agree(again)
    memory.recompute(model, again)
    return again, number


def _facts(job: Job, plan: Plan, template: str, step: int) -> dict[str, Any]:
    """studio.json: what whoever uses the adapter must know about it."""
    lineage, config = job.lineage, job.config
    base = Path(lineage["model"]["path"])
    stops = inspect.stops_of(job.tokenizer, base, gate.settings(base))
    return {
        "format": 1,
        "name": lineage.get("name") or job.directory.name,
        "run": lineage.get("run", job.directory.name),
        "studio": __version__,
        "base": {key: lineage["model"].get(key, "") for key in ("id", "revision", "path")},
        "method": config.method.name,
        "quantization": config.quantization,
        "precision": job.precision,
        "template": template,
        "template_sha256": tokens.template_hash(template),
        "eos_token": job.tokenizer.eos_token,
        "stops": {str(each): job.tokenizer.convert_ids_to_tokens(each) for each in sorted(stops)},
        "rows": len(plan.rows),
        "eval_rows": len(plan.held),
        "effective_rows": plan.per_step,
        "learning_rate": plan.rate,
        "steps": step,
        "dataset_sha256": lineage["dataset"]["sha256"],
        "seed": config.train.seed,
        "versions": models.versions(),
        "device": _name_of(job.device),
        "metrics": {},
    }


def _name_of(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "processor"


def _compare(job: Job, plan: Plan, done: Done) -> dict[str, Any]:
    """Compare base and saved adapter on the held-out rows, and keep the result with the adapter."""
    adapter = job.directory / "adapter"
    report = evaluate.compare(
        job.lineage["model"],
        adapter,
        Path(job.lineage["dataset"]["path"]) / "eval.jsonl",
        quantization=job.config.quantization,
        dtype=job.dtype,
        device=job.device,
        answers=0 if done.stopped else job.config.evaluate.answers,
        max_new_tokens=job.config.evaluate.max_new_tokens,
        seed=job.config.train.seed,
        limit=plan.limit,
        phase=job.reporter.phase,
        shared=job.shared,
        general=job.config.evaluate.general and not done.stopped,
    )
    if not parallel.leads():
        return report
    facts = json.loads((adapter / "studio.json").read_text(encoding="utf-8"))
    facts["metrics"] = {key: value for key, value in report.items() if key != "samples"}
    write_json(adapter / "studio.json", facts)
    job.reporter.emit(events.Evaluated(step=done.state.step, loss=report["adapter"]["loss"], final=report))
    return report
