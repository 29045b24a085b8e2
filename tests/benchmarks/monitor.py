"""How fast runs are listed, opened and drawn, and what telling a step costs: `python -m tests.benchmarks.monitor`.

The runs are folders with events as the engine writes them. Each figure is the median of `--repeat` times, in a studio
that has seen nothing of them before.
"""

import argparse
import json
import math
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from studio.domain import events
from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.records import Run
from studio.engine.report import Reporter
from studio.studio import Studio
from studio.ui import run_page
from studio.ui.watch import Watch

GOALS = {"ten_runs_s": 1.0, "million_events_s": 1.0, "event_percent": 1.0}
CHECKS = 100  # steps between two checks


def write_run(home: Path, name: str, steps: int) -> None:
    """Write a finished run of so many steps."""
    path = home / "runs" / f"{name}-1"
    path.mkdir(parents=True)
    config = TrainingConfig.model_validate({"name": name, "model": {"id": "starter"}, "data": {"path": "tickets"}})
    (path / "config.yaml").write_text(to_yaml(config))
    lineage = {"model": {"id": "starter"}, "dataset": {"name": "tickets"}, "created": "2026-01-02T03:04:05Z"}
    (path / "lineage.json").write_text(json.dumps(lineage))
    plan = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 5, "trainable_parameters": 3, "device": "processor"}
    with open(path / "events.jsonl", "w", encoding="utf-8") as file:
        seq = 0

        def tell(event: events.Event) -> None:
            nonlocal seq
            event.seq, event.time, event.elapsed = seq, "2026-01-02T03:04:05.678+00:00", round(1.237 * seq, 3)
            file.write(events.dump(event))
            seq += 1

        tell(events.Started(steps=steps, precision="bf16", **plan))
        tell(events.Evaluated(step=0, loss=2.3))
        for number in range(1, steps + 1):
            loss = 1 + math.exp(-number / steps * 5) + random.gauss(0, 0.05)
            rate, norm = 2e-4 * (1 - number / (steps + 1)), abs(random.gauss(1, 0.3))
            told = {"tokens": 512 * number, "tokens_per_second": 412.37, "memory_bytes": 2_712_345_678}
            tell(events.Step(step=number, loss=loss, learning_rate=rate, grad_norm=norm, **told))
            if number % CHECKS == 0:
                tell(events.Evaluated(step=number, loss=loss + 0.1))
        tell(events.Finished(step=steps, result={"steps": steps}))


def timed(repeat: int, work: Callable[[], object]) -> float:
    """Return the median seconds of the work."""
    taken = []
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def drawn(run: Run, watch: Watch) -> int:
    """Draw what the page of a run shows; return the characters sent to the browser."""
    curve = watch(run)
    return sum(map(len, (run_page.state_line(run, curve), run_page.figures(run, curve, 0), curve.figures)))


def ten_runs(home: Path) -> None:
    """List ten runs, then open and draw each."""
    studio, watch = Studio(home), Watch()
    for run in studio.runs.list():
        drawn(run, watch)


def one_long_run(home: Path) -> tuple[float, float]:
    """Open one run: the seconds to its first picture, and until all of it is read."""
    begin = time.perf_counter()
    studio, watch = Studio(home), Watch()
    (run,) = studio.runs.list()
    drawn(run, watch)
    first = time.perf_counter() - begin
    while watch.behind(run):
        time.sleep(0.01)
        watch(run)
    return first, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000)
    asked = parser.parse_args()
    random.seed(1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(10):
            write_run(root / "ten", f"desk{number}", 10_000)
        found["list_ten_runs_s"] = timed(asked.repeat, lambda: Studio(root / "ten").runs.list())
        found["ten_runs_s"] = timed(asked.repeat, lambda: ten_runs(root / "ten"))

        write_run(root / "long", "desk", asked.events)
        studio, watch = Studio(root / "long"), Watch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        opened = [one_long_run(root / "long") for _ in range(asked.repeat)]
        found["million_events_s"] = median(first for first, _ in opened)
        found["million_events_whole_s"] = median(whole for _, whole in opened)
        found["million_events_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000

        (run,) = studio.runs.list()
        watch(run)
        while watch.behind(run):
            time.sleep(0.5)
            watch(run)
        curve = watch(run)

        def one_step_more() -> None:
            with open(Path(run.path) / "events.jsonl", "a", encoding="utf-8") as file:
                file.write(events.dump(events.Step(step=asked.events, loss=1, **rest)))
            watch(run)

        rest = {"learning_rate": 1e-4, "grad_norm": 1, "tokens": 9, "tokens_per_second": 9, "memory_bytes": 9}
        found["one_step_more_s"] = timed(20, one_step_more)
        found["picture_kb"] = len(curve.figures) / 1000

        (root / "told").mkdir()
        reporter = Reporter(root / "told")
        told = timed(3, lambda: [reporter.emit(events.Step(step=1, loss=1.2345, **rest)) for _ in range(1000)]) / 1000
        found["event_ms"] = 1000 * told
    for name, value in found.items():
        goal = f"   goal {GOALS[name]:g}" if name in GOALS else ""
        print(f"{name:26} {value:10.3f}{goal}")


if __name__ == "__main__":
    main()
