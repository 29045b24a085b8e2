"""The recommended settings against others around them: `python -m tests.benchmarks.defaults DATA OUT`.

DATA holds `banking77/train.csv` and `gsm8k/train.jsonl`; the third data set is the bundled sample. Each has the purpose
the page would suggest. From what is recommended one value at a time is changed: the learning rate, the rank, the
passes. Each setting is trained with the same seeds on the command line, as a user does, and its kept step is measured
on the same held-out rows. OUT keeps the result of each run, so that a sweep that was ended goes on where it was; the
table is printed at the end. Whole it takes hours; `--rows 60 --seeds 1 --only support --steps 4` tries it.
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from studio.services.datasets import sample_path
from studio.services.models import Models
from studio.storage.paths import Home

ROOT = Path(__file__).parents[2]
CHANGED = ("train.learning_rate", "method.rank", "train.epochs")
FACTORS = (0.25, 0.5, 2, 4)  # what the recommended value is multiplied by
RECOMMENDED = "recommended"
Result = dict[str, Any]


def sets(data: Path, rows: int, folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield each data set's name, its file of at most so many rows drawn by a fixed seed, its map and its purpose."""
    folder.mkdir(parents=True, exist_ok=True)
    banking, columns = folder / "banking77.csv", ["--map", "prompt=text", "--map", "response=category"]
    columns += ["--profile", "classification"]
    with open(data / "banking77" / "train.csv", newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    with open(banking, "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([head, *_drawn(lines, rows)])
    yield "banking77", banking, columns
    sums = folder / "gsm8k.jsonl"
    drawn = _drawn((data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines(), rows)
    sums.write_text("\n".join(drawn) + "\n", encoding="utf-8")
    yield "gsm8k", sums, []
    yield "support", sample_path(), []


def _drawn(rows: list[Any], count: int) -> list[Any]:
    return rows if len(rows) <= count else random.Random(7).sample(rows, count)


class Sweep:
    """Runs settings on the command line in a home of its own; what was run before is read back."""

    def __init__(self, out: Path, steps: int, held: float) -> None:
        self.out, self.steps, self.held, self.home = out, steps, held, Home(out / "home").prepare()
        Models(self.home).fetch_starter()

    def command(self, *words: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "studio.cli", *words, "--json"],
            env=os.environ | {"PEFT_STUDIO_HOME": str(self.home.root)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found: Result = json.loads(done.stdout)
        return found

    def recommended(self, file: Path, columns: list[str]) -> Result:
        words = ["train", "--model", "starter", "--dataset", str(file), *columns, "--print-config"]
        words += ["--set", f"data.eval_fraction={self.held}"]
        config: Result = self.command(*words)["config"]
        return config

    def train(self, name: str, file: Path, columns: list[str], change: dict[str, Any], seed: int) -> Result:
        """Train once, with the change and this seed, and return what the adapter is measured at."""
        said = "-".join([name, *(f"{key.split('.')[1]}={value:g}" for key, value in change.items()), f"seed={seed}"])
        kept = self.out / f"{said}.json"
        if not kept.exists():
            # one split of the rows for all seeds: the split has a seed of its own
            wanted = change | {"train.seed": seed, "evaluate.answers": 0, "evaluate.samples": 0}
            wanted |= {"data.eval_fraction": self.held}
            words = ["train", "--model", "starter", "--dataset", str(file), *columns, "--name", name]
            words += ["--max-steps", str(self.steps)] if self.steps else []
            for key, value in wanted.items():
                words += ["--set", f"{key}={value}"]
            kept.write_text(json.dumps(self.command(*words)), encoding="utf-8")
        result = json.loads(kept.read_text(encoding="utf-8"))
        return {
            "loss": result["eval"]["adapter"]["loss"],
            "base": result["eval"]["base"]["loss"],
            "seconds": result["train_seconds"],
        }


def changes(config: Result, keys: list[str], factors: list[float]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings to try: their words, and what differs from the recommendation."""
    yield RECOMMENDED, {}
    for key, factor in product(keys, factors):
        group, name = key.split(".")
        usual = config[group][name]
        value = usual * factor if key != "method.rank" else max(1, round(usual * factor))
        yield f"{name.replace('_', ' ')} {value:g}", {key: value}


def verdict(tried: dict[str, list[float]]) -> tuple[str, float, float]:
    """Return the best setting, how much better it is than the recommendation, and what is noise.

    Noise is twice the standard error of the difference of two means, by the spread over the seeds of all settings.
    """
    spread = [statistics.variance(losses) for losses in tried.values() if len(losses) > 1]
    error = (statistics.fmean(spread) * 2 / len(tried[RECOMMENDED])) ** 0.5 if spread else 0.0
    best = min(tried, key=lambda name: statistics.fmean(tried[name]))
    return best, statistics.fmean(tried[RECOMMENDED]) - statistics.fmean(tried[best]), 2 * error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000, help="of each data set, held-out ones included")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="end each run after so many; 0: as recommended")
    parser.add_argument("--held", type=float, default=0.1, help="share of the rows that is held out")
    parser.add_argument("--only", nargs="*", default=[], help="names of data sets")
    parser.add_argument("--change", nargs="*", default=CHANGED, help="what is changed")
    parser.add_argument("--factors", nargs="*", type=float, default=FACTORS, help="what it is multiplied by")
    options = parser.parse_args()
    sweep = Sweep(options.out, options.steps, options.held)
    for name, file, columns in sets(options.data, options.rows, options.out / "data"):
        if options.only and name not in options.only:
            continue
        config = sweep.recommended(file, columns)
        tried: dict[str, list[float]] = {}
        print(f"\n{name}\n\n| setting | held-out loss | by seed | seconds in steps |\n| --- | --- | --- | --- |")
        for words, change in changes(config, options.change, options.factors):
            found = [sweep.train(name, file, columns, change, 42 + turn) for turn in range(options.seeds)]
            tried[words] = [each["loss"] for each in found]
            losses = ", ".join(f"{loss:.4f}" for loss in tried[words])
            seconds = statistics.median(each["seconds"] for each in found)
            print(f"| {words} | {statistics.fmean(tried[words]):.4f} | {losses} | {seconds:.0f} |", flush=True)
        best, better, noise = verdict(tried)
        held = "within noise of it" if better <= noise else "not within noise of it"
        print(f"\nBest: {best}, {better:.4f} below the recommendation, which is {held} ({noise:.4f}).", flush=True)


if __name__ == "__main__":
    main()
