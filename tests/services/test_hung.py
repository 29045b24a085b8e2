"""Engines that stand still are ended and say so; those that compute, or are held by somebody, are left alone."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from studio.domain.records import Status
from studio.services import hung, jobs
from studio.services.hung import CAUSE, LOOKS, Hung
from studio.services.machine import Live, Machine
from studio.studio import Studio
from tests.services.test_runs import STEPS, config, make, ready, runs  # noqa: F401


@pytest.fixture
def watcher(runs, home, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hung, "EVERY", 0.0)
    return Hung(runs, Machine(home))


def begin(runs, config, *more):  # noqa: F811
    """Start a run whose engine makes three steps and then does what `more` says; return it and its process."""
    run = ready(runs, config, *STEPS, *more)
    runs.start(run.id)
    deadline = time.monotonic() + 60
    while runs.get(run.id).step < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    return runs.get(run.id), psutil.Process(jobs.recorded(Path(run.path)).pid)


def test_an_engine_that_stands_still_is_ended_and_named(runs, make, config, watcher, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hung, "pulse", quiet(hung.pulse))
    run, engine = begin(runs, config, {"wait": "nothing"})
    assert runs.get(run.id).status is Status.TRAINING
    for _ in range(LOOKS):
        assert watcher.look() == 0.0
        assert engine.is_running()
    watcher.look()
    assert wait_for(lambda: runs.get(run.id).status is Status.INTERRUPTED)
    assert runs.get(run.id).error == CAUSE
    assert watcher.look() is None
    assert make().get(run.id).error == CAUSE  # another studio says the same
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_an_engine_that_computes_is_left_alone(runs, config, watcher):  # noqa: F811
    _, engine = begin(runs, config, {"live": 3000})
    for _ in range(2 * LOOKS):
        watcher.look()
        time.sleep(0.02)
    assert engine.is_running()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot hold a process")
def test_an_engine_that_somebody_holds_is_left_alone(runs, config, watcher):  # noqa: F811
    _, engine = begin(runs, config, {"wait": "nothing"})
    os.kill(engine.pid, signal.SIGSTOP)
    assert wait_for(lambda: engine.status() == psutil.STATUS_STOPPED)
    for _ in range(2 * LOOKS):
        watcher.look()
    assert engine.status() == psutil.STATUS_STOPPED
    os.kill(engine.pid, signal.SIGCONT)


def test_an_engine_whose_card_computes_is_left_alone(runs, config, watcher, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hung, "pulse", quiet(hung.pulse))
    live = Live(processor_share=0, memory_used_bytes=0, memory_free_bytes=0, gpu_share=0.9)
    monkeypatch.setattr(watcher.machine, "live", lambda: live)
    _, engine = begin(runs, config, {"wait": "nothing"})
    for _ in range(2 * LOOKS):
        watcher.look()
    assert engine.is_running()


def quiet(real):
    """Return `pulse` as if the engine that is played never woke up."""

    def pulse(record):
        found = real(record)
        found.seconds, found.bytes = 0.0, 0
        return found

    return pulse


def wait_for(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_a_process_that_only_sleeps_has_no_pulse(tmp_path):
    child = jobs.spawn("train", tmp_path, tmp_path / "log", command=("/bin/sh", "-c", "exec sleep 60"))
    record = jobs.Process(pid=child.pid, started=psutil.Process(child.pid).create_time())
    assert wait_for(lambda: psutil.Process(child.pid).name() == "sleep")
    first = hung.pulse(record)
    time.sleep(0.2)
    assert hung.pulse(record) == first
    jobs.end(child.pid)


def test_the_queue_watches_for_it(home):
    studio = Studio(home.root)
    assert studio._watch() is None
    assert studio.hung._looked > 0
