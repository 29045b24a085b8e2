"""Runs that survive: engines and studios killed at random moments, a disk that is full at every write site.

`python -m tests.benchmarks.survive` prints a line for each part and every violation, and ends with 1 if there is one.
The engine is the real one with a two-layer model, forked from a process that has imported everything; the studio's
services are the real ones, with an engine that only counts steps. A kill is SIGKILL: what a loss of power does to
pages the system had not written yet is not tried.
"""

import argparse
import builtins
import errno
import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two-layer models; and a process with threads cannot be forked safely

import peft.peft_model
import psutil
import torch

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.errors import StudioError
from studio.domain.records import Status
from studio.engine import __main__ as engine
from studio.engine import checkpoints, models, tokens, train  # noqa: F401 - warms what an engine imports
from studio.services import jobs
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.machine import Machine
from studio.services.runs import Runs
from studio.storage.paths import Home
from studio.storage.store import Store
from tests.engine.conftest import make_model, write_run
from tests.services.test_runs import FAKE, OneModel

STEPS = 40
SETTINGS = [
    *("checkpoint.every_steps=1", "method.dropout=0.2", "evaluate.every=7", "evaluate.early_stopping=0"),
    *("evaluate.answers=0", "evaluate.samples=0"),
]
A_RUN = 8  # kills of one run, before it may go on to its end
# What a kill waits for (any word of the engine, its training, its end), how often, and how many seconds it then waits.
MARKS = {
    b"\n": (0.1, (0.002, 0.06)),
    b'"type":"started"': (0.75, (0.002, 0.06)),
    b"Saving the adapter": (0.15, (0.002, 0.3)),
}
ADOPTION = 10  # seconds


def fork(work: Callable[[], int], log: Path) -> int:
    """Do some work in a child of this warm process; return its pid. Its exit code is what the work returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        code = work()
    except BaseException:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
    finally:
        os._exit(code)


def train_in(directory: Path, before: Callable[[], object] = lambda: None) -> int:
    """Start the engine of a run directory; return its pid."""

    def work() -> int:
        sys.argv = ["engine", "train", str(directory)]
        before()
        return engine.main()

    return fork(work, directory.parent / f"{directory.name}.log")


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def told(directory: Path) -> list[events.AnyEvent]:
    """The events of a run; a line that is whole and cannot be read is an error."""
    path = directory / "events.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    found = [events.parse(line) for line in lines]
    if None in found:
        raise AssertionError(f"line {found.index(None) + 1} cannot be read: {lines[found.index(None)][:80]!r}")
    return found  # type: ignore[return-value]


def fold(found: list[events.AnyEvent]) -> tuple[dict[int, float], int]:
    """The loss of each step as it stands in the end, and the step of the last checkpoint told (-1: none)."""
    losses: dict[int, float] = {}
    kept = -1
    for event in found:
        if isinstance(event, events.Started):
            at = event.resumed_from if event.resumed_from is not None else -1
            if at < kept:
                raise AssertionError(f"it went on from {at}, though the checkpoint of {kept} was told")
            losses, kept = {step: loss for step, loss in losses.items() if step <= at}, at
        elif isinstance(event, events.Step):
            if event.step != max(losses, default=0) + 1:
                raise AssertionError(f"step {event.step} comes after {max(losses, default=0)}")
            losses[event.step] = event.loss
        elif isinstance(event, events.Saved) and event.path.startswith(checkpoints.FOLDER):
            kept = event.step
    return losses, kept


def finished(directory: Path) -> bool:
    return any(isinstance(event, events.Finished) for event in told(directory))


def look(directory: Path, code: int) -> None:
    """Raise what is wrong with a run whose engine has just been killed, or came to its end before that."""
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"the engine ended by itself, with code {code}")
    found = told(directory)
    numbers = [event.seq for event in found]
    if numbers != sorted(set(numbers)):
        raise AssertionError("events are not numbered in order")
    _, kept = fold(found)
    folder = directory / checkpoints.FOLDER
    steps = [
        int(path.name.split("-")[1].split(".")[0]) for path in folder.glob("*step-*") if not checkpoints.damage(path)
    ]
    over = bool(found) and isinstance(found[-1], events.Finished)  # then they are being made smaller
    if max(steps, default=-1) < kept and not over:
        raise AssertionError(
            f"the checkpoint of step {kept} was told, the newest whole one is {max(steps, default=-1)}"
        )


def result(directory: Path) -> tuple[dict[int, float], bytes]:
    """What a run has come to: the loss of each step, the adapter's bytes."""
    found = told(directory)
    if not found or not isinstance(found[-1], events.Finished):
        raise AssertionError(f"it did not finish: {found[-1] if found else 'no event'}")
    return fold(found)[0], (directory / "adapter" / "adapter_model.safetensors").read_bytes()


class Trials:
    """Counts what was tried and what went wrong."""

    def __init__(self, what: str) -> None:
        self.what, self.begin, self.count, self.wrong = what, time.monotonic(), 0, 0

    def check(self, name: str, test: Callable[[], Any]) -> None:
        try:
            test()
        except (AssertionError, OSError, ValueError, KeyError, sqlite3.Error) as error:
            self.wrong += 1
            print(f"  violation, {name}: {error or type(error).__name__}", flush=True)

    def report(self, more: str = "") -> int:
        seconds = time.monotonic() - self.begin
        print(f"| {self.what} | {self.count:,} | {seconds:.0f} s | {self.wrong} | {more} |", flush=True)
        return self.wrong


def warm(folder: Path) -> Path:
    """Import what an engine imports lazily, and build the model once, without a backward pass, which starts threads."""
    torch.set_num_threads(1)
    models.use_all_cores = lambda: torch.set_num_threads(1)
    place = make_model(folder / "model")
    tokens.load_tokenizer(place)
    models.load_base(place, "none", torch.float32, torch.device("cpu"))
    return place


def equal(expected: Any, directory: Path) -> None:
    found = result(directory)
    if found[0] != expected[0]:
        raise AssertionError("its loss curve is another one")
    if found[1] != expected[1]:
        raise AssertionError("its adapter is another one")


def kill_engines(kills: int, folder: Path, model: Path, chance: random.Random) -> int:
    settings = [f"train.max_steps={STEPS}", *SETTINGS]
    whole = write_run(folder / "whole", model, *settings)
    ended(train_in(whole))
    expected, trials, runs = result(whole), Trials("kills of an engine"), 0
    while trials.count < kills:
        runs += 1
        directory = write_run(folder / f"run-{runs}", model, *settings)
        for _ in range(A_RUN):
            code = kill_once(directory, chance)
            trials.count += code == -signal.SIGKILL
            trials.check(
                f"run {runs}, kill {trials.count}", lambda directory=directory, code=code: look(directory, code)
            )
            if finished(directory):  # such a run is never resumed
                break
        else:
            ended(train_in(directory))
        wrong = trials.wrong
        trials.check(f"run {runs}, at its end", lambda directory=directory: equal(expected, directory))
        if trials.wrong == wrong:
            shutil.rmtree(directory)
    return trials.report(f"{runs} runs of {STEPS} steps, each equal to one left alone")


def kill_once(directory: Path, chance: random.Random) -> int:
    """Start an engine and kill it at a random moment; return its exit code."""
    log = directory / "events.jsonl"
    offset = log.stat().st_size if log.exists() else 0
    (mark,) = chance.choices(list(MARKS), [often for often, _ in MARKS.values()])
    pid = train_in(directory)
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if log.exists():
            with open(log, "rb") as file:
                file.seek(offset)
                if mark in file.read().replace(b'": "', b'":"'):
                    break
        time.sleep(0.0005)
    time.sleep(chance.uniform(*MARKS[mark][1]))
    os.kill(pid, signal.SIGKILL)  # one that has ended is not collected yet: the number is still its own
    return ended(pid)


class Disk:
    """A disk without room from the Nth write on: opening for writing, the first write, fsync, rename, new folders.

    With `once`, only that one fails, as when somebody else frees some space. It holds for one process, for good.
    """

    def __init__(self, nth: int, folder: Path, once: bool) -> None:
        self.nth, self.folder, self.once, self.count = nth, str(folder), once, 0

    def use(self, path: Any = None) -> None:
        if path is not None and not str(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.nth or (self.count > self.nth and not self.once):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path or ""))

    def install(self) -> None:
        real_open, real_sync, real_save = io.open, os.fsync, checkpoints.save_file

        def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+") or not str(file).startswith(self.folder):
                return real_open(file, mode, *more, **named)
            self.use(file)
            return Written(real_open(file, mode, *more, **named), self)

        def synced(handle: int) -> None:
            self.use()
            real_sync(handle)

        def saved(tensors: Any, path: Path, *more: Any, **named: Any) -> None:
            try:
                self.use(path)
            except OSError:
                Path(path).write_bytes(b"")
                raise
            real_save(tensors, path, *more, **named)

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event in ("os.rename", "os.mkdir"):
                self.use(arguments[0])

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.fsync, checkpoints.save_file, peft.peft_model.safe_save_file = synced, saved, saved
        sys.addaudithook(heard)


class Written:
    """A file whose first write may find no room; half of it is written then."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk, self.fresh = file, disk, True

    def write(self, data: Any) -> int:
        if self.fresh:
            self.fresh = False
            try:
                self.disk.use()
            except OSError:
                self.file.write(data[: len(data) // 2])
                raise
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def without_room(directory: Path, nth: int, once: bool) -> tuple[int, int]:
    """Train on a disk that is full from the `nth` write on; return the exit code and how many writes were tried."""
    disk, count, leave = Disk(nth, directory, once), directory.parent / "count", os._exit

    def left(code: int) -> None:
        descriptor = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, str(disk.count).encode())
        leave(code)

    def begin() -> None:
        os._exit = left  # type: ignore[assignment]
        disk.install()

    return ended(train_in(directory, begin)), int(count.read_text())


def fill_disk(every: int, folder: Path, model: Path, steps: int = 4) -> int:
    """Fail each `every`th write site of a short run, to the last one; then go on with room again."""
    settings = [f"train.max_steps={steps}", *SETTINGS]
    whole = write_run(folder / "full", model, *settings)
    ended(train_in(whole))
    expected, trials = result(whole), Trials("disk full at a write site")
    codes: dict[int, int] = {}
    for once in (False, True):
        nth = 1
        while True:
            directory = write_run(folder / f"full-{once}-{nth}", model, *settings)
            code, sites = without_room(directory, nth, once)
            if sites < nth:
                shutil.rmtree(directory)
                break
            trials.count += 1
            codes[code] = codes.get(code, 0) + 1
            wrong = trials.wrong
            trials.check(f"site {nth}, afterwards", lambda directory=directory, code=code: named(directory, code))
            for _ in range(2):
                if not finished(directory):
                    ended(train_in(directory))
            trials.check(f"site {nth}, with room again", lambda directory=directory: equal(expected, directory))
            if trials.wrong == wrong:
                shutil.rmtree(directory)
            nth += every
    return trials.report("exit codes " + ", ".join(f"{code}: {number}" for code, number in sorted(codes.items())))


def small_disk(sizes: int, folder: Path, model: Path) -> int:
    """Train on disks that are too small, by a little or by much; then go on when they have grown."""
    settings = [f"train.max_steps={STEPS}", "checkpoint.keep=9", *SETTINGS]
    whole = write_run(folder / "roomy", model, *settings)
    ended(train_in(whole))
    expected, trials, paused = result(whole), Trials("trainings on a disk too small"), 0
    taken = sum(file.stat().st_blocks * 512 for file in whole.rglob("*"))
    disk = folder / "disk"
    disk.mkdir()
    for number in range(sizes):
        size = 65_536 + (taken - 65_536) * number // sizes
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if subprocess.run(mounting, capture_output=True).returncode:
            print("  no disk could be mounted here: only root can")
            return 0
        try:
            directory = write_run(disk / "run", model, *settings)
            code = ended(train_in(directory))
            trials.count += 1
            trials.check(f"{size:,} bytes", lambda directory=directory, code=code: named(directory, code))
            paused += isinstance((told(directory) or [None])[-1], events.Paused)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            if not finished(directory):
                ended(train_in(directory))
            trials.check(f"{size:,} bytes, grown", lambda directory=directory: equal(expected, directory))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return trials.report(f"{paused} paused and said why; all went on to the same end")


def named(directory: Path, code: int) -> None:
    """Raise if an engine that met a full disk has lost something, or does not say what stopped it."""
    path = directory / "events.jsonl"
    found = [event for line in path.read_bytes().split(b"\n") if (event := events.parse(line))] if path.exists() else []
    fold(found)
    last = found[-1] if found else None
    if code == errno.ENOSPC or isinstance(last, events.Finished):
        return
    if not isinstance(last, events.Failed | events.Paused):
        raise AssertionError(f"it ended with code {code}, its last event is {last and last.type}")
    words = last.message if isinstance(last, events.Failed) else last.words
    if "disk" not in words and "No space" not in words:
        raise AssertionError(f"it does not name the disk: {words}")


class Studios:
    """A home folder, with studios that come and go."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home").prepare()
        data = folder / "support desk.csv"
        rows = [f"How do I reset number {n}?,Hold button {n} for {n} seconds." for n in range(40)]
        data.write_text("question,answer\n" + "\n".join(rows))
        self.config = TrainingConfig.model_validate({"model": {"id": "starter"}, "data": {"path": str(data)}})
        self.acknowledged = folder / "acknowledged"  # the runs a studio said it had prepared
        self.acknowledged.touch()

    def open(self) -> Runs:
        store = Store(self.home)
        model = OneModel(self.home.root / "starter-model")
        adapters = Adapters(self.home, store)
        return Runs(self.home, store, model, Datasets(self.home), adapters, Machine(self.home), FAKE)  # type: ignore[arg-type]

    def work(self, seed: int) -> int:
        """Prepare, start, pause, resume, save and stop runs for ever."""
        runs, chance = self.open(), random.Random(seed)
        while True:
            going = [run for run in runs.list() if run.status.active or run.status in RESUMED]
            if len(going) < 3:
                made = runs.prepare(self.config.model_copy(deep=True))
                with open(self.acknowledged, "a") as file:
                    file.write(made.id + "\n")
                continue
            run = chance.choice(going)
            with suppress(StudioError):  # its state has changed meanwhile
                if run.status is Status.QUEUED:
                    runs.start(run.id)
                elif run.status in RESUMED:
                    (runs.stop if chance.random() < 0.2 else runs.resume)(run.id)
                elif run.status is Status.TRAINING:
                    (runs.stop if chance.random() < 0.2 else runs.pause)(run.id)
            time.sleep(chance.uniform(0, 0.05))

    def engines(self) -> dict[str, list[int]]:
        """The engine processes of this home, by run."""
        found: dict[str, list[int]] = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            command = process.info["cmdline"] or []
            ours = len(command) > 2 and command[-2] == "train" and command[-1].startswith(str(self.home.runs))
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.setdefault(Path(command[-1]).name, []).append(process.pid)
        return found

    def strange(self, runs: Runs) -> str:
        """Say in what a new studio and the processes disagree; nothing when each engine is adopted, each death seen."""
        engines, known = self.engines(), {run.id: run for run in runs.list()}
        lost = set(self.acknowledged.read_text().split()) - set(known)
        if lost:
            return f"lost: {lost}"
        for run in known.values():
            pids, record = engines.get(run.id, []), jobs.recorded(Path(run.path))
            if len(pids) > 1:
                return f"{run.id} has engines {pids}"
            if pids and (record is None or record.pid != pids[0] or not run.status.working):
                return f"{run.id} is {run.status}, but engine {pids[0]} is at work"
            if not pids and (run.status.working or (run.status is Status.INTERRUPTED and not run.error)):
                return f"{run.id} is {run.status} without an engine or a cause"
        return ""

    def settled(self) -> float:
        """Wait until a new studio sees all there is; return the seconds it took."""
        begin, runs = time.monotonic(), self.open()
        while strange := self.strange(runs):
            if time.monotonic() - begin > ADOPTION:
                raise AssertionError(strange)
            time.sleep(0.02)
        return time.monotonic() - begin

    def intact(self) -> None:
        with closing(sqlite3.connect(self.home.database)) as database:
            (answer,) = database.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            raise AssertionError(f"the store: {answer}")


RESUMED = (Status.PAUSED, Status.INTERRUPTED)


def kill_studios(kills: int, folder: Path, chance: random.Random) -> int:
    studios, trials, longest = Studios(folder), Trials("kills of a studio"), 0.0
    studios.open().store.active()
    while trials.count < kills:
        pid = fork(lambda: studios.work(trials.count), folder / "studio.log")
        time.sleep(chance.uniform(0.02, 0.4))
        os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        trials.count += 1

        def seen(code: int = code) -> None:
            nonlocal longest
            longest = max(longest, studios.settled())
            studios.intact()
            if code != -signal.SIGKILL:
                raise AssertionError(f"the studio had ended by itself with code {code}: see its log")

        trials.check(f"kill {trials.count}", seen)
    runs = studios.open()
    for run in runs.list():
        if run.status.active or run.status is Status.PAUSED:
            runs.stop(run.id)
    limit = time.monotonic() + 20
    while studios.engines() and time.monotonic() < limit:
        time.sleep(0.05)
    left = [pid for pids in studios.engines().values() for pid in pids]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    listed = runs.list()
    bare = [run.id for run in listed if run.result and not run.adapter]

    def end() -> None:
        if left or bare:
            raise AssertionError(f"orphans: {left}, finished without an adapter: {bare}")

    trials.check("after stopping all", end)
    return trials.report(f"{len(listed)} runs, seen again within {longest:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=int, default=1000, metavar="KILLS")
    parser.add_argument("--studio", type=int, default=200, metavar="KILLS")
    parser.add_argument("--disk", type=int, default=1, metavar="N", help="fail each Nth write site only; 0: none")
    parser.add_argument("--small", type=int, default=40, metavar="DISKS", help="disks of a few hundred kB (root only)")
    parser.add_argument("--seed", type=int, default=0)
    choice = parser.parse_args()
    wrong, chance = 0, random.Random(choice.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        print("| what | times | seconds | violations | |\n| --- | --- | --- | --- | --- |", flush=True)
        if choice.studio:
            wrong += kill_studios(choice.studio, folder, chance)
        if choice.engine or choice.disk or choice.small:
            model = warm(folder)
        if choice.engine:
            wrong += kill_engines(choice.engine, folder, model, chance)
        if choice.disk:
            wrong += fill_disk(choice.disk, folder, model)
        if choice.small:
            wrong += small_disk(choice.small, folder, model)
        if wrong:
            for log in [folder / "studio.log", *folder.glob("*.log")][:3]:
                if log.exists():
                    print(f"--- {log.name}\n{log.read_text()[-1500:]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
