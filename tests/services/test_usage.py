"""How busy the machine is: measured of a real process, shared by all who ask, and not at all when nothing runs."""

import json
import os
from types import SimpleNamespace

import psutil
import pytest

from studio.domain.records import Run, Status
from studio.services import usage
from studio.services.machine import Machine
from studio.services.usage import Meter


@pytest.fixture
def run(tmp_path):
    """Make the record of a run whose engine is this very process."""

    def make(status=Status.TRAINING, id="desk-1"):
        me = psutil.Process()
        (tmp_path / "process.json").write_text(json.dumps({"pid": me.pid, "started": me.create_time()}))
        facts = {"name": "desk", "model": "starter", "dataset": "tickets", "method": "lora", "created": "2026-11-21"}
        return Run(id=id, path=str(tmp_path), status=status, **facts)

    return make


@pytest.fixture
def meter(home):
    return Meter(Machine(home))


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand; the processor time is the real one."""
    now = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(usage.time, "monotonic", lambda: now.at)
    return now


@pytest.mark.spec("U25.5")
def test_the_load_of_the_runs_process_is_measured_every_two_seconds(meter, run, clock, monkeypatch):
    monkeypatch.setattr(usage, "cores", lambda: 2)
    monkeypatch.setattr(usage, "temperature", lambda: 71.0)
    first = meter.look(run())
    assert first.memory_bytes > 1e7
    assert first.processor_celsius == 71.0
    assert 0 < first.processor_share <= 1, "at the first look it is that since the engine began"

    clock.at += 1.9
    assert meter.look(run()) is first, "nobody measures more often, however many pages ask"

    begin = sum(os.times()[:2])
    while sum(os.times()[:2]) - begin < 0.2:
        pass
    clock.at += 0.1
    second = meter.look(run())
    assert second is not first
    assert 0.2 / 2 / 2 <= second.processor_share <= 0.5  # at least 0.2 of 2 seconds, on 2 cores


@pytest.mark.parametrize("status", [status for status in Status if not status.active])
def test_nothing_is_measured_when_nothing_runs(meter, run, status, monkeypatch):
    monkeypatch.setattr(meter, "_measure", lambda *_: pytest.fail("it was measured"))
    assert meter.look(run(status)) is None


def test_another_run_starts_a_measurement_of_its_own(meter, run, clock):
    first = meter.look(run())
    clock.at += 0.5
    assert meter.look(run()) is first
    assert meter.look(run(id="desk-2")) is not first


def test_an_engine_that_is_gone_has_no_figures(meter, run, tmp_path):
    training = run()
    (tmp_path / "process.json").write_text(json.dumps({"pid": 2**22 + 7, "started": 0.0}))
    looked = meter.look(training)
    assert (looked.memory_bytes, looked.processor_share) == (None, None)


def test_a_card_tells_load_memory_temperature_and_power(meter, run, monkeypatch):
    import pynvml

    monkeypatch.setattr(meter.machine, "cards", lambda: ["card"])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda card: SimpleNamespace(used=9_700_000_000))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda card: SimpleNamespace(gpu=94))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda card, sensor: 71)

    def refused(card):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", refused)
    looked = meter.look(run())
    assert (looked.gpu_memory_bytes, looked.gpu_share, looked.gpu_celsius) == (9_700_000_000, 0.94, 71.0)
    assert looked.gpu_watts is None, "what the card does not tell is left out"


@pytest.mark.parametrize(
    ("sensors", "warmest"),
    [
        ({}, None),
        ({"nvme": [40.0]}, None),
        ({"coretemp": [61.0, 74.0], "acpitz": [20.0]}, 74.0),
        ({"cpu_thermal": [55.0]}, 55.0),
    ],
)
def test_the_processors_temperature_is_its_warmest_sensor(sensors, warmest, monkeypatch):
    found = {name: [SimpleNamespace(current=value) for value in values] for name, values in sensors.items()}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: found, raising=False)
    assert usage.temperature() == warmest


@pytest.mark.parametrize(("plugged", "on_battery"), [(True, False), (False, True), (None, False)])
def test_a_battery_counts_when_nothing_is_plugged_in(plugged, on_battery, monkeypatch):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(power_plugged=plugged), raising=False)
    assert usage.on_battery() is on_battery
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert usage.on_battery() is False
