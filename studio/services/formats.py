"""Data files: what a file is, in which encoding, and its numbered rows; pictures and broken files are refused."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pydantic import BaseModel

from studio.domain.errors import DataError
from studio.services import json_rows, packed, readers, sniff
from studio.services.readers import Refused, Value
from studio.services.sniff import BROKEN, USE

KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".md": "text",
    ".parquet": "parquet",
}
TITLES = {"json": "JSON", "jsonl": "JSON lines", "text": "Plain text, a paragraph a row", "parquet": "Parquet"}


def readable(text: str) -> str:
    """Return the text with a mark in place of each byte that is no text, so that it can be shown and stored."""
    return BROKEN.sub("\ufffd", text)


class Problem(BaseModel):
    """A row that cannot be used, why, and what to do."""

    row: int
    problem: str
    remedy: str


Row = tuple[int, dict[str, Any] | str | Problem]


class Source:
    """A data file that can be read. `words` says what it is: "Comma-separated, UTF-8"."""

    def __init__(self, path: str | Path, most: int | None = None) -> None:
        self.path, self.member = packed.locate(Path(path).expanduser().absolute())
        self.name = self.path.name
        self._named = Path(self.member) if self.member else self.path
        if BROKEN.search(str(self.path)):
            raise DataError(f"The path {readable(str(self.path))} is not valid text.", "Rename the file or its folder.")
        self._raw: BinaryIO | None = None
        try:
            self._stat = self._state()
            self.size = self.path.stat().st_size
            with open(self.path, "rb") as file:
                head = file.read(2**16)
        except FileNotFoundError as error:
            raise DataError(f"There is no file {self.path}.", "Check the path.") from error
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {error.strerror}.", "Choose a file, and check that you may read it."
            ) from error
        head = self._unpacked(head)
        if not head:
            raise DataError(f"{self.name} is empty.", "Choose a file with at least one example.")
        self.container = self._container(head)
        self.encoding, self._delimiter, self._skipped = "", "", False
        self.notes: list[str] = []  # what was decided that may be wrong
        if self.container == "parquet":
            self._parquet = self._seekable()
            self._length = readers.parquet_size(self._parquet, self.name)
        else:
            self._text(head, most)
        self.words = self._words()

    def _text(self, head: bytes, most: int | None) -> None:
        """Find out how the bytes become lines, and what the lines are whatever the name says."""
        with self._bytes() as file:
            self._codec, self._errors, self.encoding, self._length = sniff.encoding(head, file, self.name, most)
        if self._codec in sniff.FAMILIES:
            self.notes.append(
                f"{self.name} is not UTF-8. It was read as {self.encoding}: look at the accents in the examples."
            )
        try:
            with self._open() as file:
                begin = file.read(2**16)
                if self.container in ("json", "jsonl") and begin[:1] == "{" and "\n" not in begin:
                    begin += file.readline(readers.LONGEST) + file.readline(1000)  # a long first line and the next
            if self.container != "json" or _is_jsonl(begin):
                self.container = _by_content(begin, self.container)
            if self.container == "csv":
                first = begin.split("\n", 1)[0]
                stated = sniff.stated_delimiter(first)
                self._skipped = bool(stated)
                tabs = self._suffix in (".tsv", ".tab", ".txt") and "\t" in first
                self._delimiter = stated or ("\t" if tabs else sniff.delimiter(begin[: 2**16]))
                header = next(readers.records(iter(begin.splitlines(True)[self._skipped :]), self._delimiter), None)
                if sniff.is_no_header(header or []):
                    self.notes.append(
                        f"The first line of {self.name} was taken as the names of the columns. If it is a row, write "
                        "a line of names above it."
                    )
        except UnicodeError as error:
            raise self._broken_off(0) from error

    def _words(self) -> str:
        kind = sniff.DELIMITERS.get(self._delimiter) or TITLES.get(self.container) or "Separated values"
        if {KINDS[self._suffix], self.container} not in ({self.container}, {"json", "jsonl"}):
            kind += f" though its name says {self._suffix}"
        packing = f"{self.member} in a ZIP archive" if self.member else f"packed with {self._how}" if self._how else ""
        return ", ".join(filter(None, (kind, self.encoding, packing)))

    @property
    def stem(self) -> str:
        """The name without what says how it is packed and written."""
        return Path(packed.inner_name(self._named)).stem

    def rows(self) -> Iterator[Row]:
        """Yield each row with its number, counted from 1 without the header; a bad one as a Problem."""
        number = 0
        try:
            for number, value in enumerate(self._values(), 1):
                if isinstance(value, Refused):
                    yield number, Problem(row=number, problem=f"Row {number} {value.what}", remedy=value.remedy)
                else:
                    yield number, value
        except UnicodeError as error:
            raise self._broken_off(number) from error
        if not number:
            header = "has a header but no rows" if self.container == "csv" else "has no rows"
            raise DataError(f"{self.name} {header}.", "Choose a file with at least one example.")

    def head(self, count: int = 100) -> list[dict[str, Any] | str]:
        """Return the first readable rows."""
        rows = [row for _, row in islice(self.rows(), count)]
        readable = [row for row in rows if not isinstance(row, Problem)]
        if not readable:
            first = next(row for row in rows if isinstance(row, Problem))
            raise DataError(f"No row at the beginning of {self.name} can be read. {first.problem}", first.remedy)
        return readable

    def bytes_read(self) -> int:
        """How far the reading has come, of `size`."""
        return self._raw.tell() if self._raw and not self._raw.closed else 0

    def unpacked_size(self) -> int:
        """How many bytes the rows take when read."""
        return self._length

    def must_be_unchanged(self) -> None:
        """Refuse when the file was written to, replaced or deleted since it was opened."""
        if self._state() != self._stat:
            raise DataError(f"{self.name} changed while it was read.", "Add it again when it is complete.")

    def _broken_off(self, row: int) -> DataError:
        """The last bytes are half a character of UTF-16: the file was cut off."""
        return DataError(
            f"{self.name} is not valid {self.encoding} after row {row}.", "Save it as UTF-8 and add it again."
        )

    def _state(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

    def _unpacked(self, head: bytes) -> bytes:
        """Look into a packed file: set how it is packed, its member and the suffix; return the first bytes inside."""
        self._how = packed.kind(head)
        if self._how == "ZIP":
            self.member = packed.choose(self.path, self.member, lambda name: Path(name).suffix.lower() in KINDS)
            self.name = f"{self.name}/{self.member}"
        self._suffix = Path(self.member or packed.inner_name(self.path)).suffix.lower()
        if not self._how:
            return head
        with self._bytes() as file:
            return file.read(2**16)

    def _container(self, head: bytes) -> str:
        if head.startswith(b"PAR1"):
            self._suffix = ".parquet"
            return "parquet"
        what = sniff.what(head) or ("packed more than once" if packed.kind(head) else "")
        if what:
            renamed = f" renamed to {self._suffix}" if self._suffix in KINDS else ""
            raise DataError(f"{self.name} is {what}{renamed}.", USE)
        if self._suffix not in KINDS:
            raise DataError(f"{self.name} is not a kind of file the studio reads.", USE)
        if self._suffix == ".parquet":
            raise DataError(f"{self.name} is not Parquet, whatever its name says.", USE)
        return KINDS[self._suffix]

    def _bytes(self) -> BinaryIO:
        """Open what is to be read, unpacked."""
        self._raw = open(self.path, "rb")  # noqa: SIM115
        return packed.unpack(self._raw, self._how, self.member, self.name) if self._how else self._raw

    def _open(self) -> TextIO:
        return io.TextIOWrapper(self._bytes(), encoding=self._codec, errors=self._errors, newline="")

    def _seekable(self) -> BinaryIO:
        """Open a file that is read from its end; a packed one is unpacked into a file without a name."""
        inner = self._bytes()
        if not self._how:
            return inner
        whole = tempfile.TemporaryFile()  # noqa: SIM115
        with inner:
            shutil.copyfileobj(inner, whole, 2**20)
        return whole

    def _values(self) -> Iterator[Value]:
        if self.container == "parquet":
            yield from readers.parquet_rows(self._parquet, self.name)
            return
        with self._open() as file:
            if self.container == "json":
                yield from json_rows.json_rows(file, self.name)
                return
            lines = islice(readers.lines(file, self.name), int(self._skipped), None)
            if self.container == "csv":
                yield from readers.csv_rows(lines, self._delimiter, self.name)
            elif self.container == "jsonl":
                yield from json_rows.jsonl_rows(lines)
            else:
                yield from readers.text_rows(lines, self.name)


def _by_content(begin: str, named: str) -> str:
    """Return the container of a text that begins like this; the name decides where the content does not."""
    if _is_jsonl(begin):
        return "jsonl"
    if named != "json" and begin.lstrip().startswith("[{"):
        return "json"
    return "csv" if named == "text" and sniff.is_table(iter(begin.splitlines()[:-1])) else named


def _is_jsonl(begin: str) -> bool:
    """Tell an object a line from one that is laid out over many."""
    lines = [line for line in begin.split("\n") if line.strip()]
    if len(lines) < 2 or not all(line.startswith("{") for line in lines[:2]):
        return False
    return isinstance(next(json_rows.jsonl_rows(iter(lines[:1]))), dict)
