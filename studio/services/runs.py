"""The runs: prepared as a folder, started as a process of their own, read back from their files."""

import builtins
import json
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from studio import __version__
from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.errors import NotFound, StudioError
from studio.domain.events import AnyEvent, Failed, Finished, Phase, Report, ignore
from studio.domain.records import Adapter, Dataset, Model, Run, Status
from studio.domain.words import run_title
from studio.services import jobs
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.machine import Machine
from studio.services.models import Models
from studio.services.progress import Known
from studio.services.queue import place_of
from studio.services.recommend import recommend
from studio.storage.paths import Home, slug, write_atomic
from studio.storage.store import Store

log = logging.getLogger(__name__)


class Resolved(NamedTuple):
    """Settings without an `auto` that can be settled before the start, and what they were settled by."""

    config: TrainingConfig
    reasons: dict[str, str]
    model: Model
    dataset: Dataset


class Runs:
    """Runs in the home folder. The directory is the truth: any studio, at any time, reads the same from it."""

    def __init__(
        self,
        home: Home,
        store: Store,
        models: Models,
        datasets: Datasets,
        adapters: Adapters,
        machine: Machine,
        command: Sequence[str] = jobs.ENGINE,
    ) -> None:
        self.home, self.store, self.models, self.datasets = home, store, models, datasets
        self.adapters, self.machine, self.command = adapters, machine, command
        self._known: dict[Path, Known] = {}
        self._lock = threading.RLock()

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

    def prepare(self, config: TrainingConfig, report: Report = ignore) -> Run:
        """Resolve the settings and write the run's folder; nothing is started."""
        config, reasons, model, dataset = self.resolve(config, report)
        self.home.need(_room(config, model, dataset), f"the run of {config.name}")
        lineage = {
            "name": config.name,
            "created": jobs.now(),
            "studio": __version__,
            "model": model.model_dump(),
            "dataset": dataset.model_dump(),
        }
        return self._read(self._publish(slug(config.name), lineage, to_yaml(config, reasons)))

    def start(self, run_id: str) -> Run:
        """Start the engine of a prepared run. It goes on when this process ends."""
        return self._start(self._path(run_id))

    def get(self, run_id: str) -> Run:
        return self._read(self._path(run_id))

    def list(self, status: Status | None = None) -> list[Run]:
        """Return the runs, newest first."""
        found = []
        for path in self.home.runs.iterdir():
            if path.name[0] == "." or not path.is_dir():
                continue
            try:
                found.append(self._read(path))
            except StudioError as error:
                log.warning("%s is left out of the list: %s", path, error)
        chosen = [run for run in found if status in (None, run.status)]
        return sorted(chosen, key=lambda run: (run.created, run.id), reverse=True)

    def events(self, run_id: str, offset: int = 0) -> tuple[builtins.list[AnyEvent], int]:
        """Return the events from a byte offset on, and the offset to go on from."""
        return jobs.read_events(self._path(run_id) / "events.jsonl", offset)

    def follow(self, run_id: str) -> Iterator[AnyEvent]:
        """Yield the events from the first one on, as they come, until the engine ends."""
        return self._follow(self._path(run_id))

    def stop(self, run_id: str, *, force: bool = False) -> Run:
        """Ask the engine to end at its next step, or with `force` end it at once, without an adapter."""
        return self._stop(self._path(run_id), force)

    def log(self, run_id: str, lines: int = 200) -> str:
        """Return the last lines the engine printed."""
        return jobs.tail(self._path(run_id) / "worker.log", lines)

    def execute(self, run_dir: str | Path, on_event: Callable[[AnyEvent], object] = lambda event: None) -> Run:
        """Run a prepared directory, of this home or copied here, to its end. Ctrl-C stops it as `stop` does."""
        path = Path(run_dir).expanduser().absolute()
        if not (path / "config.yaml").is_file() or not (path / "lineage.json").is_file():
            raise NotFound(f"{path} is not a run directory.", "It must hold config.yaml and lineage.json.")
        lineage = json.loads((path / "lineage.json").read_text(encoding="utf-8"))
        for what, needed in (
            ("model", Path(lineage["model"]["path"])),
            ("data set", Path(lineage["dataset"]["path"]) / "train.jsonl"),
        ):
            if not needed.exists():
                raise StudioError(
                    f"The {what} of this run is not on this machine: {needed} does not exist.",
                    "Copy it there, or set its path in lineage.json.",
                )
        self._start(path)
        try:
            for event in self._follow(path):
                on_event(event)
        except KeyboardInterrupt:
            self._stop(path)
            for _ in self._follow(path):
                pass
        return self._read(path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other thread and process from starting anything. This process's lock always comes first."""
        with self._lock, self.store.exclusive():
            yield

    def _path(self, run_id: str) -> Path:
        path = self.home.runs / run_id
        if not re.fullmatch("[a-z0-9-]+", run_id) or not (path / "lineage.json").is_file():
            raise NotFound(f"There is no run {run_id}.", "`peft-studio runs list` shows them.")
        return path

    def _dataset(self, config: TrainingConfig, report: Report) -> Dataset:
        data = config.data
        path = Path(data.path).expanduser().absolute()
        if not path.is_file():
            try:
                return self.datasets.get(data.path)
            except NotFound as error:
                raise NotFound(f"There is no data file or data set {data.path}.", error.hint) from error
        data.path = str(path)
        return self.datasets.add(
            path,
            format=data.format,
            map=data.map,
            eval_fraction=data.eval_fraction,
            skip_bad=data.skip_bad_rows,
            report=report,
        )

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

    def _start(self, path: Path) -> Run:
        with self.alone():  # two who start the same run start one engine
            run = self._read(path)
            if run.status is Status.QUEUED:
                place = place_of(path)
                card = place.card if place else None
                jobs.spawn_recorded("train", path, path / "worker.log", self.command, card)
            elif not run.status.active:
                raise StudioError(
                    f"{run_title(run.id)} is over: {run.status}.", f"Start a new one from {path / 'config.yaml'}."
                )
        return self._read(path)

    def _stop(self, path: Path, force: bool = False) -> Run:
        run = self._read(path)
        if run.status.active:
            (path / "control").mkdir(exist_ok=True)
            write_atomic(path / "control" / "stop", jobs.now())
            record = jobs.recorded(path)
            if force and record and jobs.alive(record):
                jobs.end(record.pid)
        return self._read(path)

    def _follow(self, path: Path) -> Iterator[AnyEvent]:
        yield from jobs.follow(path / "events.jsonl", lambda: self._read(path).status.active)

    def _read(self, path: Path) -> Run:
        with self._lock:
            try:
                stamp = (path / "config.yaml").stat().st_mtime_ns  # written once: another stamp is another run
            except OSError as error:
                raise NotFound(
                    f"The run {path.name} is gone.", "`peft-studio runs list` shows those there are."
                ) from error
            known = self._known.get(path)
            if known is None or known.stamp != stamp:
                known = self._known[path] = Known(path, stamp)
            run = known.record(self._status(known))
            if run.status is Status.QUEUED and (place := place_of(path)):
                run.since, run.priority, run.after = place.since, place.priority, place.after
            if run.step and isinstance(known.progress.end, Finished) and (path / "adapter").is_dir():
                self._keep_adapter(known, run)
            return run

    def _status(self, known: Known) -> Status:
        record = None if known.progress.end else jobs.recorded(known.path)
        going = record is not None and jobs.alive(record)  # asked before reading: an engine writes its end, then goes
        progress = known.catch_up()
        stop = (known.path / "control" / "stop").exists()
        if isinstance(progress.end, Failed):
            return Status.FAILED
        if progress.end:
            return Status.STOPPED if progress.end.stopped else Status.FINISHED
        if record is None:
            return Status.STOPPED if stop else Status.QUEUED
        if going:
            return (
                Status.EVALUATING if progress.evaluating else Status.TRAINING if progress.started else Status.STARTING
            )
        if not known.cause:
            known.cause = (
                "It was stopped before it had saved an adapter."
                if stop
                else jobs.died(jobs.exit_code(known.path, record), known.path / "worker.log")
            )
        return Status.STOPPED if stop else Status.INTERRUPTED

    def _keep_adapter(self, known: Known, run: Run) -> None:
        """Make the adapter of a run that ended well a version of its name, once, and name it in the record."""
        if known.path.parent != self.home.runs:
            run.adapter = str(known.path / "adapter")  # not a run of this home: its folder is all there is
            return
        if known.adapter is None:
            try:
                known.adapter = self.adapters.add(run)
            except StudioError as error:
                known.adapter = error
        if isinstance(known.adapter, Adapter):
            run.adapter = known.adapter.ref if Path(known.adapter.path).is_dir() else None
        elif not isinstance(known.adapter, NotFound):  # then the user removed the version
            run.error, run.hint = known.adapter.message, known.adapter.hint


def _room(config: TrainingConfig, model: Model, dataset: Dataset) -> int:
    """Return roughly the bytes a run takes: the adapter three times over, the cached tokens, logs."""
    width = (10 * max(model.parameters, 1)) ** (1 / 3)  # of the hidden states, as models of this size usually have it
    adapter = 6 * model.parameters * config.method.rank / width  # 4 bytes a number, 1.5 numbers a row, rank and column
    return int(3 * adapter + 2 * (Path(dataset.path) / "train.jsonl").stat().st_size + 100e6)
