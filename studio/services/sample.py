"""A sample of a file's or a data set's examples, kept in a small file that an engine can read."""

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio.domain.errors import DataError, NotFound
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Dataset
from studio.services import hub_data
from studio.services.check import REPORT_EVERY, examples, open_file
from studio.services.formats import Problem
from studio.services.seen import ENCODE
from studio.storage.paths import Home, write_atomic

ROWS, CHARACTERS = 1_000, 4_000_000  # of a sample: a second or two of tokenising at most
SCANNED = 20_000  # rows of a file that are looked at for it
KEPT = 20  # samples


class Subject(BaseModel):
    """An example, and a sample of those it stands among. `of`: how many there are; None: more than were looked at."""

    example: dict[str, Any]
    kind: str
    path: str
    of: int | None


def of_file(
    home: Home,
    path: str | Path,
    *,
    format: str = "auto",
    map: dict[str, str] | None = None,
    row: int = 0,
    report: Report = ignore,
) -> Subject:
    """Sample a file, with its example of `row`, counted from 1; 0 is the first usable one."""
    source, layout = open_file(hub_data.local(home, path, report), format, map)
    draw = random.Random(0)  # the same file gives the same sample
    drawn: list[dict[str, Any]] = []
    usable = 0
    chosen: dict[str, Any] | None = None
    trouble: Problem | None = None  # the first one
    most, read = max(SCANNED, row), 0
    for each in islice(examples(source, layout), most + 1):
        if read == most:  # there is more
            break
        read += 1
        if read % REPORT_EVERY == 0:
            report(Phase(words=f"Drawing a sample: {read:,} rows so far"))
        if isinstance(each, Problem):
            if each.row == row:
                raise DataError(f"Row {row} cannot be used. {each.problem}", each.remedy)
            trouble = trouble or each
            continue
        usable += 1
        if chosen is None and row in (0, each["row"]):
            chosen = each
        if len(drawn) < ROWS:
            drawn.append(each)
        elif (place := draw.randrange(usable)) < ROWS:
            drawn[place] = each
    else:
        most = 0  # all was read
    if chosen is None and row:
        raise NotFound(f"{source.name} has no row {row}.", f"It has {read:,}.")
    if chosen is None:
        remedy = trouble.remedy if trouble else "Add rows to it."
        raise DataError(f"{source.name} has no example that can be used.", remedy)
    draw.shuffle(drawn)
    return Subject(example=chosen, kind=layout.kind, path=_keep(home, drawn), of=None if most else usable)


def of_dataset(home: Home, dataset: Dataset, example: dict[str, Any]) -> Subject:
    """Sample what a data set has to train on: every n-th of its examples."""
    step = max(1, -(-dataset.train_rows // ROWS))
    with open(Path(dataset.path, "train.jsonl"), "rb") as file:
        drawn = [json.loads(line) for line in islice(file, None, None, step)]
    random.Random(0).shuffle(drawn)
    return Subject(example=example, kind=dataset.kind, path=_keep(home, drawn), of=dataset.train_rows)


def _keep(home: Home, drawn: list[dict[str, Any]]) -> str:
    """Write a sample under the name of its content, and delete the oldest of many."""
    text = "".join(_within(drawn))
    folder = home.cache / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    write_atomic(path, text)
    for old in sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return str(path)


def _within(drawn: list[dict[str, Any]]) -> Iterator[str]:
    """Yield examples as lines, as long as they are not too much to tokenise while someone waits."""
    total = 0
    for each in drawn:
        line = ENCODE(each) + "\n"
        total += len(line)
        if total > CHARACTERS and total > len(line):
            return
        yield line
