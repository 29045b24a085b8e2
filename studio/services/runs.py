"""The runs: prepared as a folder, started as a process of their own, read back from their files."""

import builtins
import json
import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document, with_edit
from studio.domain.errors import NotFound, StudioError
from studio.domain.events import AnyEvent, Failed, Finished, Paused, Report, ignore
from studio.domain.quote import Quote
from studio.domain.records import Adapter, Run, Status
from studio.domain.words import run_title
from studio.services import jobs
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.machine import Machine
from studio.services.models import Models
from studio.services.place import place_of, put
from studio.services.prepare import Preparation, Resolved
from studio.services.progress import Known, kept_steps
from studio.storage.paths import Home, write_atomic
from studio.storage.store import Store

log = logging.getLogger(__name__)
RESUMABLE = (Status.PAUSED, Status.INTERRUPTED, Status.FAILED)
# What a resumed run may change: nothing that the saved state or the order of the examples depends on.
EDITABLE = (
    *("train.learning_rate", "train.batch_tokens", "train.max_grad_norm", "train.max_steps", "train.recompute"),
    *("evaluate.", "checkpoint.", "guard."),
)


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
        self.home, self.store, self.adapters, self.command = home, store, adapters, command
        self.preparation = Preparation(home, models, datasets, machine)
        self._known: dict[Path, Known] = {}
        self._lock = threading.RLock()
        self.quote: Callable[[Resolved], Quote | None] = lambda resolved: None  # what is said of a run before its start
        self.ring: Callable[[], object] = lambda: None  # called when an engine was started, so that somebody watches it

    def resolve(self, config: TrainingConfig, report: Report = ignore) -> Resolved:
        """Fetch what is missing, and settle every `auto`; no run is made."""
        return self.preparation.resolve(config, report)

    def prepare(self, config: TrainingConfig, report: Report = ignore) -> Run:
        """Resolve the settings and write the run's folder; nothing is started."""
        resolved = self.resolve(config, report)
        return self._read(self.preparation.write(resolved, self.quote(resolved)))

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

    def follow(self, run_id: str) -> Iterator[AnyEvent]:
        """Yield the events from the first one on, as they come, until the engine ends."""
        return self._follow(self._path(run_id))

    def stop(self, run_id: str, *, force: bool = False) -> Run:
        """Ask the engine to end at its next step, or with `force` end it at once, without an adapter."""
        return self._stop(self._path(run_id), force)

    def pause(self, run_id: str) -> Run:
        """Ask the engine to save where it is and end, so that its memory is free; a paused run can be resumed."""
        return self._pause(self._path(run_id))

    def save(self, run_id: str) -> Run:
        """Ask the engine for a checkpoint at its next step."""
        path = self._path(run_id)
        run = self._read(path)
        if run.status is not Status.TRAINING:
            raise StudioError(f"{run_title(run.id)} is {run.status}: there is nothing to save.", "Runs that train can.")
        self._wish(path, "checkpoint")
        return run

    def resume(self, run_id: str, edit: dict[str, Any] | None = None) -> Run:
        """Go on from the last good checkpoint, exactly as if nothing had happened, or with some settings changed.

        `edit` maps group.key to a value; what the saved state depends on cannot be changed. It goes on at once,
        whatever else is at work; `Queue.resume` lets it wait for its turn.
        """
        with self.alone():
            self._spawn(Path(self.ready_to_resume(run_id, edit).path), again=True)
        return self.get(run_id)

    def ready_to_resume(self, run_id: str, edit: dict[str, Any] | None = None) -> Run:
        """Return a run that can be resumed, with what is to change written down; refuse any other."""
        path = self._path(run_id)
        run = self._read(path)
        if run.status not in RESUMABLE:
            raise StudioError(
                f"{run_title(run.id)} is {run.status}: it cannot be resumed.",
                "Paused, interrupted and failed runs can.",
            )
        if edit:
            self._edit(path, edit)
        return run

    def kept_steps(self, run_id: str) -> builtins.list[int]:
        """Return the steps a run has checkpoints of."""
        return kept_steps(self._path(run_id))

    def keep(self, run_id: str, step: int, report: Report = ignore) -> Adapter:
        """Make the weights of one of an ended run's checkpoints a version of its adapter."""
        path = self._path(run_id)
        run = self._read(path)
        there = kept_steps(path)
        if run.status not in (Status.FINISHED, Status.STOPPED) or step not in there:
            steps = ", ".join(f"{each:,}" for each in there) or "none"
            raise StudioError(
                f"{run_title(run.id)} has no checkpoint of step {step:,} to keep.", f"An ended run has: {steps}."
            )
        with tempfile.TemporaryDirectory(prefix="keep-", dir=self.home.cache) as folder:
            work = Path(folder)
            write_atomic(work / "request.json", json.dumps({"run": str(path), "step": step, "steps": run.steps}))
            jobs.run("keep", work, self.home.logs / "keep.log", report, self.command)
            return self.adapters.add_step(run, step, work / "adapter")

    def log(self, run_id: str, lines: int = 200) -> str:
        """Return the last lines the engine printed."""
        return jobs.tail(self._path(run_id) / "worker.log", lines)

    def execute(self, run_dir: str | Path, on_event: Callable[[AnyEvent], object] = lambda event: None) -> Run:
        """Run a prepared directory, of this home or copied here, to its end. Ctrl-C pauses it as `pause` does."""
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
            self._pause(path)
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

    def _start(self, path: Path) -> Run:
        with self.alone():  # two who start the same run start one engine
            run = self._read(path)
            if run.status is Status.QUEUED:
                self._spawn(path)
            elif run.status in RESUMABLE and run.checkpoint is not None:
                raise StudioError(
                    f"{run_title(run.id)} is {run.status} at step {run.checkpoint:,}.",
                    f"`peft-studio runs resume {run.id}` goes on from there.",
                )
            elif not run.status.active:
                raise StudioError(
                    f"{run_title(run.id)} is over: {run.status}.", f"Start a new one from {path / 'config.yaml'}."
                )
        return self._read(path)

    def _spawn(self, path: Path, again: bool = False) -> None:
        place = place_of(path)
        if self._withdraw(path) or again:  # before it starts: if it pauses again it is not to go on by itself
            for wish in ("pause", "stop"):
                (path / "control" / wish).unlink(missing_ok=True)
        jobs.spawn_recorded("train", path, path / "worker.log", self.command, place.card if place else None)
        known = self._known.get(path)
        if known:
            known.progress.end, known.cause = None, ""
        self.ring()

    def _withdraw(self, path: Path) -> bool:
        """Let a run that waits to go on be what it was before; return whether it did."""
        with self.alone():
            place = place_of(path)
            if place and place.resume:
                put(path, place.model_copy(update={"resume": False}))
                return True
        return False

    def _wish(self, path: Path, what: str) -> None:
        (path / "control").mkdir(exist_ok=True)
        write_atomic(path / "control" / what, jobs.now())

    def _edit(self, path: Path, edit: dict[str, Any]) -> None:
        """Write changes of settings beside the run's own, checked as a whole document."""
        fixed = [key for key in edit if not key.startswith(EDITABLE)]
        if fixed:
            raise StudioError(
                f"{', '.join(fixed)} cannot change while a run goes on.", "Start a new run with these settings."
            )
        file = path / "control" / "edit.json"
        edit = (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}) | edit
        from_document(with_edit(yaml.safe_load((path / "config.yaml").read_bytes()), edit))
        (path / "control").mkdir(exist_ok=True)
        write_atomic(file, json.dumps(edit))

    def _pause(self, path: Path) -> Run:
        status = self._read(path).status
        if status in (Status.STARTING, Status.TRAINING):
            self._wish(path, "pause")
        elif status is Status.QUEUED:
            self._withdraw(path)
        return self._read(path)

    def _stop(self, path: Path, force: bool = False) -> Run:
        if self._read(path).status is Status.QUEUED and self._withdraw(path):
            return self._read(path)
        if not force and self._read(path).status is Status.PAUSED:
            with self.alone():  # two who stop it start one engine
                if self._read(path).status is Status.PAUSED:
                    self._wish(path, "stop")
                    (path / "control" / "pause").unlink(missing_ok=True)
                    self._spawn(path)  # to make an adapter of the checkpoint
            return self._read(path)
        run = self._read(path)
        if run.status.active or run.status is Status.PAUSED:
            self._wish(path, "stop")
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
            status = self._status(known)
            place = place_of(path) if status in (Status.QUEUED, *RESUMABLE) else None
            run = known.record(Status.QUEUED if place and place.resume else status)
            if run.status is Status.QUEUED and place:
                run.since, run.priority, run.after = place.since, place.priority, place.after
            if run.step and isinstance(known.progress.end, Finished) and (path / "adapter").is_dir():
                self._keep_adapter(known, run)
            return run

    def _status(self, known: Known) -> Status:
        record = None if isinstance(known.progress.end, Finished) else jobs.recorded(known.path)
        going = record is not None and jobs.alive(record)  # asked before reading: an engine writes its end, then goes
        progress = known.catch_up()
        stop = (known.path / "control" / "stop").exists()
        if going and record and progress.resumed_at(record.started):
            return Status.STARTING
        if isinstance(progress.end, Failed):
            return Status.FAILED
        if isinstance(progress.end, Paused):
            return Status.STOPPED if stop else Status.PAUSED
        if progress.end:
            return Status.STOPPED if progress.end.stopped else Status.FINISHED
        if record is None:
            return Status.STOPPED if stop else Status.QUEUED
        if going:
            return (
                Status.EVALUATING if progress.evaluating else Status.TRAINING if progress.training else Status.STARTING
            )
        if not known.cause:
            known.cause = (
                "It was stopped before it had saved an adapter."
                if stop
                else record.cause or jobs.died(jobs.exit_code(known.path, record), known.path / "worker.log")
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


def resumable(run: Run, edit: Iterable[str] = ()) -> bool:
    """Whether a run can go on from where it was, with these settings changed."""
    can = run.status is Status.PAUSED or (run.status in RESUMABLE and run.checkpoint is not None)
    return can and all(key.startswith(EDITABLE) for key in edit)
