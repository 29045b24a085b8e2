"""The keep job: write the weights of a checkpoint as an adapter that plain peft loads."""

import json
from pathlib import Path

from studio.domain import events
from studio.domain.errors import DataError
from studio.engine import checkpoints, lora, models
from studio.engine.job import Job
from studio.engine.report import Reporter


def run(directory: Path, reporter: Reporter) -> None:
    """Make `adapter` in a directory of what its request.json names: a finished run and one of its steps."""
    request = models.request(directory)
    source, step = Path(request["run"]), int(request["step"])
    place = source / checkpoints.FOLDER / f"step-{step}"
    wrong = checkpoints.damage(place)
    if wrong:
        raise DataError(f"The checkpoint of step {step:,} cannot be used: {wrong}.", "Choose another step.")
    job = Job.open(source, reporter)
    reporter.phase("Loading the model")
    base = models.load_base(job.base, job.config.quantization, job.dtype, job.device)
    model = lora.attach(base, job.config, directory / "start", int(request["steps"]))
    checkpoints.read(place, model)
    facts = json.loads((source / "adapter" / "studio.json").read_text(encoding="utf-8"))
    facts |= {"steps": step, "metrics": {"verdict": f"Not measured: kept from step {step:,} of its run."}}
    name = job.lineage["model"]["id"] if job.lineage["model"]["source"] == "hub" else str(job.base)
    written = lora.save(model, job.config, directory / "adapter", directory / "start", facts, name)
    reporter.emit(events.Saved(step=step, path="adapter", bytes=written))
