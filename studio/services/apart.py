"""Check, add and sample data in a process of its own: what that reads and loads leaves memory with it."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from studio.domain.errors import DataError, StudioError
from studio.domain.events import Phase
from studio.domain.records import Dataset
from studio.services import jobs
from studio.services.datasets import Check, Datasets
from studio.services.sample import Subject, of_file
from studio.storage.paths import Home

LOG = "data.log"
MEMORY = 4 * 2**30  # bytes of addresses, of which the libraries take 1.4 GB without using them
PATIENCE = 600  # seconds without a word from the child, which tells every 5,000 rows how far it is


def check(home: Home, path: str | Path, **options: Any) -> Iterator[Phase | Check]:
    """Yield the phases of `Datasets.check`, then its result."""
    yield from _call(home, "check", path, options)


def add(home: Home, path: str | Path, **options: Any) -> Iterator[Phase | Dataset]:
    """Yield the phases of `Datasets.add`, then the data set."""
    yield from _call(home, "add", path, options)


def sample(home: Home, path: str | Path, **options: Any) -> Iterator[Phase | Subject]:
    """Yield the phases of `of_file`, then an example with its sample."""
    yield from _call(home, "sample", path, options)


def _call(home: Home, name: str, path: str | Path, options: dict[str, Any]) -> Iterator[Any]:
    """Run a call in a child and yield what it answers; a caller that stops listening ends it."""
    log = home.logs / LOG
    with open(log, "ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "studio.services.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            cwd=home.root,
            env=jobs.environment(),
        )
    assert child.stdin
    assert child.stdout
    watch = _Watch(child)
    try:
        with suppress(BrokenPipeError), child.stdin:  # it died at once: said below
            pickle.dump((str(home.root), name, str(path), options), child.stdin)
        while True:
            try:
                with watch:
                    answer = pickle.load(child.stdout)
            except (EOFError, pickle.UnpicklingError):
                break
            if isinstance(answer, StudioError):
                raise answer
            yield answer
            if not isinstance(answer, Phase):
                return
        if watch.ended:
            raise DataError(
                f"Reading {Path(path).name} stood still for {PATIENCE // 60} minutes and was ended.",
                "Check the file and the disk it is on, then try again.",
            )
        why = jobs.died(child.wait(), log)
        raise StudioError(f"Reading {Path(path).name} ended before its time. {why}", f"The log is {log}.")
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()


class _Watch:
    """Ends a child that says nothing for too long while it is waited for."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.ended = False

    def __enter__(self) -> None:
        self.timer = threading.Timer(PATIENCE, self._end)
        self.timer.daemon = True
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def _end(self) -> None:
        self.ended = True
        self.child.kill()


def main() -> None:
    """Answer one request: read from stdin, phases and then the result or the error to stdout, all pickled."""
    root, name, path, options = pickle.load(sys.stdin.buffer)
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints belongs in the log

    def say(answer: Phase | Check | Dataset | Subject | StudioError) -> None:
        pickle.dump(answer, out)
        out.flush()

    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    home = Home(root)
    datasets = Datasets(home)
    try:
        calls: dict[str, Any] = {"add": datasets.add, "check": datasets.check, "sample": partial(of_file, home)}
        say(calls[name](path, report=say, **options))
    except StudioError as error:
        say(error)
    except MemoryError:
        say(DataError(f"{Path(path).name} needs more memory than reading may take.", "Split it into smaller files."))


if __name__ == "__main__":
    main()
