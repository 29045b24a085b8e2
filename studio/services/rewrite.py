"""A repaired copy of a data file: its rows in its own columns, changed or left out only where a repair says so."""

import csv
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel
from pydantic_core import to_json

from studio.domain.errors import DataError
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Difference
from studio.services.check import REPORT_EVERY, check_file, first_examples, held_out_rows, open_file
from studio.services.findings import around, shorten
from studio.services.formats import Problem
from studio.services.recognise import RowValue
from studio.services.repair import Repairs, settle
from studio.services.sniff import BROKEN

SHOWN = 20  # rows whose difference is told
Write = Callable[[RowValue], object]


class Rewritten(BaseModel):
    """What a repair did, or would do without `out`. `changed` and `left_out` count rows by repair."""

    out: str = ""
    rows: int = 0
    written: int = 0
    changed: dict[str, int] = {}
    left_out: dict[str, int] = {}
    unreadable: int = 0
    differences: list[Difference] = []


def rewrite(
    path: str | Path,
    out: str | Path | None,
    kinds: Sequence[str],
    *,
    format: str = "auto",
    map: dict[str, str] | None = None,
    max_tokens: int | None = None,
    held_out: str | Path | None = None,
    report: Report = ignore,
) -> Rewritten:
    """Read a file, and write it with these findings repaired; without `out` nothing is written.

    Raises DataError when the copy cannot be of that kind, or is there already.
    """
    found = check_file(path, format=format, map=map, max_tokens=max_tokens, held_out=held_out, report=report)
    source, layout = open_file(path, format, map)
    first = first_examples(source, layout)
    held = held_out_rows(held_out, layout, first, format, map)
    repairs = Repairs(settle(kinds, found.findings), layout, first, held)
    result = Rewritten(out=str(out or ""))
    with _writer(out, layout.columns) as write:
        for number, row in source.rows():
            result.rows += 1
            if number % REPORT_EVERY == 0:
                told = f"Repairing: {number:,} rows so far"
                report(Phase(words=told, done=source.bytes_read(), total=source.size, unit="bytes"))
            if isinstance(row, Problem):
                result.unreadable += 1
                continue
            after, outcome = repairs.read(number, row)
            if (after is not row or isinstance(outcome, str)) and len(result.differences) < SHOWN:
                result.differences.append(_difference(number, row, None if isinstance(outcome, str) else after))
            if not isinstance(outcome, str):
                write(after)
                result.written += 1
        source.must_be_unchanged()
    result.changed, result.left_out = dict(+repairs.changed), dict(repairs.left_out)
    return result


def _difference(number: int, before: RowValue, after: RowValue | None) -> Difference:
    if after is None:
        return Difference(row=number, before=shorten(_text(before)))
    return around(number, "secrets", _text(before), _text(after))


def _text(row: RowValue) -> str:
    return row if isinstance(row, str) else " · ".join(str(value) for value in row.values())


@contextmanager
def _writer(out: str | Path | None, columns: list[str]) -> Iterator[Write]:
    """Hand out what writes a row; the file is there under its name only once it is whole."""
    if out is None:
        yield lambda row: None
        return
    path = Path(out).expanduser().absolute()
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"A copy cannot be written as {path.name}.", f"Name a file that ends in {', '.join(WRITERS)}.")
    if path.exists():
        raise DataError(f"There is a file {path} already.", "Name another file for the copy.")
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(staging, "x", encoding="utf-8", newline="") as file:
            yield kind(file, columns)
        os.link(staging, path) if hasattr(os, "link") else staging.rename(path)  # a link never replaces a file
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}.", "Check the folder and its disk.") from error
    finally:
        staging.unlink(missing_ok=True)


def _lines(file: TextIO, columns: list[str]) -> Write:
    return lambda row: file.write(f"{_json({'text': row} if isinstance(row, str) else row)}\n")


def _table(delimiter: str) -> Callable[[TextIO, list[str]], Write]:
    def begin(file: TextIO, columns: list[str]) -> Write:
        # Cells are written as they are: this is data to learn from, and a quote before a formula would be learned.
        table = csv.DictWriter(file, columns or ["text"], delimiter=delimiter, lineterminator="\n")
        table.writeheader()

        def write(row: RowValue) -> None:
            cells = {"text": row} if isinstance(row, str) else row
            more = next((name for name in cells if name not in table.fieldnames), None)
            if more is not None:
                raise DataError(
                    f"`{more}` is not a column of the first rows, so a table cannot hold it.", "Name a .jsonl file."
                )
            table.writerow({name: _cell(value) for name, value in cells.items()})

        return write

    return begin


def _paragraphs(file: TextIO, columns: list[str]) -> Write:
    def write(row: RowValue) -> None:
        if not isinstance(row, str):
            raise DataError("Rows with columns cannot be written as plain text.", "Name a .jsonl or .csv file.")
        file.write(f"{row}\n\n")

    return write


def _cell(value: Any) -> Any:
    return _json(value) if isinstance(value, dict | list) else value


def _json(value: Any) -> str:
    """Return strict JSON on one line; half characters are escaped, dates are text, and what is no number is null."""
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return to_json(value, inf_nan_mode="null").decode()
    return json.dumps(value, allow_nan=False, default=str) if BROKEN.search(line) else line


WRITERS = {".jsonl": _lines, ".csv": _table(","), ".tsv": _table("\t"), ".txt": _paragraphs}
