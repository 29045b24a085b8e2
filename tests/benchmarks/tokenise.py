"""Rows tokenised a second against `datasets.map`, and memory for many rows: `python -m tests.benchmarks.tokenise`.

With ROWS.jsonl of {"question", "answer"} rows, such as GSM8K's: ours, reading and keeping included, against `map` with
`apply_chat_template`, its reading left out; in one process and, as information, in two; in turn, medians. With `--rows
N`: peak memory of tokenising N short chats, cutting them into steps and packing one, beside the same with 10,000.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from studio.services.models import Models
from studio.storage.paths import Home
from tests.benchmarks.train import environment

ROOT = Path(__file__).parents[2]
FEW = 10_000
WORDS = [
    "sky",
    "sea",
    "tree",
    "bird",
    "stone",
    "river",
    "cloud",
    "wind",
    "house",
    "road",
    "lamp",
    "boat",
    "field",
    "rain",
    "snow",
    "leaf",
    "hill",
    "bell",
    "door",
    "song",
]


def ours(model: str, path: str) -> dict[str, float]:
    """Tokenise in this process, as a run does, and make its first step."""
    import numpy as np

    from studio.engine import tokens
    from studio.engine.batches import Steps

    tokenizer = tokens.load_tokenizer(Path(model))
    template = tokens.template_of(tokenizer)
    before, began, start = processor(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = tokens.tokenise(tokenizer, Path(path), template)
    wall, after = time.perf_counter() - began, processor()
    usable = table[np.flatnonzero(table.labels())]
    assert Steps(usable, 16, 2048, 10, 42, None)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(table),
        "wall": wall,
        "processor": after - before,
        "start": start * 1024,
        "memory": peak * 1024,
    }


def processor() -> float:
    """Seconds of the processor that this process and the child that renders templates have taken."""
    here = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in [here, *here.children(recursive=True)])


def result(command: list[str], folder: Path) -> dict[str, Any]:
    hidden = {"HF_DATASETS_CACHE": str(folder / "datasets"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    if "-m" in command:
        hidden |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=os.environ | hidden, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{command[1:3]} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0].removeprefix("RESULT "))


def once(model: str, path: Path) -> dict[str, Any]:
    """Run `ours` in a process of its own, with no tokens kept."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        copy = Path(name) / "rows.jsonl"
        os.link(path, copy)
        return result([sys.executable, "-m", "tests.benchmarks.tokenise", "--ours", model, str(copy)], path.parent)


def speed(model: str, rows: Path, folder: Path, options: argparse.Namespace) -> None:
    turns = (("user", "question"), ("assistant", "answer"))
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    talk = [{"messages": [{"role": role, "content": row[key]} for role, key in turns]} for row in lines]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in talk) * options.times, encoding="utf-8")
    python, script = str(environment(options.environment, "trl")), str(Path(__file__).with_name("tokenise_peer.py"))
    taken: dict[str, list[dict[str, Any]]] = {"PEFT Studio": [], "map": [], "map, 2 processes": []}
    for _ in range(options.repeat):
        taken["PEFT Studio"].append(once(model, path))
        # -P: this folder has a file that is called as one of Python's own
        taken["map"].append(result([python, "-P", script, model, str(path), "1"], folder))
        taken["map, 2 processes"].append(result([python, "-P", script, model, str(path), "2"], folder))
        print(json.dumps({name: found[-1] for name, found in taken.items()}), file=sys.stderr)
    print("| | rows/s | ours, times as fast | rows per processor second | ours, times as many |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in taken.items():
        cells = []
        for kind in ("wall", "processor"):
            pairs = zip(taken["PEFT Studio"], found, strict=True)
            ratio = median(each[kind] / mine[kind] for mine, each in pairs)
            cells += [f"{median(each['rows'] / each[kind] for each in found):.0f}", f"{ratio:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def flat(model: str, folder: Path, count: int) -> None:
    print("| rows | file, MB | tokenised in, s | peak memory, MB | of it before the rows, MB |")
    print("| --- | --- | --- | --- | --- |")
    for number in (FEW, count):
        path = folder / f"{number}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for row in range(number):
                a, b, c = (WORDS[row // 20**place % 20] for place in range(3))
                said = (("user", f"What is {row} times the {a}?"), ("assistant", f"The {b} and the {c}, {row * 7}."))
                messages = [{"role": role, "content": text} for role, text in said]
                file.write(json.dumps({"messages": messages, "row": row + 1}) + "\n")
        found = once(model, path)
        size, memory, start = (value / 1e6 for value in (path.stat().st_size, found["memory"], found["start"]))
        print(f"| {number:,} | {size:.0f} | {found['wall']:.0f} | {memory:.0f} | {start:.0f} |", flush=True)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", metavar="ROWS.jsonl")
    parser.add_argument("--rows", type=int, help="measure memory with so many short chats")
    parser.add_argument("--times", type=int, default=10, help="how often the file's rows are repeated")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--environment", type=Path, default=Path.home() / ".cache" / "peft-studio-benchmark")
    parser.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print("RESULT " + json.dumps(ours(*options.ours)))
        return
    if not options.file and not options.rows:
        parser.error("give ROWS.jsonl, --rows, or both")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Models(Home(folder / "home").prepare()).fetch_starter().path
        if options.file:
            speed(model, options.file, folder, options)
        if options.rows:
            flat(model, folder, options.rows)


if __name__ == "__main__":
    main()
