"""Packed files: gzip, bzip2, xz, Zstandard and ZIP, read as they unpack and stopped when they never end."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from studio.domain.errors import DataError, SeveralFiles

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "ZIP",
}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
FREE, RATIO = 2**26, 200  # bytes unpacked before the ratio is looked at; real text packs to a tenth or a twentieth
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


def kind(head: bytes) -> str:
    """Return how a file that begins like this is packed, or nothing."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def locate(path: Path) -> tuple[Path, str]:
    """Tell an archive from its member: rows.zip/train.csv is train.csv inside rows.zip."""
    if not path.exists():
        for parent in path.parents:
            if parent.is_file():
                return (parent, path.relative_to(parent).as_posix()) if zipfile.is_zipfile(parent) else (path, "")
    return path, ""


def inner_name(path: Path) -> str:
    """Return the name of what is packed: rows.csv of rows.csv.gz."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def choose(path: Path, member: str, readable: Callable[[str], bool]) -> str:
    """Return the name of the data file inside a ZIP archive: the one that is named, or the only one."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except BROKEN as error:
        raise _damaged(path.name) from error
    names = [info.filename for info in infos]
    if "[Content_Types].xml" in names:
        what = "an Excel workbook" if "xl/workbook.xml" in names else "an Office document"
        raise DataError(f"{path.name} is {what}.", "Save it as CSV: File, Save as, CSV UTF-8.")
    found = [name for name in names if readable(name) and not _hidden(name)]
    if member:
        if member not in names:
            raise DataError(f"There is no {member} in {path.name}.", _which(path, found))
        found = [member]
    elif len(found) > 1:  # a README beside one table is not data
        found = [name for name in found if not name.lower().endswith((".txt", ".md"))] or found
    if not found:
        raise DataError(f"{path.name} holds no data file.", "Pack CSV, TSV, JSON, JSON lines, Parquet or plain text.")
    if len(found) > 1:
        files = [f"{path}/{name}" for name in found]
        raise SeveralFiles(f"{path.name} holds {len(found)} data files.", _which(path, found), files)
    if any(info.flag_bits & 1 for info in infos if info.filename == found[0]):
        raise DataError(f"{found[0]} in {path.name} is locked with a password.", "Unpack it and choose the file.")
    return found[0]


def unpack(file: BinaryIO, how: str, member: str, name: str) -> BinaryIO:
    """Return what is inside, unpacked as it is read; what is damaged or never ends raises DataError."""
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        inner = _opened(file, how, member)
    except BROKEN as error:
        raise _damaged(name) from error
    return io.BufferedReader(_Bounded(inner, packed, name), 2**18)


def _opened(file: BinaryIO, how: str, member: str) -> BinaryIO:
    if how == "ZIP":
        return cast(BinaryIO, zipfile.ZipFile(file).open(member))
    if how == "Zstandard":
        from pyarrow import CompressedInputStream

        return cast(BinaryIO, CompressedInputStream(file, "zstd"))
    module = {"gzip": gzip, "bzip2": bz2, "xz": lzma}[how]
    return cast(BinaryIO, module.open(file))


class _Bounded(io.RawIOBase):
    """Counts what comes out, against bombs: a few kilobytes can unpack to gigabytes."""

    def __init__(self, inner: BinaryIO, packed: int, name: str) -> None:
        self.inner, self.name = inner, name
        self.most = max(FREE, RATIO * packed)
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            piece = self.inner.read(len(buffer))
        except BROKEN as error:
            raise _damaged(self.name) from error
        self.count += len(piece)
        if self.count > self.most:
            raise DataError(
                f"{self.name} unpacks to more than {RATIO} times its size.", "Unpack it yourself if you trust it."
            )
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.inner.close()
        super().close()


def _hidden(name: str) -> bool:
    """Tell what systems put into archives beside the user's files: __MACOSX/._rows.csv, .DS_Store."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _which(path: Path, names: list[str]) -> str:
    shown = ", ".join(f"{path}/{name}" for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"Name the one you mean by its path: {shown}{more}." if names else "Look into the archive."


def _damaged(name: str) -> DataError:
    return DataError(f"{name} is damaged or breaks off, so it cannot be unpacked.", "Fetch or pack it again.")
