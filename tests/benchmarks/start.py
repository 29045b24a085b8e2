"""Start of a run whose tokens are kept, beside the bare import of its libraries: `python -m tests.benchmarks.start`.

Both in turn, each in a process of its own with the engine's environment, timed from the start of the process: the
engine to its event `started`, before the first held-out check and the first step, and to the end of the first step.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from studio.domain.document import from_document
from studio.services import jobs
from studio.studio import Studio

BARE = "import torch, transformers, peft, accelerate; from transformers import Trainer, AutoModelForCausalLM"
GOAL = 1.3
# two steps of few rows: the second is never waited for
SETTINGS = {
    "model": {"id": "starter"},
    "train": {"max_steps": 2, "effective_rows": 2},
    "evaluate": {"answers": 0},
}
Times = dict[str, tuple[float, float]]  # wall and processor seconds to each moment


def imported() -> Times:
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", BARE], env=jobs.environment(), stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit("The libraries cannot be imported.")
    return {"import": (time.perf_counter() - began, used.ru_utime + used.ru_stime)}


def engine(prepared: Path) -> Times:
    """Start the engine on a copy of a prepared run; return when it began and when its first step was done."""
    directory = prepared.with_name("again")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(prepared, directory)
    found: Times = {}
    began, log, offset = time.perf_counter(), directory / "worker.log", 0
    child = jobs.spawn("train", directory, log)
    process = psutil.Process(child.pid)
    while "step" not in found:
        seen, offset = jobs.read_events(directory / "events.jsonl", offset)
        for kind in (event.type for event in seen):
            spent = process.cpu_times()
            found.setdefault(kind, (time.perf_counter() - began, spent.user + spent.system))
        if child.poll() is not None and "step" not in found:
            raise SystemExit(jobs.died(child.returncode, log))
        time.sleep(0.005)
    child.kill()
    child.wait()
    return {"started": found["started"], "first step": found["step"]}


def measure(repeat: int) -> dict[str, tuple[float, float]]:
    """Return the medians of wall and processor seconds to each moment."""
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turns = (("user", "What is {} and {}?"), ("assistant", "It is {}{}."))
        rows = [[{"role": role, "content": text.format(a, b)} for role, text in turns] for a in range(8) for b in "ab"]
        (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), "utf-8")
        studio = Studio(folder / "home")
        studio.models.fetch_starter()
        run = studio.runs.prepare(from_document(SETTINGS | {"data": {"path": str(folder / "rows.jsonl")}}))
        for number in range(repeat + 1):  # the first keeps the tokens, warms the disk's cache and is not counted
            for moment, figures in (imported() | engine(Path(run.path))).items():
                print(
                    f"round {number}  {moment:10}  {figures[0]:6.2f} s, {figures[1]:6.2f} s of processor",
                    file=sys.stderr,
                )
                if number:
                    taken.setdefault(moment, []).append(figures)
    return {moment: (median(each[0] for each in all), median(each[1] for each in all)) for moment, all in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    found = measure(parser.parse_args().repeat)
    bare = found.pop("import")
    print("| to | wall, s | times the import | processor, s | times the import |\n| --- | --- | --- | --- | --- |")
    print(f"| bare import | {bare[0]:.2f} | | {bare[1]:.2f} | |")
    for moment, (wall, spent) in found.items():
        print(f"| {moment} | {wall:.2f} | {wall / bare[0]:.2f} | {spent:.2f} | {spent / bare[1]:.2f} |")
    print(f"Goal: the first step begins after at most {GOAL} times the import.")


if __name__ == "__main__":
    main()
