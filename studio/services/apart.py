"""Check and add data in a process of its own: what that reads and loads leaves memory with it."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Dataset
from studio.services import jobs
from studio.services.datasets import Check, Datasets
from studio.storage.paths import Home

LOG = "data.log"


def check(home: Home, path: str | Path, **options: Any) -> Iterator[Phase | Check]:
    """Yield the phases of `Datasets.check`, then its result."""
    yield from _call(home, "check", path, options)


def add(home: Home, path: str | Path, **options: Any) -> Iterator[Phase | Dataset]:
    """Yield the phases of `Datasets.add`, then the data set."""
    yield from _call(home, "add", path, options)


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
    try:
        with suppress(BrokenPipeError), child.stdin:  # it died at once: said below
            pickle.dump((str(home.root), name, str(path), options), child.stdin)
        while True:
            try:
                answer = pickle.load(child.stdout)
            except (EOFError, pickle.UnpicklingError):
                break
            if isinstance(answer, StudioError):
                raise answer
            yield answer
            if not isinstance(answer, Phase):
                return
        why = jobs.died(child.wait(), log)
        raise StudioError(f"Reading {Path(path).name} ended before its time. {why}", f"The log is {log}.")
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        child.stdout.close()


def main() -> None:
    """Answer one request: read from stdin, phases and then the result or the error to stdout, all pickled."""
    root, name, path, options = pickle.load(sys.stdin.buffer)
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints belongs in the log

    def say(answer: Phase | Check | Dataset | StudioError) -> None:
        pickle.dump(answer, out)
        out.flush()

    home = Home(root)
    datasets = Datasets(home)
    try:
        say((datasets.add if name == "add" else datasets.check)(path, report=say, **options))
    except StudioError as error:
        say(error)


if __name__ == "__main__":
    main()
