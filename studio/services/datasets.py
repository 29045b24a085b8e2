"""Data sets: a file is checked row by row, made into examples, split, and kept in a folder of the home."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from studio.domain.errors import DataError, NotFound, StudioError
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Dataset
from studio.services import hub_data
from studio.services.check import HELD_OUT, SEED, Check, check_file, open_file, refuse_unusable, survey
from studio.services.rewrite import Rewritten, rewrite
from studio.services.seen import Seen
from studio.storage.paths import Home, sha256, write_atomic

__all__ = ["Check", "Datasets", "sample_path"]
LAYOUT_VERSION = 1  # of train.jsonl and eval.jsonl; a new one makes new ids


def sample_path() -> Path:
    """Where the bundled sample data lies."""
    return Path(__file__).parents[1] / "samples" / "support.csv"


class Datasets:
    """The data sets of a home folder; each is a folder with its record, its check and its examples."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def check(self, path: str | Path, *, report: Report = ignore, **options: Any) -> Check:
        """Read a file or a data set of the Hub and say what it holds, as `check_file` does."""
        return check_file(hub_data.local(self.home, path, report), report=report, **options)

    def repair(
        self, path: str | Path, out: str | Path | None, kinds: Sequence[str], *, report: Report = ignore, **options: Any
    ) -> Rewritten:
        """Write a copy of a file or a data set of the Hub with these findings repaired, as `rewrite` does."""
        return rewrite(hub_data.local(self.home, path, report), out, kinds, report=report, **options)

    def add(
        self,
        path: str | Path,
        *,
        name: str = "",
        format: str = "auto",
        map: dict[str, str] | None = None,
        eval_fraction: float = HELD_OUT,
        seed: int = SEED,
        skip_bad: bool = False,
        repairs: Sequence[str] = (),
        report: Report = ignore,
    ) -> Dataset:
        """Make a data set of a file, whole or not at all. The same file and settings give the same data set.

        `repairs` are those that a check of the file named.
        """
        if not 0 <= eval_fraction <= 0.5:
            raise DataError(f"{eval_fraction:g} of the rows cannot be held out.", "Choose a share from 0 to 0.5.")
        source, layout = open_file(hub_data.local(self.home, path, report), format, map)
        content = sha256(source.path)
        settings = [LAYOUT_VERSION, content, layout.format, sorted(layout.map.items()), eval_fraction, seed]
        settings += sorted(repairs)
        if source.member:  # of an archive with others beside it
            settings.append(source.member)
        id = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        if self._load(self.home.datasets / id):
            refuse_unusable(self.profile(id), source.name, skip_bad)
            return self.get(id)
        self.home.prepare()
        # short rows grow by the names of their roles, and they are there twice while they are split
        self.home.need(5 * source.unpacked_size(), f"the examples of {source.name}")
        with self._new_folder(id, source.name) as folder:
            seen = Seen()
            with open(folder / "all", "w", encoding="utf-8", newline="\n") as file:
                found = survey(
                    source,
                    layout,
                    seen,
                    seed=seed,
                    eval_fraction=eval_fraction,
                    repairs=repairs,
                    report=report,
                    sink=lambda mark, line: file.write(f"{mark:016x}{line}"),
                )
            source.must_be_unchanged()
            refuse_unusable(found, source.name, skip_bad)
            report(Phase(words="Setting rows aside for testing"))
            train_rows, eval_rows = _split(folder, seen, found.usable, eval_fraction)
            dataset = Dataset(
                id=id,
                name=name or source.stem,
                path=str(self.home.datasets / id),
                source=hub_data.origin(source.path) or str(source.path),
                sha256=content,
                format=layout.format,
                kind=layout.kind,
                map=layout.map,
                rows=found.rows,
                usable=found.usable,
                train_rows=train_rows,
                eval_rows=eval_rows,
                repairs=list(repairs),
                created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
            write_atomic(folder / "profile.json", found.model_dump_json(indent=1))
            write_atomic(folder / "dataset.json", dataset.model_dump_json(indent=1))
        return self.get(id)

    def list(self) -> list[Dataset]:
        """Return the data sets, the newest first."""
        found = [self._load(folder) for folder in self.home.datasets.glob("[!.]*")]
        return sorted((dataset for dataset in found if dataset), key=lambda dataset: dataset.created, reverse=True)

    def get(self, id_or_name: str) -> Dataset:
        """Return a data set by its id, or the newest of that name."""
        found = self.list()
        for dataset in found:
            if dataset.id == id_or_name:
                return dataset
        for dataset in found:
            if dataset.name == id_or_name:
                return dataset
        raise NotFound(f"There is no data set `{id_or_name}`.", "Add the file, or choose one of the list.")

    def profile(self, id: str) -> Check:
        """Return what the check found when the data set was made."""
        return Check.model_validate_json(Path(self.get(id).path, "profile.json").read_bytes())

    def example(self, id: str, index: int) -> dict[str, Any]:
        """Return the example at `index`, counted from 0: first those to train on, then the held-out ones."""
        dataset = self.get(id)
        name, place = ("train", index) if index < dataset.train_rows else ("eval", index - dataset.train_rows)
        with open(Path(dataset.path, f"{name}.jsonl"), "rb") as file:
            line = next(islice(file, place, None), None) if index >= 0 else None
        if line is None:
            raise NotFound(f"{dataset.name} has no example {index + 1}.", f"It has {dataset.usable:,}.")
        return json.loads(line)

    def remove(self, id: str) -> None:
        """Delete a data set; the file it was made of stays."""
        folder = self.home.inside(self.get(id).path)
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}")  # out of the list first, then deleted
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def _load(self, folder: Path) -> Dataset | None:
        try:
            record = Dataset.model_validate_json((folder / "dataset.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return record.model_copy(update={"path": str(folder)})

    @contextmanager
    def _new_folder(self, id: str, name: str) -> Iterator[Path]:
        """Hand out a hidden folder and give it its name at the end; after an error or a kill it is never listed."""
        for left in self.home.datasets.glob(".*.*"):  # of a process that was killed
            pid = left.name.rpartition(".")[2]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        folder = self.home.datasets / f".{id}-{secrets.token_hex(4)}.{os.getpid()}"
        try:
            folder.mkdir()
            yield folder
            try:
                folder.rename(self.home.datasets / id)
            except OSError:
                if not self._load(self.home.datasets / id):  # else another process was faster, with the same content
                    raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StudioError(
                    f"The disk became full while {name} was read. Nothing was kept.",
                    "Make room in the home folder and add the file again.",
                ) from error
            raise DataError(
                f"{name} could not be copied: {error.strerror}.", "Check the disk of the home folder."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _split(folder: Path, seen: Seen, usable: int, eval_fraction: float) -> tuple[int, int]:
    """Split `all` into train.jsonl and eval.jsonl by hash, so that equal examples land on the same side."""
    bound = seen.bound(usable, eval_fraction)
    counts = [0, 0]
    with (
        open(folder / "all", "rb") as source,
        open(folder / "train.jsonl", "wb") as train,
        open(folder / "eval.jsonl", "wb") as held_out,
    ):
        for line in source:
            side = int(line[:16], 16) < bound
            counts[side] += 1
            (held_out if side else train).write(line[16:])
        for file in (train, held_out):
            file.flush()
            os.fsync(file.fileno())
    (folder / "all").unlink()
    return counts[0], counts[1]
