"""Settings as a file to pass on: a run's with reasons, hardware and results in it; another's fitted to this machine."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from studio.domain.config import TrainingConfig
from studio.domain.document import ABOUT, from_document, with_edit
from studio.domain.errors import NotFound, StudioError
from studio.domain.records import Dataset, Model, Run
from studio.domain.words import size
from studio.services.datasets import Datasets
from studio.services.estimate import Estimates
from studio.services.machine import Machine, MachineFacts
from studio.services.models import Models
from studio.services.recommend import recommend

RESULTS = ("step", "steps", "loss", "eval_loss", "base_loss", "tokens", "tokens_per_second", "seconds")
FIGURES = ("peak_memory_bytes", "train_seconds", "eval", "closing")  # of what a run's end told


@dataclass
class Fitted:
    """A document as it can run here. `changes` say what was changed and why, `open` what is still to be done."""

    document: dict[str, Any]
    changes: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, why: str) -> None:
        self.document = with_edit(self.document, {key: value})
        self.changes.append(f"{key} is {value}: {why}")


def settings_of(run: Run) -> str:
    """Return a run's settings as YAML with reasons; under `about`, what it ran on and what came of it."""
    folder = Path(run.path)
    lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    text = (folder / "config.yaml").read_text(encoding="utf-8")  # as it was written, the reasons in it
    model, dataset = Model.model_validate(lineage["model"]), Dataset.model_validate(lineage["dataset"])
    results = run.model_dump(mode="json", include=set(RESULTS)) | {
        key: run.result[key] for key in FIGURES if run.result.get(key) is not None
    }
    about = {
        "run": run.id,
        "status": run.status.value,
        "created": run.created,
        "studio": lineage["studio"],
        "model": model.model_dump(include={"id", "revision", "sha256", "parameters", "licence"}),
        "data": dataset.model_dump(include={"name", "sha256", "format", "map", "rows", "usable", "repairs"}),
        "hardware": lineage.get("machine", {}),  # not noted by older runs
        "results": {key: value for key, value in results.items() if value is not None},
    }
    return text + yaml.safe_dump({ABOUT: about}, sort_keys=False, allow_unicode=True, width=10_000)


def fit(document: Any, models: Models, datasets: Datasets, machine: Machine, estimates: Estimates) -> Fitted:
    """Check a document against this machine and change what cannot be here; nothing is fetched or stored."""
    from_document(document)  # says what is wrong with it
    about = document.get(ABOUT) or {}
    fitted = Fitted({key: value for key, value in document.items() if key != ABOUT})
    facts = machine.facts()
    _hardware(fitted, facts, max(1, len(machine.cards())))
    model = _model(fitted, about.get("model", {}), models)
    dataset = _data(fitted, about.get("data", {}), datasets)
    if model and dataset:
        _memory(fitted, model, dataset, facts, datasets, estimates)
    return fitted


def _hardware(fitted: Fitted, facts: MachineFacts, cards: int) -> None:
    config = from_document(fitted.document)
    if config.hardware.device == "cuda" and not facts.gpu:
        fitted.set("hardware.device", "auto", "there is no CUDA card here.")
    if config.train.precision == "bf16" and not facts.bf16:
        fitted.set("train.precision", "auto", "this hardware is not fast with bf16.")
    most = cards if facts.gpu else facts.cores
    if config.hardware.processes != "auto" and config.hardware.processes > most:
        fitted.set("hardware.processes", "auto", f"{most} can work side by side here.")
    if config.hardware.sharding != "none" and cards < 2:
        fitted.set("hardware.sharding", "none", "there are not two cards here to share the base.")


def _model(fitted: Fitted, about: dict[str, Any], models: Models) -> Model | None:
    """Find the model, by its name or else by its content; one of the Hub can still be fetched."""
    id = from_document(fitted.document).model.id
    try:
        found = models.find(id)
    except StudioError:  # a folder of that name that holds something else
        found = None
    if found is None and about.get("sha256"):
        found = next((each for each in models.list() if each.sha256 == about["sha256"]), None)
        if found:
            fitted.set("model.id", found.id, "the same model is here under this name.")
    if found is None and (Path(id).is_absolute() or id.lower().endswith(".gguf")):
        fitted.open.append(f"The model {id} is not here: copy it here, or choose another.")
    elif found is None:
        fitted.open.append(f"The model {id} is not here yet: it is fetched at the start.")
    return found


def _data(fitted: Fitted, about: dict[str, Any], datasets: Datasets) -> Dataset | None:
    """Find the data, by its id or name, else by its content."""
    data = from_document(fitted.document).data
    path, wanted = data.path, sorted(data.repairs)
    try:
        found: Dataset | None = datasets.get(path)
    except NotFound:
        known = datasets.list()
        same = [each for each in known if about.get("sha256") == each.sha256 or each.source == path]
        found = min(same, key=lambda each: sorted(each.repairs) != wanted, default=None)
        if found:
            fitted.set("data.path", found.id, f"the same data is here as {found.name}.")
    if found:
        if wanted and wanted != sorted(found.repairs):
            fitted.set("data.repairs", found.repairs, "so it was repaired when it was added here.")
        return found
    if not Path(path).is_file():
        fitted.open.append(f"The data {about.get('name') or path} is not here: add it, or choose other data.")
    return None


def _memory(
    fitted: Fitted, model: Model, dataset: Dataset, facts: MachineFacts, datasets: Datasets, estimates: Estimates
) -> None:
    """Where the run would not fit, take the change that is recommended."""
    config = _resolved(fitted, model, dataset, facts, datasets)
    quote = estimates.quick(config, model, dataset, facts)
    if quote.fits:
        return
    short = f"{size(quote.peak_memory_bytes)} are needed, {size(quote.room_bytes)} are here"
    for rung in sorted(quote.ladder, key=lambda each: not each.recommended):
        if rung.fits:
            fitted.document = with_edit(fitted.document, rung.edit)
            fitted.changes.append(f"{rung.words}: {short}. {rung.effect}")
            return
    fitted.open.append(f"It does not fit: {short}. Choose a smaller model.")


def _resolved(
    fitted: Fitted, model: Model, dataset: Dataset, facts: MachineFacts, datasets: Datasets
) -> TrainingConfig:
    lengths = datasets.profile(dataset.id).characters
    return recommend(from_document(fitted.document), model, dataset, facts, lengths)[0]
