"""Base against adapter on a file of the user's, measured by an engine process."""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.domain.config import EvaluateConfig
from studio.domain.errors import DataError, NotFound
from studio.domain.events import Phase, Report, ignore
from studio.services import adapters as adapter_files
from studio.services import check, hub_data, jobs
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.formats import Problem
from studio.services.judge import Judge
from studio.services.models import Models
from studio.storage.paths import Home


class Evaluate:
    """Compares an adapter with its base, on a data file or the held-out rows of a data set."""

    def __init__(
        self, home: Home, models: Models, adapters: Adapters, datasets: Datasets, command: Sequence[str] = jobs.ENGINE
    ) -> None:
        self.home, self.models, self.adapters, self.datasets = home, models, adapters, datasets
        self.command = command

    def run(
        self,
        adapter_ref: str,
        data_path: str | Path,
        *,
        map: dict[str, str] | None = None,
        format: str = "auto",
        answers: int | None = None,
        general: bool = True,
        judge: Judge | None = None,
        report: Report = ignore,
    ) -> dict[str, Any]:
        """Return the comparison; nothing of it is kept. `answers` questions are put to both, 24 if not said.

        With `judge` the questions and both answers are sent there; its choice is told beside the verdict.
        """
        adapter = self.adapters.get(adapter_ref)
        model = adapter_files.base_of(adapter, self.models)
        for left in self.home.cache.glob("evaluate-*"):  # of a process that was killed
            if left.stat().st_mtime < time.time() - 86_400:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="evaluate-", dir=self.home.cache) as folder:
            directory = Path(folder)
            answers = EvaluateConfig().answers if answers is None else answers
            request = {
                "model": model.model_dump(),
                "adapter": adapter.path,
                "data": str(self._examples(data_path, format, map, directory / "data.jsonl", report)),
                "quantization": adapter_files.facts(Path(adapter.path)).get("quantization", "none"),
                "answers": answers,
                "general": general,
                "max_new_tokens": "auto",
                "seed": 42,
            } | ({"samples": answers} if judge else {})
            (directory / "request.json").write_text(json.dumps(request), encoding="utf-8")
            jobs.run("evaluate", directory, self.home.logs / "evaluate.log", report, self.command)
            result = dict(json.loads((directory / "result.json").read_text(encoding="utf-8")))
        if judge:
            result["judge"] = judge.compare(result["samples"], report=report)
        return result

    def _examples(
        self, data: str | Path, format: str, map: dict[str, str] | None, target: Path, report: Report
    ) -> Path:
        """Write the usable rows of a file as examples; of a data set of this home return the held-out ones it has."""
        data = hub_data.local(self.home, data, report)
        if not Path(data).expanduser().is_file():
            try:
                dataset = self.datasets.get(str(data))
            except NotFound as error:
                raise NotFound(f"There is no data file or data set {data}.", "Check the path.") from error
            if not dataset.eval_rows:
                raise DataError(f"{dataset.name} holds no rows back to test on.", "Name a file of test questions.")
            return Path(dataset.path) / "eval.jsonl"
        report(Phase(words=f"Reading {Path(data).name}"))
        source, layout = check.open_file(data, format, map)
        first_problem = ""
        written = 0
        with open(target, "w", encoding="utf-8") as file:
            for example in check.examples(source, layout):
                if isinstance(example, Problem):
                    first_problem = first_problem or example.problem
                    continue
                file.write(json.dumps(example, ensure_ascii=False) + "\n")
                written += 1
        if not written:
            raise DataError(
                f"No row of {source.name} can be used. {first_problem}", "Map the columns, or correct them."
            )
        return target
