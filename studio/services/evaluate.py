"""Base against adapter on a file or on lm-eval tasks of the user's, measured by an engine process."""

import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from studio.domain.config import EvaluateConfig
from studio.domain.errors import DataError, NotFound, StudioError
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Adapter
from studio.services import adapters as adapter_files
from studio.services import check, hub_data, jobs
from studio.services import tasks as task_files
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.formats import Problem
from studio.services.judge import Judge
from studio.services.models import Models
from studio.storage.paths import Home


class Evaluate:
    """Compares an adapter with its base: on a data file, the held-out rows of a data set, or tasks of lm-eval."""

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
        asked = self._asked(adapter)
        with self._folder() as directory:
            answers = EvaluateConfig().answers if answers is None else answers
            data = self._examples(data_path, format, map, directory / "data.jsonl", report)
            asked |= {"data": str(data), "answers": answers, "general": general, "max_new_tokens": "auto"}
            result = self._measured("evaluate", directory, asked | ({"samples": answers} if judge else {}), report)
        if judge:
            result["judge"] = judge.compare(result["samples"], report=report)
        return result

    def tasks(
        self,
        adapter_ref: str,
        folder: str | Path,
        *,
        names: Sequence[str] = (),
        limit: int | None = None,
        chat_template: bool = False,
        report: Report = ignore,
    ) -> dict[str, Any]:
        """Return the comparison on the lm-eval tasks of a folder, or on those named; nothing of it is kept.

        `limit`: only so many documents of each task. With `chat_template` they are asked as chat asks.
        """
        if importlib.util.find_spec("lm_eval") is None:
            raise StudioError('Tasks need lm-eval: run `pip install "peft-studio[lm-eval]"`.')
        asked = self._asked(self.adapters.get(adapter_ref)) | {"limit": limit, "chat_template": chat_template}
        chosen = task_files.gather(Path(folder).expanduser(), names)
        with self._folder() as directory:
            (directory / "tasks").mkdir()
            for number, config in enumerate(chosen.values()):
                config["dataset_kwargs"]["cache_dir"] = str(directory / "cache")
                text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
                (directory / "tasks" / f"{number}.yaml").write_text(text, encoding="utf-8")
            return self._measured("tasks", directory, asked, report)

    def _asked(self, adapter: Adapter) -> dict[str, Any]:
        """Return what every job is asked with: base, adapter, how the base is held, and a seed."""
        return {
            "model": adapter_files.base_of(adapter, self.models).model_dump(),
            "adapter": adapter.path,
            "quantization": adapter_files.facts(Path(adapter.path)).get("quantization", "none"),
            "seed": 42,
        }

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Yield a folder that is removed afterwards, as are those of processes that were killed."""
        for left in self.home.cache.glob("evaluate-*"):
            if left.stat().st_mtime < time.time() - 86_400:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="evaluate-", dir=self.home.cache) as folder:
            yield Path(folder)

    def _measured(self, job: str, directory: Path, asked: dict[str, Any], report: Report) -> dict[str, Any]:
        """Let an engine do the job and return what it found."""
        (directory / "request.json").write_text(json.dumps(asked), encoding="utf-8")
        jobs.run(job, directory, self.home.logs / "evaluate.log", report, self.command)
        return dict(json.loads((directory / "result.json").read_text(encoding="utf-8")))

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
