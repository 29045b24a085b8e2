"""JSON and JSON lines: rows parsed strictly, one after the other, from files of any length."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, TextIO

from studio.domain.errors import DataError
from studio.services.readers import DEEPEST, LONGEST, Refused, Value, too_deep

PIECE = 2**18  # characters read at a time
BLANK = re.compile(r"[ \t\r\n]*")


class _Parser:
    """Python's JSON parser, strict where it is lax: repeated keys, NaN and depth are told, numbers keep their digits.

    A streaming library was tried first: its C parser crashed on a number of 5,000 digits and on deep nesting.
    """

    def __init__(self) -> None:
        self.complaint = ""
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_float=self._number,
            parse_int=self._number,
            parse_constant=self._constant,
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            self.complaint = "names a key twice."
        return value

    def _number(self, digits: str) -> Decimal | None:
        try:
            return Decimal(digits)
        except InvalidOperation:
            self.complaint = f"holds a number out of range, {digits[:20]}."
            return None

    def _constant(self, word: str) -> None:
        self.complaint = f"holds {word}, which is not a JSON value."

    def row(self, value: Any) -> Value:
        """Return the parsed value as a row, or why it is none."""
        if self.complaint:
            return Refused(self.complaint)
        if not isinstance(value, dict | str):
            return Refused("is not an object with named values.", "Write the row as an object or leave it out.")
        if too_deep(value):
            return Refused(f"is nested more than {DEEPEST} levels deep.")
        return value


def jsonl_rows(source: Iterator[str]) -> Iterator[Value]:
    """Yield the value on each line."""
    parser = _Parser()
    for line in map(str.strip, source):
        if not line:
            continue
        parser.complaint = ""
        try:
            yield parser.row(parser.decoder.decode(line))
        except json.JSONDecodeError as error:
            yield Refused(f"is not valid JSON at character {error.colno}: {error.msg.lower()}.")
        except RecursionError:
            yield Refused(f"is nested more than {DEEPEST} levels deep.")


class _Window:
    """A moving piece of a long JSON text: what was read is dropped, what is missing is fetched."""

    def __init__(self, file: TextIO, name: str) -> None:
        self.file, self.name = file, name
        self.text, self.at, self.ended = "", 0, False
        self.parser = _Parser()
        self.row = 0

    def more(self) -> bool:
        rest = self.text[self.at :]
        piece = self.file.read(max(PIECE, min(len(rest), LONGEST // 4)))  # a long value is parsed again seldom
        self.text, self.at, self.ended = rest + piece, 0, not piece
        return bool(piece)

    def peek(self) -> str:
        """Return the next character that is not blank, or nothing at the end."""
        while True:
            match = BLANK.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def skip(self, *expected: str) -> str:
        found = self.peek()
        if found not in expected:
            raise self.broken()
        self.at += 1
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            self.parser.complaint = ""
            try:
                value, end = self.parser.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended or len(self.text) - self.at > LONGEST:
                    raise self.broken() from error
            except RecursionError as error:
                raise self.broken("is nested too deeply") from error
            else:
                if end < len(self.text) or self.ended:  # else a number may go on in the next piece
                    self.at = end
                    return value
            self.more()

    def items(self) -> Iterator[Value]:
        """Yield the values of a list whose bracket was read."""
        if self.peek() == "]":
            self.at += 1
            return
        separator = ","
        while separator == ",":
            value = self.parser.row(self.value())
            self.row += 1
            yield value
            separator = self.skip(",", "]")

    def broken(self, what: str = "is not valid JSON") -> DataError:
        if self.ended and self.at >= len(self.text):
            what = "breaks off"
        place = f"after row {self.row}" if self.row else "at its beginning"
        return DataError(f"{self.name} {what} {place}.", "Correct it there, or write it as JSON lines, a row a line.")


def json_rows(file: TextIO, name: str) -> Iterator[Value]:
    """Yield the values of the list that is the file, or of the one list of objects in its outer object."""
    window = _Window(file, name)
    if window.skip("[", "{") == "[":
        yield from window.items()
    else:
        found = ""
        separator = "}" if window.peek() == "}" else ","
        while separator == ",":
            key = str(window.value()).encode("utf-8", "replace").decode()
            window.skip(":")
            if window.peek() != "[":
                window.value()
            else:
                window.skip("[")
                if window.peek() == "{":
                    if found:
                        raise DataError(
                            f"{name} holds two lists of rows, `{found}` and `{key}`.",
                            "Write each to a file of its own.",
                        )
                    found = key
                    yield from window.items()
                else:  # a list of words or numbers beside the rows
                    for _ in window.items():
                        pass
            separator = window.skip(",", "}")
        if not found:
            raise DataError(f"{name} holds no list of rows.", "Write the rows as a list of objects, or a row a line.")
    if window.peek():
        raise window.broken("goes on after the end of its list,")
