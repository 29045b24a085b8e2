"""From settings to a run directory: fetch what is missing, settle what is open, write the folder whole."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from studio import __version__
from studio.domain.config import DataConfig, TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.errors import DataError, NotFound
from studio.domain.events import Phase, Report, ignore
from studio.domain.quote import Quote
from studio.domain.records import Dataset, Model
from studio.services import hub_data, jobs
from studio.services.datasets import Datasets
from studio.services.footprint import disk, shape_of
from studio.services.machine import Machine
from studio.services.models import Models
from studio.services.packed import locate
from studio.services.recommend import recommend
from studio.storage.paths import Home, slug, write_atomic


class Resolved(NamedTuple):
    """Settings without an `auto` that can be settled before the start, and what they were settled by."""

    config: TrainingConfig
    reasons: dict[str, str]
    model: Model
    dataset: Dataset


class Preparation:
    """Makes run directories in the home folder."""

    def __init__(self, home: Home, models: Models, datasets: Datasets, machine: Machine) -> None:
        self.home, self.models, self.datasets, self.machine = home, models, datasets, machine

    def resolve(self, config: TrainingConfig, report: Report = ignore) -> Resolved:
        """Fetch what is missing, and settle every `auto`; no run is made."""
        model = self.models.resolve(config.model.id, config.model.revision, report)
        config = config.model_copy(deep=True)
        dataset = self._dataset(config, report)
        report(Phase(words="Choosing the settings"))
        config.name = config.name or dataset.name
        config.model.id = model.id
        if model.source == "hub":
            config.model.revision = model.revision  # the same commit when the settings are used again
        lengths = self.datasets.profile(dataset.id).characters
        config, reasons = recommend(config, model, dataset, self.machine.facts(), lengths)
        return Resolved(config, reasons, model, dataset)

    def write(self, resolved: Resolved, quote: Quote | None = None) -> Path:
        """Write the folder of a run, with what was said of it before, and return it."""
        config, reasons, model, dataset = resolved
        self.home.need(disk(shape_of(model), config, dataset), f"the run of {config.name}")
        lineage = {
            "name": config.name,
            "created": jobs.now(),
            "studio": __version__,
            "model": model.model_dump(),
            "dataset": dataset.model_dump(),
            "machine": self.machine.facts().model_dump(exclude={"words"}),
        }
        if quote:
            lineage["quote"] = quote.model_dump(exclude={"ladder"})
        return self._publish(slug(config.name), lineage, to_yaml(config, reasons))

    def _dataset(self, config: TrainingConfig, report: Report) -> Dataset:
        data = config.data
        path = Path(data.path).expanduser().absolute()
        if locate(path)[0].is_file():
            data.path = str(path)
        else:
            try:
                return self._kept(data)
            except NotFound as error:
                if not hub_data.parse(data.path):
                    raise NotFound(f"There is no data file or data set {data.path}.", error.hint) from error
        shape: dict[str, Any] = {"format": data.format, "map": data.map, "report": report}
        if data.repairs:
            from studio.services.repair import NEED_BOUND, settle

            found = self.datasets.check(data.path, **shape).findings if set(data.repairs) & set(NEED_BOUND) else []
            data.repairs = settle(data.repairs, found)
        dataset = self.datasets.add(
            data.path,
            eval_fraction=data.eval_fraction,
            skip_bad=data.skip_bad_rows,
            repairs=data.repairs,
            **shape,
        )
        data.path = dataset.source  # of the Hub: the same commit when the settings are used again
        return dataset

    def _kept(self, data: DataConfig) -> Dataset:
        dataset = self.datasets.get(data.path)
        if data.repairs and sorted(data.repairs) != sorted(dataset.repairs):
            raise DataError(
                f"{dataset.name} is a data set already, and repairs are made when one is added.",
                f"Name its file, {dataset.source}, or leave the repairs away.",
            )
        return dataset

    def _publish(self, name: str, lineage: dict[str, Any], document: str) -> Path:
        """Make the run's folder under the next free number, complete from its first moment on."""
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self.home.runs))
        try:
            (staging / "control").mkdir()
            write_atomic(staging / "config.yaml", document)
            taken = [re.fullmatch(rf"{name}-(\d+)", entry.name) for entry in self.home.runs.iterdir()]
            number = max((int(match[1]) for match in taken if match), default=0)
            while True:
                number += 1
                path = self.home.runs / f"{name}-{number}"
                write_atomic(staging / "lineage.json", json.dumps({"run": path.name} | lineage, indent=2))
                try:
                    staging.rename(path)
                    return path
                except OSError:
                    if not path.exists():
                        raise
                    # somebody else took this number a moment ago
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
