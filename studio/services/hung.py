"""Engines that hang: neither computing nor reading or writing, for most of a minute; they are ended, and it is said."""

import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

from studio.domain.errors import StudioError
from studio.domain.records import Run
from studio.services import jobs
from studio.services.machine import Machine
from studio.services.runs import Runs
from studio.storage.paths import write_atomic

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two looks at an engine
LOOKS = 9  # so many in a row without a sign of life: counted, as no time passes for an engine while a machine sleeps
WORK = 0.02  # seconds of the processor between two looks: an engine that waits for another uses less
BUSY = 0.02  # share of a card from which it computes
# Somebody holds it with a signal or a debugger, or it waits for the disk: none of these is hung.
HELD = {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DISK_SLEEP}
CAUSE = "The engine stood still: for three quarters of a minute it neither computed nor read or wrote, so it was ended."


@dataclass
class Pulse:
    """What an engine and all it started had done at the last look."""

    token: str
    seconds: float = 0.0  # of the processor
    bytes: int = 0  # read and written, and how often
    silent: int = 0  # looks in a row at which nothing had changed


class Hung:
    """Watches the engines at work from whoever keeps the queue going."""

    def __init__(self, runs: Runs, machine: Machine) -> None:
        self.runs, self.machine = runs, machine
        self._pulses: dict[str, Pulse] = {}
        self._looked = -EVERY

    def look(self) -> float | None:
        """End the engines that hang; return the seconds to the next look, None when no engine is at work."""
        if (early := self._looked + EVERY - time.monotonic()) > 0:
            return early
        self._looked = time.monotonic()
        try:
            working = [run for run in self.runs.list() if run.status.working]
            for run in working:
                self._look_at(run)
        except (StudioError, OSError) as error:  # a full disk, a folder that is being deleted
            log.warning("Engines cannot be looked at now: %s", error)
            return EVERY
        self._pulses = {run.id: self._pulses[run.id] for run in working if run.id in self._pulses}
        return EVERY if working else None

    def _look_at(self, run: Run) -> None:
        record = jobs.recorded(Path(run.path))
        if record is None:
            return
        before = self._pulses.get(run.id)
        try:
            now = pulse(record)
        except psutil.Error:  # it ended a moment ago
            return
        if before and before.token == now.token and now.bytes == before.bytes and now.seconds - before.seconds < WORK:
            now.silent = before.silent + 1
        self._pulses[run.id] = now
        if now.silent < LOOKS or (self.machine.live().gpu_share or 0) > BUSY:
            return
        log.warning("The engine of %s stands still and is ended.", run.id)
        record.cause = CAUSE
        write_atomic(Path(run.path) / jobs.RECORD, record.model_dump_json())
        jobs.end(record.pid, grace=15)  # one that is only slow saves and pauses


def pulse(record: jobs.Process) -> Pulse:
    """Return what an engine's processes have done so far; where somebody holds one of them, what matches no other."""
    leader = psutil.Process(record.pid)
    done = Pulse(token=record.token)
    for process in [leader, *leader.children(recursive=True)]:
        with process.oneshot():
            if process.status() in HELD:
                return Pulse(token=uuid.uuid4().hex)
            done.seconds += sum(process.cpu_times()[:2])
            if hasattr(process, "io_counters"):  # not on macOS
                done.bytes += sum(process.io_counters())
    return done
