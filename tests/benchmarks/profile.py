"""Time and peak memory of the check of a data file: `python -m tests.benchmarks.profile [--rows N …]`.

JSON lines of short chats are made by a fixed seed, one row in a hundred with something to find, and checked in a
process of its own, as the page does it; beside the whole check, the first rows that are shown meanwhile.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from studio.services import apart
from studio.services.check import Check
from studio.storage.paths import Home
from studio.ui.data import FIRST_ROWS
from tests.benchmarks.tokenise import WORDS

VOCABULARY = [first + second for first in WORDS for second in WORDS]
FAULTS = ("cafÃ©", "<|im_end|>", "anna@acme.com", "\ufffd", "sorry " * 30)


def write(path: Path, rows: int) -> None:
    """Write chats of about 60 words; the hundredth each has a fault or repeats another but for a sign."""
    chosen = random.Random(1)
    last = ""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            question = " ".join(chosen.choices(VOCABULARY, k=chosen.randrange(8, 30)))
            answer = " ".join(chosen.choices(VOCABULARY, k=chosen.randrange(10, 70))) + "."
            if number % 100 == 99:
                fault = number // 100 % (len(FAULTS) + 1)
                line = last.replace(".", "!") if fault == len(FAULTS) else ""
                answer += f" {FAULTS[fault % len(FAULTS)]}"
            else:
                line = ""
            last = line or json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
            file.write(f"{last}\n")


def measure(home: Home, path: Path, limit: int | None) -> tuple[float, float, dict[str, int]]:
    """Return the seconds, the processor seconds, and what was found."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    *_, check = apart.check(home, path, limit=limit)
    assert isinstance(check, Check)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, {finding.kind: finding.count for finding in check.findings}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="in growing order")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home").prepare()
        for rows in options.parse_args().rows:
            path = Path(folder) / f"{rows}.jsonl"
            write(path, rows)
            first, _, _ = measure(home, path, FIRST_ROWS)
            wall, processor, found = measure(home, path, None)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest child so far
            print(
                f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB: first rows {first:.1f} s; all {wall:.1f} s, "
                f"{processor:.1f} s of the processor, {peak / 1e6:.0f} MB; {found}"
            )
            path.unlink()


if __name__ == "__main__":
    main()
