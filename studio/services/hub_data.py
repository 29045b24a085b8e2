"""Data sets of the Hub by their id: one file of rows of one pinned commit, fetched once into the cache.

`owner/name` means the Parquet files the Hub makes of every public data set; `owner/name@revision` the files as their
owner wrote them. What comes after it names a part: `owner/name/config/split`, or a file.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from studio.domain.errors import DataError, NotFound
from studio.domain.events import Phase, Report
from studio.services import hub, packed
from studio.services.formats import KINDS
from studio.services.weights import checksum
from studio.storage.paths import Home, write_atomic

CONVERTED = "refs/convert/parquet"
PATIENCE = 10.0  # seconds for an answer
RECORD = "hub.json"
KEPT = 8  # data sets in the cache, the newest
NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-]+))?(/(?P<part>.+))?")
SHARD = re.compile(r"(/\d+|-\d+-of-\d+)(?=\.parquet$)|\.parquet$")


class Id(NamedTuple):
    """What an id says: the data set, the revision and the part, the last two possibly empty."""

    repo: str
    revision: str
    part: str


def parse(text: str | Path) -> Id | None:
    """Return the parts of an id of the Hub; None for what is, or looks like, a file here."""
    match = NAME.fullmatch(str(text).strip())
    if not match or packed.locate(Path(text).expanduser())[0].exists():
        return None
    if not match["revision"] and not match["part"] and _is_data(str(text)):
        return None  # folder/rows.csv, which is not there
    return Id(match["repo"], match["revision"] or "", match["part"] or "")


def local(home: Home, path: str | Path, report: Report) -> Path:
    """Return where the rows lie: a file as it is, a data set of the Hub after it was fetched."""
    id = parse(path)
    return _fetched(home, id, report) if id else Path(path)


def origin(path: Path) -> str:
    """Return the pinned id a file of the cache was fetched by, nothing for any other file."""
    try:
        return str(json.loads((path.parent / RECORD).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fetched(home: Home, id: Id, report: Report) -> Path:
    folder = home.cache / "hub" / hashlib.sha256(json.dumps(id).encode()).hexdigest()[:16]
    report(Phase(words=f"Asking the Hub for {id.repo}"))
    try:
        info = _ask(id)
    except hub.Unreachable:
        if found := _kept(folder):
            return found
        raise
    part, files = choose(id, info.siblings or [])
    pinned = f"{id.repo}@{info.sha}/{part}"
    if (found := _kept(folder)) and origin(found) == pinned:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    home.need(2 * sum(file.size or 0 for file in files), id.repo)
    paths = hub.fetch_files(info, files, folder / "files", id.repo, report)
    for file, path in zip(files, paths, strict=True):
        if file.size != path.stat().st_size or (file.lfs and checksum(path) != file.lfs.sha256):
            shutil.rmtree(folder)
            raise DataError(f"{file.rfilename} of {id.repo} did not arrive whole.", "Try again.")
    inner = packed.inner_name(paths[0])
    rows = folder / (id.repo.partition("/")[2] + Path(inner).suffix + paths[0].name.removeprefix(inner))
    if len(paths) > 1:
        _join(paths, rows, id.repo)
    else:
        paths[0].rename(rows)
    shutil.rmtree(folder / "files")
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime)
    for other in others[:-KEPT]:
        shutil.rmtree(other, ignore_errors=True)
    write_atomic(folder / RECORD, json.dumps({"id": pinned, "file": rows.name}))
    return rows


def _ask(id: Id) -> Any:
    """Return the Hub's record of the converted files, or of the owner's where there are none."""
    if id.revision:
        return hub.ask_data(id.repo, id.revision, PATIENCE)
    try:
        return hub.ask_data(id.repo, CONVERTED, PATIENCE)
    except NotFound:
        return hub.ask_data(id.repo, "", PATIENCE)


def choose(id: Id, files: Iterable[Any]) -> tuple[str, list[Any]]:
    """Return the part that is meant and its files; the part to train on where a data set is named as a whole."""
    parts: dict[str, list[Any]] = {}
    for file in files:
        if _is_data(file.rfilename):
            parts.setdefault(SHARD.sub("", file.rfilename), []).append(file)
    if not parts:
        raise DataError(f"{id.repo} holds no file of rows.", "Choose a data set of CSV, JSON, text or Parquet.")
    wanted = id.part.strip("/")
    found = [part for part in parts if not wanted or part == wanted or part.startswith(f"{wanted}/")]
    to_train = [part for part in found if re.search(r"\btrain(\.\w+)*$", part)]
    found = to_train if len(to_train) == 1 else found
    if len(found) != 1:
        what = f"no part {wanted}" if not found else f"{len(found)} parts"
        names = ", ".join(f"{id.repo}/{part}" for part in sorted(found or parts)[:6])
        raise DataError(f"{id.repo} has {what}.", f"Name the one you mean: {names}.")
    return found[0], sorted(parts[found[0]], key=lambda file: file.rfilename)


def _is_data(name: str) -> bool:
    return Path(packed.inner_name(Path(name))).suffix.lower() in KINDS and not name.lower().endswith("readme.md")


def _kept(folder: Path) -> Path | None:
    try:
        file = folder / str(json.loads((folder / RECORD).read_text(encoding="utf-8"))["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return file if file.is_file() else None


def _join(paths: list[Path], rows: Path, repo: str) -> None:
    """Write the shards of a part into one file, a group of rows at a time."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        with parquet.ParquetWriter(rows, parquet.ParquetFile(paths[0]).schema_arrow, compression="zstd") as writer:
            for path in paths:
                shard = parquet.ParquetFile(path)
                for group in range(shard.num_row_groups):
                    writer.write_table(shard.read_row_group(group))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"The parts of {repo} do not fit together.", "Name one of its files.") from error
