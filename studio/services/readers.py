"""Readers: a generator for each kind of file, yielding its rows one after the other in flat memory."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from studio.domain.errors import DataError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

LONGEST = 16 * 2**20  # characters of one line, record, paragraph or JSON value: beyond that the file is broken
AT_ONCE = 16  # rows of Parquet unpacked together
DEEPEST = 50  # levels of lists and objects inside one row


class Refused(Exception):
    """A row that cannot be used. `what` goes on from "Row 41 ", `remedy` is the next step."""

    def __init__(self, what: str, remedy: str = "Correct it or leave the row out.") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


Value = dict[str, Any] | str | Refused


def lines(file: TextIO, name: str) -> Iterator[str]:
    """Yield the lines, refusing one that never ends before it fills the memory."""
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise DataError(
                f"Line {number} of {name} is longer than 16 MB.",
                "Check that the file has line breaks between its rows.",
            )
        yield line


def too_deep(value: Any) -> bool:
    """Tell whether lists and objects are nested deeper than any real row, without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


# --- CSV ----------------------------------------------------------------------------------------------------------


class _Feed:
    """Hands lines to the csv module and keeps those of the current record, to read them again after a broken one."""

    def __init__(self, source: Iterator[str]) -> None:
        self.source = source
        self.again: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.used: list[str] = []
        self.size = 0

    def rewind(self) -> None:
        self.again.extend(reversed(self.used[1:]))

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self.again.pop() if self.again else next(self.source)
        self.used.append(line)
        self.size += len(line)
        if self.size > LONGEST:
            raise csv.Error("record too long")
        return line


def records(source: Iterator[str], delimiter: str) -> Iterator[list[str] | None]:
    """Yield the cells of each record, or None when its quotes do not match; reading goes on at its next line."""
    csv.field_size_limit(LONGEST)
    feed = _Feed(source)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        cells: list[str] | None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            cells = None
            feed.rewind()
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        if cells != []:  # a blank line
            yield cells


def csv_rows(source: Iterator[str], delimiter: str, name: str) -> Iterator[Value]:
    """Yield a dict for each record, its keys from the header."""
    rows = records(source, delimiter)
    columns = _header(next(rows, []), name)
    for cells in rows:
        if cells is None:
            yield Refused("opens a quote that is not closed properly.", "Correct the quotes or leave the row out.")
        elif len(cells) != len(columns):
            cell = "cell" if len(cells) == 1 else "cells"
            yield Refused(f"has {len(cells)} {cell}, the header has {len(columns)}.")
        else:
            yield dict(zip(columns, cells, strict=True))


def _header(cells: list[str] | None, name: str) -> list[str]:
    if cells is None:
        raise DataError(f"The quotes in the header of {name} do not match.", "Correct the first line.")
    columns = [cell.strip() or f"column {place}" for place, cell in enumerate(cells, 1)]
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f"The header of {name} names `{column}` twice.", "Rename one of the two columns.")
    return columns


# --- text and Parquet ---------------------------------------------------------------------------------------------


def text_rows(source: Iterator[str], name: str) -> Iterator[Value]:
    """Yield the paragraphs: blocks of lines between blank lines."""
    block: list[str] = []
    size = 0
    for line in chain(source, [""]):
        if line.strip():
            block.append(line.rstrip("\r\n"))
            size += len(line)
            if size > LONGEST:
                raise DataError(
                    f"{name} has no blank line in 16 MB of text.",
                    "Separate the texts with blank lines: each is one row.",
                )
        elif block:
            yield "\n".join(block)
            block, size = [], 0


@contextmanager
def _parquet(source: BinaryIO, name: str) -> Iterator["ParquetFile"]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(source, pre_buffer=False) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read as Parquet.", "Write it again, or export it as CSV.") from error


def parquet_size(source: BinaryIO, name: str) -> int:
    """Return the bytes of the unpacked columns."""
    with _parquet(source, name) as file:
        groups = file.metadata
        return sum(groups.row_group(place).total_byte_size for place in range(groups.num_row_groups))


def _label_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of labels that are kept as numbers, which data sets of the Hub write beside the columns."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # written by something else


def parquet_rows(source: BinaryIO, name: str) -> Iterator[Value]:
    """Yield the rows of a Parquet file, unpacked a few at a time."""
    from pyarrow import BaseExtensionType

    with _parquet(source, name) as file:
        for field in file.schema_arrow:
            if isinstance(field.type, BaseExtensionType):  # foreign code would have to decode it
                raise DataError(
                    f"Column `{field.name}` of {name} has a special type, {field.type}.",
                    "Write it as plain text, or leave the column out.",
                )
        _header(file.schema_arrow.names, name)
        labels = _label_names(file.schema_arrow.metadata or {})
        for batch in file.iter_batches(batch_size=AT_ONCE, use_threads=False):
            if batch.nbytes > AT_ONCE * LONGEST:  # a few kilobytes can unpack to gigabytes
                raise DataError(f"{name} has rows of more than 16 MB.", "Split the long texts into more rows.")
            for row in batch.to_pylist():
                for column, names in labels.items():
                    place = row.get(column)
                    row[column] = names[place] if isinstance(place, int) and 0 <= place < len(names) else None
                yield Refused(f"is nested more than {DEEPEST} levels deep.") if too_deep(row) else row
