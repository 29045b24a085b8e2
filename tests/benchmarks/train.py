"""Training speed and memory against transformers' Trainer and TRL: `python -m tests.benchmarks.train ROWS.jsonl`.

ROWS.jsonl holds {"question", "answer"} rows, such as GSM8K's. The same rows, rank, targets and rate; each in a process
of its own, in turn; medians. TRL is installed into an environment of its own the first time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from studio.services.models import Models
from studio.storage.paths import Home

ROOT = Path(__file__).parents[2]
TRL = "trl==1.16.0"


def environment(folder: Path) -> Path:
    """Return the Python of an environment with TRL and the tested versions of everything else."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        constraints = str(ROOT / "build" / "constraints.txt")
        packages = [TRL, "torch", "transformers", "peft", "accelerate", "datasets"]
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *packages], check=True)
    return python


def peer(python: Path, kind: str, model: str, rows: Path, folder: Path) -> dict[str, Any]:
    script = str(Path(__file__).with_name("train_peers.py"))
    done = subprocess.run(
        [str(python), script, kind, model, str(rows)], cwd=folder, capture_output=True, text=True, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-2000:]}")
    return json.loads(found[0].removeprefix("RESULT "))


def ours(home: Path, rows: Path) -> dict[str, Any]:
    """Train on the command line, as a user does: no held-out rows, one pass in steps of 16."""
    wanted = ["data.eval_fraction=0", "method.rank=16", "train.learning_rate=2e-4", "train.effective_rows=16"]
    wanted += ["train.epochs=1", "train.precision=bf16", "train.schedule=linear", "train.warmup=0"]
    command = [sys.executable, "-m", "studio.cli", "train", "--model", "starter", "--dataset", str(rows), "--json"]
    for value in wanted:
        command += ["--set", value]
    done = subprocess.run(
        command, env=os.environ | {"PEFT_STUDIO_HOME": str(home)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    report = json.loads(done.stdout)
    events = (home / "runs" / report["run"] / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "tokens": report["real_tokens"],
        "seconds": report["train_seconds"],
        "memory": report["peak_memory_bytes"],
        "losses": [event["loss"] for event in map(json.loads, events) if event["type"] == "step"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--count", type=int, default=32, help="rows trained on")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--environment", type=Path, default=Path.home() / ".cache" / "peft-studio-benchmark")
    options = parser.parse_args()
    python = environment(options.environment)
    results: dict[str, list[dict[str, Any]]] = {"PEFT Studio": [], "Trainer, bf16, padded": [], "TRL": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder / "home").prepare()
        model = Models(home).fetch_starter().path
        lines = options.rows.read_text(encoding="utf-8").splitlines()[: options.count]
        turns = (("user", "question"), ("assistant", "answer"))
        talk = [
            {"messages": [{"role": role, "content": row[key]} for role, key in turns]} for row in map(json.loads, lines)
        ]
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in talk), encoding="utf-8")
        for _ in range(options.repeat):
            results["PEFT Studio"].append(ours(home.root, rows))
            results["Trainer, bf16, padded"].append(peer(python, "trainer", model, rows, folder))
            results["TRL"].append(peer(python, "trl", model, rows, folder))
            print(json.dumps({name: found[-1] for name, found in results.items()}), file=sys.stderr)
    print("| | tokens/s | ratio | peak memory, GB | ratio | losses |\n| --- | --- | --- | --- | --- | --- |")
    mine = results["PEFT Studio"]
    for name, found in results.items():
        speed = statistics.median(each["tokens"] / each["seconds"] for each in found)
        pairs = zip(mine, found, strict=True)
        ratio = statistics.median(
            (own["tokens"] / own["seconds"]) / (each["tokens"] / each["seconds"]) for own, each in pairs
        )
        memory = statistics.median(each["memory"] for each in found)
        part = statistics.median(each["memory"] for each in mine) / memory
        losses = ", ".join(f"{loss:.3f}" for loss in found[0]["losses"])
        print(f"| {name} | {speed:.0f} | {ratio:.2f} | {memory / 1e9:.1f} | {part:.2f} | {losses} |")


if __name__ == "__main__":
    main()
