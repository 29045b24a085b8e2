"""The tensors of a safetensors file, read at once and looked at: every number of them is one."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from studio.domain.errors import ModelError

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # by safetensors' names


def finite(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, every number of which was looked at."""
    found, flat = _read(file)
    if flat is None or not all(end.isfinite() for end in torch.aminmax(flat)):  # a NaN anywhere becomes both ends
        for key, value in found.items():
            if not value.isfinite().all():
                raise ModelError(
                    f"The weights of {file.parent.name} are not all numbers ({key}).",
                    "The training diverged; use another version.",
                )
    return found


def _read(file: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Return the tensors of a file that safetensors has found sound.

    Where all are floats of one kind they are parts of one buffer, the second value, filled by one read: ten times as
    fast as a tensor after the other. Read, not mapped: a file that is written anew under a map ends the process.
    """
    with open(file, "rb") as handle:
        head = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        head.pop("__metadata__", None)
        kinds = {entry["dtype"] for entry in head.values()}
        size = file.stat().st_size - handle.tell()
        if len(kinds) != 1 or not kinds <= FLOATS.keys() or not size:
            return load_file(file), None
        dtype = FLOATS[kinds.pop()]
        flat = torch.empty(size // dtype.itemsize, dtype=dtype)
        handle.readinto(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    found = {}
    for key, entry in head.items():
        begin, end = (place // dtype.itemsize for place in entry["data_offsets"])
        found[key] = flat[begin:end].view(entry["shape"])
    return found, flat
