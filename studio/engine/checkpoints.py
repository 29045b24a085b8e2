"""Checkpoints of a run: written whole or not at all, known by their hashes, safetensors and JSON only.

A checkpoint is `checkpoints/step-N` with the adapter, the optimizer, the state of every source of random numbers, and
what the trainer counts. The data's position is the step itself: the order of the examples follows from the seed.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from studio.domain.errors import StudioError

FOLDER, MANIFEST, UNSEALED = "checkpoints", "manifest.json", "manifest.tmp"
MARGIN = 1.1  # of the size expected that must be free on the disk


class NoRoom(StudioError):
    """The disk has no room for a checkpoint."""


class Keeper:
    """The checkpoints of one run directory: at most `keep` last ones and the best."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.folder, self.keep = directory / FOLDER, keep
        self.bytes = 0  # of the last one written

    def write(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `state["step"]` and drop those too many; `state["best_step"]` is kept.

        Raises `NoRoom` before anything is written, or when the disk fills up meanwhile; earlier ones are not touched.
        """
        weights = trained(model)
        self._need(3 * sum(value.nbytes for value in weights.values()))
        place = self.folder / f"step-{state['step']}"
        temporary = self.folder / f".{place.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_file(weights, temporary / "adapter.safetensors")
            tensors, plain = _flat(optimizer.state_dict())
            save_file(
                tensors | {f"rng.{key}": value for key, value in torch_rng().items()},
                temporary / "training.safetensors",
            )
            document = {"state": state, "optimizer": plain, "rng": _python_rng()}
            (temporary / "state.json").write_text(json.dumps(document), encoding="utf-8")
            seal(temporary)
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
            _sync(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise NoRoom(
                f"The checkpoint of step {state['step']:,} could not be written: {error.strerror or error}.",
                "Free some disk space, then resume: nothing before it is lost.",
            ) from error
        self.bytes = sum(file.stat().st_size for file in place.iterdir())
        self._drop(state)
        return place

    def _need(self, least: int) -> None:
        self.folder.mkdir(exist_ok=True)
        need, free = int(MARGIN * max(self.bytes, least)), shutil.disk_usage(self.folder).free
        if free < need:
            raise NoRoom(
                f"A checkpoint needs {need / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB left.",
                "Free some disk space, then resume: nothing that was saved is lost.",
            )

    def _drop(self, state: dict[str, Any]) -> None:
        for step in sorted(self.steps())[: -self.keep]:
            if step != state["best_step"]:
                shutil.rmtree(self.folder / f"step-{step}")

    def steps(self) -> list[int]:
        return [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*")]

    def newest(self, skipped: Callable[[int, str], None]) -> Path | None:
        """Return the newest checkpoint that is whole; each damaged one is named to `skipped` with what is wrong."""
        for left in self.folder.glob(".step-*.tmp"):
            place = self.folder / left.name[1 : -len(".tmp")]
            if damage(place) and not damage(left):  # ended after the old one of this step went, before the new one came
                shutil.rmtree(place, ignore_errors=True)
                left.rename(place)
            else:
                shutil.rmtree(left)
        for step in sorted(self.steps(), reverse=True):
            place = self.folder / f"step-{step}"
            wrong = damage(place)
            if not wrong:
                return place
            skipped(step, wrong)
        return None

    def forget_after(self, step: int) -> None:
        """Drop the checkpoints of later steps: they are damaged, or what came of them was given up."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self.folder / f"step-{later}")

    def lighten(self) -> None:
        """Drop what only going on would need; the weights of each step stay, as they may be made a version."""
        for step in self.steps():
            place = self.folder / f"step-{step}"
            if not damage(place):
                with suppress(OSError):  # a full disk: the run is over all the same
                    seal(place, without="training.safetensors")
                    (place / "training.safetensors").unlink(missing_ok=True)


def read(place: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Put a checkpoint's weights, and with `optimizer` all the rest, back where they were; return the state."""
    document = json.loads((place / "state.json").read_text(encoding="utf-8"))
    weights = load_file(place / "adapter.safetensors")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(weights[name])
    if optimizer is not None:
        tensors = load_file(place / "training.safetensors")
        rng = {key.removeprefix("rng."): tensors.pop(key) for key in list(tensors) if key.startswith("rng.")}
        optimizer.load_state_dict(_deep(tensors, document["optimizer"]))
        _set_rng(rng, document["rng"])
    return document["state"]


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are trained, by name, on the processor."""
    return {name: value.detach().cpu().contiguous() for name, value in model.named_parameters() if value.requires_grad}


def seal(folder: Path, without: str = "") -> None:
    """Bring a folder's files to the disk, then write their sizes and hashes beside them, last and in one step."""
    files = {}
    for file in sorted(folder.iterdir()):
        if file.name in (MANIFEST, UNSEALED, without):
            continue
        with open(file, "rb") as handle:
            files[file.name] = {
                "bytes": os.fstat(handle.fileno()).st_size,
                "sha256": hashlib.file_digest(handle, "sha256").hexdigest(),
            }
            os.fsync(handle.fileno())
    with open(folder / UNSEALED, "w", encoding="utf-8") as handle:
        json.dump({"format": 1, "files": files}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    (folder / UNSEALED).replace(folder / MANIFEST)
    _sync(folder)


def damage(folder: Path) -> str:
    """Return what is wrong with a sealed folder, or nothing."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, told in files.items():
            file = folder / Path(name).name
            if file.stat().st_size != told["bytes"]:
                return f"{name} has another size"
            with open(file, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != told["sha256"]:
                    return f"{name} was changed"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return f"{MANIFEST} cannot be read"
    return ""


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flat(optimizer: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Part an optimizer's state into tensors and what JSON can hold; `_deep` puts them together again."""
    tensors, plain = {}, {}
    for index, key, value in _entries(optimizer):
        if isinstance(value, torch.Tensor):
            tensors[f"{index}.{key}"] = value.detach().cpu().contiguous()
        else:
            plain[f"{index}.{key}"] = value
    return tensors, {"groups": optimizer["param_groups"], "values": plain}


def _entries(optimizer: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    """Yield what is kept of each weight: its number, the name and the value; bitsandbytes keeps a dict in it."""
    for index, its in optimizer["state"].items():
        for key, value in its.items():
            if isinstance(value, dict):
                yield from ((index, f"{key}.{inner}", item) for inner, item in value.items())
            else:
                yield index, key, value


def _deep(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | plain["values"]).items():
        index, key, *inner = name.split(".", 2)
        its = state.setdefault(int(index), {})
        if inner:
            its.setdefault(key, {})[inner[0]] = value
        else:
            its[key] = value
    return {"state": state, "param_groups": plain["groups"]}


def torch_rng() -> dict[str, torch.Tensor]:
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda{index}": value for index, value in enumerate(cards)}}


def _python_rng() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]}


def _set_rng(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = plain["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    set_torch_rng(tensors)


def set_torch_rng(tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda{index}" in tensors:  # else it was written on a machine with fewer cards
            torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)
