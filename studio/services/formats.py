"""Data files: what a file is, in which encoding, and its numbered rows; pictures and broken files are refused."""

import codecs
import io
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel

from studio.domain.errors import DataError
from studio.services import json_rows, readers
from studio.services.readers import Refused, Value

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
USE = "Use CSV, TSV, JSON, JSON lines, Parquet or plain text."
DELIMITERS = {",": "Comma-separated", ";": "Semicolon-separated", "\t": "Tab-separated", "|": "Bar-separated"}
TITLES = {"json": "JSON", "jsonl": "JSON lines", "text": "Plain text, a paragraph a row", "parquet": "Parquet"}

# What a file is by its first bytes, whatever its name says.
MAGIC = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF87a", "a picture"),
    (b"GIF89a", "a picture"),
    (b"II*\0", "a picture"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x1f\x8b", "a packed file"),
    (b"BZh91AY&SY", "a packed file"),
    (b"\xfd7zXZ", "a packed file"),
    (b"\x28\xb5\x2f\xfd", "a packed file"),
    (b"7z\xbc\xaf", "a packed file"),
    (b"Rar!\x1a", "a packed file"),
    (b"SQLite format 3\0", "a database"),
    (b"GGUF\x03\0", "a model"),
    (b"ARROW1\0", "an Arrow file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    *((bytes((0x80, version)), "a Python pickle") for version in range(2, 6)),
)
BOMS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
BROKEN = re.compile("[\ud800-\udfff]")  # how a byte that is no text, or half a character, shows after decoding
FOREIGN = re.compile("[^\0-\x7f\ud800-\udfff]")


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

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.name = self.path.name
        if BROKEN.search(str(self.path)):
            raise DataError(f"The path {readable(str(self.path))} is not valid text.", "Rename the file or its folder.")
        self._file: TextIO | None = None
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
        if not head:
            raise DataError(f"{self.name} is empty.", "Choose a file with at least one example.")
        self.container = self._container(head)
        if self.container == "parquet":
            self.encoding, self.words = "", TITLES["parquet"]
            return
        self._codec, self._errors, self.encoding = self._read_encoding(head)
        try:
            if self.container == "json" and self._is_jsonl():
                self.container = "jsonl"
            self._delimiter = self._read_delimiter() if self.container == "csv" else ""
        except UnicodeDecodeError as error:
            raise self._broken_off(0) from error
        self.words = f"{DELIMITERS.get(self._delimiter) or TITLES[self.container]}, {self.encoding}"

    def rows(self) -> Iterator[Row]:
        """Yield each row with its number, counted from 1 without the header; a bad one as a Problem."""
        number = 0
        try:
            for number, value in enumerate(self._values(), 1):
                if isinstance(value, Refused):
                    yield number, Problem(row=number, problem=f"Row {number} {value.what}", remedy=value.remedy)
                else:
                    yield number, value
        except UnicodeDecodeError as error:
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
        return self._file.buffer.tell() if self._file and not self._file.closed else 0

    def unpacked_size(self) -> int:
        """How many bytes the rows take when read."""
        return readers.parquet_size(self.path, self.name) if self.container == "parquet" else self.size

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

    def _container(self, head: bytes) -> str:
        suffix = self.path.suffix.lower()
        if head.startswith(b"PAR1"):
            return "parquet"
        what = next((words for magic, words in MAGIC if head.startswith(magic)), "")
        if what:
            renamed = f" renamed to {suffix}" if suffix in KINDS else ""
            raise DataError(f"{self.name} is {what}{renamed}.", USE)
        if suffix not in KINDS:
            raise DataError(f"{self.name} is not a kind of file the studio reads.", USE)
        if suffix == ".parquet":
            raise DataError(f"{self.name} is not Parquet, whatever its name says.", USE)
        return KINDS[suffix]

    def _read_encoding(self, head: bytes) -> tuple[str, str, str]:
        """Return codec, error handling and name. The whole file is looked at: the first accent may come late."""
        for mark, codec in BOMS:
            if head.startswith(mark) and codec != "utf-8-sig":
                return codec, "surrogatepass", codec.upper()
        if len(head) >= 8 and head[1::2].count(0) > 0.4 * len(head) and not head[::2].count(0):
            return "utf-16-le", "surrogatepass", "UTF-16"
        if len(head.translate(None, CONTROL)) < 0.95 * len(head):
            raise DataError(f"{self.name} is not text.", USE)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        broken = foreign = False
        with open(self.path, "rb") as file:
            while piece := file.read(2**20):
                if b"\0" in piece:
                    raise DataError(f"{self.name} holds NUL bytes, so it is not text.", USE)
                text = decoder.decode(piece)
                if not text.isascii():
                    broken = broken or BROKEN.search(text) is not None
                    foreign = foreign or FOREIGN.search(text) is not None
        broken = broken or bool(decoder.getstate()[0])
        if broken and not foreign:
            return "cp1252", "surrogateescape", "Latin-1"
        return "utf-8-sig", "surrogateescape", "UTF-8"

    def _open(self) -> TextIO:
        self._file = open(self.path, encoding=self._codec, errors=self._errors, newline="")  # noqa: SIM115
        return self._file

    def _values(self) -> Iterator[Value]:
        if self.container == "parquet":
            yield from readers.parquet_rows(self.path, self.name)
            return
        with self._open() as file:
            if self.container == "json":
                yield from json_rows.json_rows(file, self.name)
                return
            lines = readers.lines(file, self.name)
            if self.container == "csv":
                yield from readers.csv_rows(lines, self._delimiter, self.name)
            elif self.container == "jsonl":
                yield from json_rows.jsonl_rows(lines)
            else:
                yield from readers.text_rows(lines, self.name)

    def _is_jsonl(self) -> bool:
        """Tell a .json file with an object a line from one that is a single object."""
        with self._open() as file:
            if file.read(1) != "{":
                return False
            first, second = "{" + file.readline(readers.LONGEST), file.readline(1000)
        if not second.startswith("{"):
            return False
        return isinstance(next(json_rows.jsonl_rows(iter([first]))), dict)

    def _read_delimiter(self) -> str:
        """Return the character that splits most rows into as many cells as the header."""
        if self.path.suffix.lower() in (".tsv", ".tab"):
            return "\t"
        with self._open() as file:
            sample = list(io.StringIO(file.read(2**16), newline=""))
        sample = sample[:-1] or sample  # the last line may be cut off
        best, most = ",", (0, 0)
        for delimiter in DELIMITERS:
            counts = [len(cells) for cells in islice(readers.records(iter(sample), delimiter), 50) if cells]
            if counts and counts[0] > 1 and (counts.count(counts[0]), counts[0]) > most:
                best, most = delimiter, (counts.count(counts[0]), counts[0])
        return best
