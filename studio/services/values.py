"""Values of a row: text that can be learned from, and what a table holds as text because it has no lists."""

import ast
import json
import math
from decimal import Decimal
from typing import Any

from studio.services.readers import LONGEST, Refused, too_deep
from studio.services.sniff import BROKEN

REMAP = "Map another column or leave the row out."
LONGEST_LITERAL = 2**20  # characters of a list as Python prints it, which takes a hundred times that to parse


def clean(value: Any, place: str) -> str:
    """Return the value as text with plain line ends, empty when there is none; refuse what is no text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple | bytes):
        what = "bytes" if isinstance(value, bytes) else "a list or object"
        raise Refused(f"has {what} in {place} instead of text.", REMAP)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"holds {value} in {place}, which is no number.")
    text = str(value)
    if len(text) > LONGEST:
        raise Refused(f"has over 16 MB in {place}.", "Split it or leave the row out.")
    if "\0" in text:
        raise Refused(f"holds a NUL character in {place}.")
    if not text.isascii() and BROKEN.search(text):
        raise Refused(f"holds bytes in {place} that are no text.", "Save the file as UTF-8, or leave the row out.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.strip() else ""


def unfolded(value: Any) -> Any:
    """Return the list or object a text holds, as JSON or as Python prints it; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if len(value) > LONGEST_LITERAL:
            return value
        try:
            found = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return value
    return found if isinstance(found, list | dict) and not too_deep(found) else value


def plain(value: Any) -> Any:
    """Return a value for JSON: exact numbers as usual ones, and without the empty members that columns add."""
    if isinstance(value, dict):
        return {clean(name, "a tool"): plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused("holds a number out of range in a tool.")
    return value if isinstance(value, int | float) else clean(value, "a tool")


def _refuse(word: str) -> None:
    raise ValueError(word)
