"""Training speed and memory against Trainer, TRL and Unsloth: `python -m tests.benchmarks.train ROWS.jsonl`.

ROWS.jsonl holds {"question", "answer"} rows, such as GSM8K's. The same rows, rank, targets and rate; each in a process
of its own, in turn; medians. TRL and Unsloth are installed into environments of their own the first time. With
`--seeds 3` each trains with three seeds, which set the order of the rows too, and the losses are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.services.models import Models
from studio.storage.paths import Home

ROOT = Path(__file__).parents[2]
OURS = "PEFT Studio"
TESTED = ("-c", str(ROOT / "build" / "constraints.txt"))  # the versions the studio is tested with
# Unsloth wants older versions, and by itself would bring a torch for graphics cards.
PEERS = {
    "trainer": ("", [*TESTED, "trl==1.16.0", "torch", "transformers", "peft", "accelerate", "datasets"]),
    "trl": ("", []),
    "unsloth": (
        "-unsloth",
        ["torch==2.13.0", "unsloth==2026.10.9", "transformers==5.17.0", "trl==1.15.0", "datasets<5"],
    ),
}
NAMES = {"ours": OURS, "trainer": "Trainer, bf16, padded", "trl": "TRL", "unsloth": "Unsloth"}
LAST = 4  # the last quarter of the steps says how it ended


def environment(folder: Path, peer: str) -> Path:
    """Return the Python of the environment a peer runs in."""
    suffix, packages = PEERS[peer]
    python = folder.with_name(folder.name + suffix) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        # Unsloth asks for it, and what is brought is for graphics cards: it does not load beside this torch
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
    return python


def peer(
    python: Path, kind: str, model: str, rows: Path, folder: Path, seed: int, per_step: int = 16
) -> dict[str, Any]:
    script = str(Path(__file__).with_name("train_peers.py"))
    # -P: this folder has a file that is called as one of Python's own
    command = [str(python), "-P", script, kind, model, str(rows), str(seed), str(per_step)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0].removeprefix("RESULT "))


def ours(
    home: Path,
    rows: Path,
    seed: int,
    precision: str = "bf16",
    model: str = "starter",
    per_step: int = 16,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Train on the command line, as a user does: no held-out rows, one pass."""
    wanted = ["data.eval_fraction=0", "method.rank=16", "train.learning_rate=2e-4", f"train.effective_rows={per_step}"]
    wanted += [
        "train.epochs=1",
        f"train.precision={precision}",
        f"train.seed={seed}",
        "train.schedule=linear",
        "train.warmup=0",
        *also,
    ]
    command = [sys.executable, "-m", "studio.cli", "train", "--model", model, "--dataset", str(rows), "--json"]
    for value in wanted:
        command += ["--set", value]
    done = subprocess.run(
        command, env=os.environ | {"PEFT_STUDIO_HOME": str(home)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    report = json.loads(done.stdout)
    events = (home / "runs" / report["run"] / "events.jsonl").read_text(encoding="utf-8").splitlines()
    told = [event for event in map(json.loads, events) if event["type"] == "step"]
    first, last = told[0], told[-1]
    return {
        "tokens": report["real_tokens"],
        "seconds": report["train_seconds"],
        "memory": report["peak_memory_bytes"],
        "after_first": (last["tokens"] - first["tokens"]) / max(last["elapsed"] - first["elapsed"], 1e-9),
        "losses": [event["loss"] for event in told],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--count", type=int, default=32, help="rows trained on")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=0, help="compare losses over so many seeds instead of speed")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--environment", type=Path, default=Path.home() / ".cache" / "peft-studio-benchmark")
    options = parser.parse_args()
    pythons = {name: environment(options.environment, name) for name in options.peers}
    kinds = ["ours", *(["fp32"] if options.seeds else []), *options.peers]
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder / "home").prepare()
        model = Models(home).fetch_starter().path
        rows = rows_of(options.rows, options.count, folder)
        for turn in range(options.seeds or options.repeat):
            seed = 42 + (turn if options.seeds else 0)
            for kind in kinds:
                if kind in ("ours", "fp32"):
                    made = ours(home.root, rows, seed, "fp32" if kind == "fp32" else "bf16")
                else:
                    made = peer(pythons[kind], kind, model, rows, folder, seed)
                results[kind].append(made)
                print(json.dumps({kind: made}), file=sys.stderr)
    _losses(results) if options.seeds else _speeds(results)


def rows_of(path: Path, count: int, folder: Path) -> Path:
    """Write the first rows as conversations."""
    turns = (("user", "question"), ("assistant", "answer"))
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    talk = [
        {"messages": [{"role": role, "content": row[key]} for role, key in turns]} for row in map(json.loads, lines)
    ]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in talk), encoding="utf-8")
    return rows


def _speeds(results: dict[str, list[dict[str, Any]]]) -> None:
    print("| | tokens/s | ours, times as fast | peak memory, GB | ours, as a share | losses |")
    print("| --- | --- | --- | --- | --- | --- |")
    mine = results["ours"]
    for kind, found in results.items():
        speed = statistics.median(each["tokens"] / each["seconds"] for each in found)
        pairs = zip(mine, found, strict=True)
        ratio = statistics.median(
            (own["tokens"] / own["seconds"]) / (each["tokens"] / each["seconds"]) for own, each in pairs
        )
        memory = statistics.median(each["memory"] for each in found)
        part = statistics.median(each["memory"] for each in mine) / memory
        losses = ", ".join(f"{loss:.3f}" for loss in found[0]["losses"])
        print(f"| {NAMES[kind]} | {speed:.0f} | {ratio:.2f} | {memory / 1e9:.2f} | {part:.2f} | {losses} |")


def _losses(results: dict[str, list[dict[str, Any]]]) -> None:
    """Within noise: the means differ by less than twice the standard error of their difference over the seeds."""
    ends = {
        kind: [statistics.fmean(each["losses"][-max(1, len(each["losses"]) // LAST) :]) for each in found]
        for kind, found in results.items()
    }
    print("| | loss of the last quarter, by seed | mean | difference to ours | within noise |")
    print("| --- | --- | --- | --- | --- |")
    mine = ends["ours"]
    for kind, values in ends.items():
        difference = statistics.fmean(values) - statistics.fmean(mine)
        error = sum(statistics.variance(each) / len(each) for each in (values, mine)) ** 0.5
        named = NAMES.get(kind, f"{OURS}, fp32")
        each = ", ".join(f"{value:.4f}" for value in values)
        within = "" if kind == "ours" else "yes" if abs(difference) < 2 * error else "no"
        print(f"| {named} | {each} | {statistics.fmean(values):.4f} | {difference:+.4f} | {within} |")


if __name__ == "__main__":
    main()
