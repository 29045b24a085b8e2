"""What the faults share: the benchmark of survival in a process of its own, in small."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def survive() -> Callable[..., list[list[str]]]:
    """Run parts of `tests.benchmarks.survive`, survive(engine=25); return the cells of its table's rows.

    In a process of its own, as it forks: this one has threads.
    """

    def run(**counts: int) -> list[list[str]]:
        chosen = {"engine": 0, "studio": 0, "disk": 0, "small": 0} | counts
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.survive", *(f"--{name}={n}" for name, n in chosen.items())],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
        return rows[2:]

    return run
