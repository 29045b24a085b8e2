"""The train job: read the run directory, train, save the adapter, compare it with the base, tell every step."""

import copy
import json
import math
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import yaml
from transformers import PrinterCallback, TrainingArguments, set_seed

from studio import __version__
from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.errors import DataError
from studio.engine import attention, evaluate, fused, gate, lora, memory, models, parallel, tokens
from studio.engine.report import Reporter, write_json
from studio.engine.rows import Table
from studio.engine.trainer import Steps, StudioTrainer, Tell, batches

# Held-out rows measured while training: at most, at least, and all checks together as a share of the tokens trained on
# (a token checked takes a third of the time). The report at the end takes more.
HELD_ROWS, HELD_LEAST, HELD_SHARE = 100, 16, 0.3


@dataclass
class Job:
    """What a run directory asks for, with the hardware's choices made."""

    directory: Path
    config: TrainingConfig
    lineage: dict[str, Any]
    reporter: Reporter
    device: torch.device
    dtype: torch.dtype
    tokenizer: Any

    @property
    def base(self) -> Path:
        return Path(self.lineage["model"]["path"])

    @property
    def shared(self) -> bool:
        """Whether each process holds only its part of the base."""
        return self.config.hardware.sharding == "fsdp" and parallel.size() > 1

    @property
    def precision(self) -> str:
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"


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


def run(directory: Path, reporter: Reporter) -> None:
    """Do the job of a run directory, up to its `finished` event."""
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.append(number))
    lineage = json.loads((directory / "lineage.json").read_text(encoding="utf-8"))
    config = from_document(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))
    device = models.pick_device(config.hardware.device)
    parallel.join(device)
    models.use_all_cores()
    set_seed(config.train.seed)
    job = Job(
        directory,
        config,
        lineage,
        reporter,
        device,
        models.pick_dtype(config.train.precision, device),
        models.load_tokenizer(Path(lineage["model"]["path"])),
    )
    template = tokens.template_of(job.tokenizer)
    with parallel.leader_first():
        if parallel.leads():
            _extend_lineage(job, template)
        plan = _plan(job, template)
    tell = _train(job, plan, template, parallel.agreed(lambda: reporter.stop_asked() or bool(terminated)))
    peak = models.peak_memory_bytes(device)
    comparing = parallel.leads() or job.shared  # a base held in parts is asked by all together
    report = _compare(job, plan, tell) if comparing and len(plan.held) and tell.step else None
    result = {
        "steps": tell.step,
        "real_tokens": tell.counted,
        "tokens_per_second": round(tell.counted / max(tell.train_seconds, 1e-9), 2),
        "train_seconds": round(tell.train_seconds, 2),
        "final_loss": tell.last_loss if math.isfinite(tell.last_loss) else None,
        "peak_memory_bytes": peak,
        "eval": report,
    }
    reporter.emit(events.Finished(step=tell.step, stopped=tell.stopped, result=result))
    parallel.leave()


def _plan(job: Job, template: str) -> Plan:
    """Tokenise, bring rows to length, and cut them into steps."""
    config, reporter = job.config, job.reporter
    data = Path(job.lineage["dataset"]["path"])
    rows, held = (
        tokens.tokenise(job.tokenizer, data / name, template, partial(reporter.phase, words, unit="examples"))
        for name, words in (("train.jsonl", "Reading the examples"), ("eval.jsonl", "Reading the held-out examples"))
    )
    context = int(gate.base(job.base).get("max_position_embeddings") or 1_000_000)
    longest = int(rows.lengths.max(initial=1))
    limit = min(context, longest) if config.data.max_length == "auto" else config.data.max_length
    over = "split" if job.lineage["dataset"]["kind"] == "text" else config.data.over_length
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
    per_step = min(_chosen(config.train.effective_rows, 16), len(usable))
    planned = math.ceil(_chosen(config.train.epochs, 3) * math.ceil(len(usable) / per_step))
    most = config.train.max_steps
    # A step limit alone says exactly how long to train; beside a number of passes it is a limit.
    steps = planned if not most else most if config.train.epochs == "auto" else min(planned, most)
    return Plan(
        usable,
        held[np.flatnonzero(held.labels())],
        limit,
        per_step,
        _chosen(config.train.batch_tokens, 2048),
        steps,
        float(_chosen(config.train.learning_rate, 2e-4)),
    )


def _chosen(value: Any, default: Any) -> Any:
    return default if value == "auto" else value


def _train(job: Job, plan: Plan, template: str, stop: Any) -> Tell:
    """Train and save the adapter; return what was told and counted."""
    config, reporter = job.config, job.reporter
    reporter.phase("Loading the model")
    where = torch.device("cpu") if job.shared else job.device  # the parts go to the device
    model: Any = models.load_base(job.base, config.quantization, job.dtype, where)
    packed = config.train.packing != "off" and attention.packable(model.config)
    if packed:
        model.set_attn_implementation(attention.NAME)
    elif config.train.packing != "off":
        reporter.emit(
            events.Warned(words=f"Rows of {model.config.model_type} models cannot be packed; they are padded.")
        )
    pad = None if packed else int(job.tokenizer.pad_token_id or 0)
    if config.quantization != "none":
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    reporter.phase("Adding the adapter")
    model = lora.attach(model, config, job.directory / "start")
    fused.fuse(model)
    per_token = memory.saved_per_token(model, plan.rows, pad) if config.train.recompute == "auto" else 0
    if job.shared:
        parallel.shard(model, memory.layers_of(model), job.device)
    again = _recompute(model, plan, config.train.recompute, per_token, job.device)

    # a seeded choice: files are often sorted by what they are about
    some = np.random.default_rng(config.train.seed).permutation(len(plan.held))[:HELD_ROWS]
    every = _chosen(config.evaluate.every, max(1, plan.steps // 5))
    trained = plan.rows.tokens / len(plan.rows) * plan.per_step * plan.steps
    room = HELD_SHARE * trained / (1 + plan.steps / every)
    few = int(np.searchsorted(np.cumsum(plan.held.lengths[some]), room))
    held = batches(plan.held[some[: max(few, HELD_LEAST)]], plan.size, pad)
    tell = Tell(reporter, config, every, held, stop)
    trainer = StudioTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(job.directory / "trainer"),
            max_steps=plan.steps,
            learning_rate=plan.rate,
            max_grad_norm=config.train.max_grad_norm,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=config.train.seed,
            use_cpu=job.device.type == "cpu",
        ),
        train_dataset=Steps(plan.rows, plan.per_step, plan.size, plan.steps, config.train.seed, pad),
        callbacks=[tell],
        optimizers=(lora.optimizer(model, config, plan.rate), None),
    )
    trainer.args._n_gpu = 1  # on more cards it would split our batches as if they were rows
    trainer.schedule = (config.train.schedule, config.train.warmup)
    trainer.smoothing = config.train.label_smoothing
    trainer.pop_callback(PrinterCallback)
    tell.trainer = trainer
    reporter.emit(
        events.Started(
            steps=plan.steps,
            rows=len(plan.rows),
            eval_rows=len(plan.held),
            tokens_per_epoch=plan.rows.tokens,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            device=torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "processor",
            precision=job.precision,
            settings={
                "packed": packed,
                "max_length": plan.limit,
                "effective_rows": plan.per_step,
                "learning_rate": plan.rate,
                "recomputed_layers": again,
                "processes": parallel.size(),
            },
        )
    )
    if held:
        tell.check(0)
    if stop():
        tell.stopped = True
    else:
        trainer.train()
    kept = tell.keep_best()
    if parallel.leads():
        _save(job, plan, template, kept, model)
    parallel.wait()
    del tell.trainer  # and with it the model: the comparison loads the base afresh
    return tell


def _save(job: Job, plan: Plan, template: str, step: int, model: Any) -> None:
    job.reporter.phase("Saving the adapter")
    name = job.lineage["model"]["id"] if job.lineage["model"]["source"] == "hub" else str(job.base)
    facts = _facts(job, plan, template, step)
    written = lora.save(model, job.config, job.directory / "adapter", job.directory / "start", facts, name)
    job.reporter.emit(events.Saved(step=step, path="adapter", bytes=written))


def _recompute(model: Any, plan: Plan, wanted: str, per_token: float, device: torch.device) -> int:
    """Let as many layers be computed again as are asked for, or as the memory asks for; return how many."""
    layers = len(memory.layers_of(model))
    number = {"on": layers, "off": 0}.get(wanted)
    if number is None:
        longest = max(plan.size, int(plan.rows.lengths.max()))
        number = memory.layers_to_recompute(per_token, longest, layers, memory.free_bytes(device))
        number = parallel.agree(number)
    memory.recompute(model, number)
    return number


def _facts(job: Job, plan: Plan, template: str, step: int) -> dict[str, Any]:
    """studio.json: what whoever uses the adapter must know about it."""
    lineage, config = job.lineage, job.config
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
        "rows": len(plan.rows),
        "eval_rows": len(plan.held),
        "effective_rows": plan.per_step,
        "learning_rate": plan.rate,
        "steps": step,
        "dataset_sha256": lineage["dataset"]["sha256"],
        "metrics": {},
    }


def _compare(job: Job, plan: Plan, tell: Tell) -> dict[str, Any]:
    """Compare base and saved adapter on the held-out rows, and keep the result with the adapter."""
    adapter = job.directory / "adapter"
    report = evaluate.compare(
        job.lineage["model"],
        adapter,
        Path(job.lineage["dataset"]["path"]) / "eval.jsonl",
        quantization=job.config.quantization,
        dtype=job.dtype,
        device=job.device,
        answers=0 if tell.stopped else job.config.evaluate.answers,
        max_new_tokens=job.config.evaluate.max_new_tokens,
        seed=job.config.train.seed,
        limit=plan.limit,
        phase=job.reporter.phase,
        shared=job.shared,
    )
    if not parallel.leads():
        return report
    facts = json.loads((adapter / "studio.json").read_text(encoding="utf-8"))
    facts["metrics"] = {key: report[key] for key in ("rows", "answers", "base", "adapter", "difference", "verdict")}
    write_json(adapter / "studio.json", facts)
    job.reporter.emit(events.Evaluated(step=tell.step, loss=report["adapter"]["loss"], final=report))
    return report


def _extend_lineage(job: Job, template: str) -> None:
    extended = copy.deepcopy(job.lineage)
    extended["engine"] = {
        "template_sha256": tokens.template_hash(template),
        "versions": models.versions(),
        "device": str(job.device),
        "precision": job.precision,
    }
    write_json(job.directory / "lineage.json", extended)
