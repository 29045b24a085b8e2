"""Is a run called what it is? `python -m tests.benchmarks.verdict BANKING77`: right labels, and shuffled ones.

BANKING77 is a folder with `train.csv` and `test.csv` of the columns text and category. Two runs of the starter model on
the same questions of ten intents, one with the labels it came with and one with them shuffled. Told are the verdict of
each run on its own held-out rows, whose labels are shuffled too in the second, and on rows of the test file.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INTENTS, EACH, TESTED = 10, 40, 10  # rows of an intent to learn from, and to test on
MAP = ["--map", "prompt=text", "--map", "response=category"]


def chosen(path: Path, intents: list[str], each: int) -> list[dict[str, str]]:
    """Return the first rows of each intent."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for intent in intents for row in [row for row in rows if row["category"] == intent][:each]]


def shuffled(rows: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Return the same questions and the same labels, not together."""
    labels = [row["category"] for row in rows]
    random.Random(seed).shuffle(labels)
    return [{"text": row["text"], "category": label} for row, label in zip(rows, labels, strict=True)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def ask(home: Path, *words: str) -> dict[str, Any]:
    """Run a command of the studio and return its JSON."""
    command = [sys.executable, "-m", "studio.cli", *words, "--json"]
    environment = os.environ | {"PEFT_STUDIO_HOME": str(home)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("banking77", type=Path)
    parser.add_argument("--home", type=Path, help="a home folder with the starter model; else one is made")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "home"
        with (options.banking77 / "train.csv").open(encoding="utf-8") as file:
            intents = sorted({row["category"] for row in csv.DictReader(file)})[:INTENTS]
        right = chosen(options.banking77 / "train.csv", intents, EACH)
        test = write(Path(folder) / "test.csv", chosen(options.banking77 / "test.csv", intents, TESTED))
        for kind, rows in (("right", right), ("shuffled", shuffled(right, options.seed))):
            data = write(Path(folder) / f"{kind}.csv", rows)
            given = ["--model", "starter", "--dataset", str(data), *MAP, "--name", f"verdict-{kind}"]
            run = ask(home, "train", *given)
            answers = str(INTENTS * TESTED)
            told = ask(home, "evaluate", run["adapter"], "--dataset", str(test), *MAP, "--answers", answers)
            print(f"{kind}, {run['train_seconds']:.0f} s in steps")
            print(f"  own held-out rows: {run['eval']['verdict']}")
            print(f"  advice: {run['closing']['advice']}")
            print(f"  test rows: {told['verdict']}")
            print(f"  {json.dumps({key: told[key] for key in ('link', 'general', 'difference')})}", flush=True)


if __name__ == "__main__":
    main()
