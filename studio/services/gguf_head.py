"""The head of a GGUF file: what it says of itself and which tensors it holds; its numbers are not read.

The `gguf` library reads all words of a vocabulary one by one for that, which takes seconds.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from studio.domain.errors import ModelError
from studio.domain.model_facts import Tensor

NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # struct's letters for GGUF's kinds
TEXT, LIST = 8, 9
LONGEST = 10_000_000  # bytes of a text; chat templates have some thousand
MOST = 10_000_000  # entries of a list


def read(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    """Return the keys, of lists their length, and the tensors; raise ModelError when it is no GGUF or damaged."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path.name} is not a GGUF file.", "Name a .gguf model file, a folder or a Hub id.")
            _version, tensors, keys = _unpack(file, "<IQQ")
            said = {_text(file): _value(file, *_unpack(file, "<I")) for _ in range(keys)}
            return said, [_tensor(file) for _ in range(tensors)]
    except (OSError, ValueError, KeyError, RecursionError, struct.error) as error:
        raise ModelError(f"{path.name} is damaged: its head cannot be read.", "Fetch it again.") from error


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > LONGEST:
        raise ValueError("a text is longer than any is")
    return file.read(length).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(file)
    if kind != LIST:
        return _unpack(file, f"<{NUMBERS[kind]}")[0]
    inner, number = _unpack(file, "<IQ")
    if number > MOST:
        raise ValueError("a list is longer than any is")
    if inner in NUMBERS:
        file.seek(number * struct.calcsize(NUMBERS[inner]), 1)
    else:
        for _ in range(number):
            _value(file, inner)
    return number


def _tensor(file: BinaryIO) -> Tensor:
    from gguf import GGMLQuantizationType

    name = _text(file)
    (sides,) = _unpack(file, "<I")
    if sides > 8:
        raise ValueError("a tensor has more sides than any has")
    *shape, kind, _place = _unpack(file, f"<{sides}QIQ")
    return Tensor(name, GGMLQuantizationType(kind).name, tuple(shape))
