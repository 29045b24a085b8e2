"""How busy the machine is while a run is at work: processor, card, memory, temperatures. Nothing is polled unasked."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel

from studio.domain.records import Run
from studio.services import jobs
from studio.services.machine import Machine, cores

EVERY = 2.0  # seconds between two looks, however many pages ask
# sensors of processors, in the order they are asked for: Intel, AMD, ARM, then whatever the board calls its own
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


class Usage(BaseModel):
    """One look. Shares are 0 to 1, of the cores this process may use; memory in bytes, temperatures in °C."""

    processor_share: float | None = None  # of the run's engine
    memory_bytes: int | None = None  # what the run's engine holds
    processor_celsius: float | None = None
    gpu_share: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_celsius: float | None = None
    gpu_watts: float | None = None


class Meter:
    """Looks at the machine for one run at a time, at most every two seconds."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._lock = threading.Lock()
        self._of = ""
        self._usage = Usage()
        self._when = -EVERY
        self._work: tuple[float, float] | None = None  # when, and the processor seconds used until then

    def look(self, run: Run) -> Usage | None:
        """Return how busy the machine is with the run; None when it is not at work."""
        if not run.status.active:
            return None
        with self._lock:
            now = time.monotonic()
            if run.id != self._of:
                self._of, self._work, self._when = run.id, None, now - EVERY
            if now - self._when >= EVERY:
                self._usage, self._when = self._measure(run, now), now
            return self._usage

    def _measure(self, run: Run, now: float) -> Usage:
        usage = Usage(processor_celsius=temperature())
        record = jobs.recorded(Path(run.path))
        with suppress(psutil.Error):  # it ended a moment ago, or the system shows no other process
            if record is not None:
                leader = psutil.Process(record.pid)
                family = [leader, *leader.children(recursive=True)]
                usage.memory_bytes = sum(process.memory_info().rss for process in family)
                work = sum(sum(process.cpu_times()[:2]) for process in family)
                # at the first look: since the engine began
                before, done = self._work or (now - (time.time() - leader.create_time()), 0.0)
                usage.processor_share = min(1.0, max(0.0, (work - done) / max(now - before, 0.1) / cores()))
                self._work = (now, work)
        self._card(usage)
        return usage

    def _card(self, usage: Usage) -> None:
        if not self.machine.cards():
            return
        import pynvml

        card = self.machine.cards()[0]
        with suppress(pynvml.NVMLError):
            usage.gpu_memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(card).used)
        with suppress(pynvml.NVMLError):  # a slice of a card does not tell its load
            usage.gpu_share = pynvml.nvmlDeviceGetUtilizationRates(card).gpu / 100
        with suppress(pynvml.NVMLError):
            usage.gpu_celsius = float(pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU))
        with suppress(pynvml.NVMLError):
            usage.gpu_watts = pynvml.nvmlDeviceGetPowerUsage(card) / 1000  # told in milliwatts


def temperature() -> float | None:
    """Return the processor's temperature in °C, where the system tells it."""
    sensors = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD
    found = sensors() if sensors else {}
    name = next((name for name in SENSORS if found.get(name)), None)
    return max(each.current for each in found[name]) if name else None


def on_battery() -> bool:
    """Whether the machine runs on its battery."""
    sensors = getattr(psutil, "sensors_battery", None)  # not on every system
    battery = sensors() if sensors else None
    return battery is not None and battery.power_plugged is False
