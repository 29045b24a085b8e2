"""An export as one ZIP file: written piece by piece, read back and compared by its hashes before it is called done."""

import errno
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase, Report, ignore

PIECE = 1 << 22  # bytes read at once
ROOM = 1 << 20  # bytes for the ZIP's own index


def place(folder: Path) -> Path:
    """Return where the ZIP of a folder goes, beside it; refuse a place that is taken."""
    target = folder.with_name(f"{folder.name}.zip")
    if os.path.lexists(target):
        raise StudioError(f"{target} is there already.", "Name another folder: nothing is overwritten.")
    return target


def pack(folder: Path, files: Sequence[Mapping[str, Any]], report: Report = ignore) -> Path:
    """Write all of an export's folder to a ZIP beside it and return that; the folder stays.

    `files` are those whose hashes are known, as the export names them. Weights hardly shrink, so nothing is compressed.
    """
    target = place(folder)
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    known = {file["name"]: file["sha256"] for file in files}
    size = sum(path.stat().st_size for path in paths)
    if shutil.disk_usage(folder.parent).free < size + ROOM:
        raise StudioError(
            f"{words.size(size)} for the ZIP file do not fit on the disk.", "Make room, or take the folder as it is."
        )
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        written = _write(temporary, folder.name, paths, size, report)
        for name, digest in written.items():
            if known.get(name, digest) != digest:
                raise StudioError(f"{folder / name} is not what was exported: it was changed.", "Export again.")
        _check(temporary, folder.name, written, size, report)
        os.replace(temporary, target)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise StudioError(f"{target} could not be written: {why}.", "The folder is as it was.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _write(target: Path, root: str, paths: Sequence[Path], size: int, report: Report) -> dict[str, str]:
    """Write the files below `root` in the ZIP; return the hash of each."""
    found: dict[str, str] = {}
    done = 0
    with open(target, "wb") as raw:
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as whole:
            for path in paths:
                entry = zipfile.ZipInfo.from_file(path, f"{root}/{path.name}", strict_timestamps=False)
                digest = hashlib.sha256()
                with open(path, "rb") as source, whole.open(entry, "w") as out:
                    for piece in _pieces(source):
                        out.write(piece)
                        digest.update(piece)
                        done += len(piece)
                        report(Phase(words="Writing the ZIP file", done=done, total=size, unit="bytes"))
                found[path.name] = digest.hexdigest()
        raw.flush()
        os.fsync(raw.fileno())
    return found


def _check(target: Path, root: str, written: Mapping[str, str], size: int, report: Report) -> None:
    """Read the ZIP as a stranger would; raise StudioError unless it holds just these files, as they were."""
    done = 0
    try:
        with zipfile.ZipFile(target) as whole:
            if sorted(whole.namelist()) != sorted(f"{root}/{name}" for name in written):
                raise StudioError(f"{target.name} does not hold all files.", "Try again; the folder is as it was.")
            for name, expected in written.items():
                digest = hashlib.sha256()
                with whole.open(f"{root}/{name}") as source:
                    for piece in _pieces(source):
                        digest.update(piece)
                        done += len(piece)
                        report(Phase(words="Reading the ZIP file back", done=done, total=size, unit="bytes"))
                if digest.hexdigest() != expected:
                    raise zipfile.BadZipFile(name)
    except zipfile.BadZipFile as error:
        raise StudioError(
            f"{target.name} was not read back as it was written: {error}.", "Check the disk; the folder is as it was."
        ) from error


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece
