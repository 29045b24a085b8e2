"""What may be deleted when the disk runs short: versions that are not active, checkpoints of runs that are over.

Nothing is deleted here by itself: somebody is shown what would go and how much that frees, and says so.
"""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from studio.domain.errors import StudioError
from studio.domain.records import Run, Status
from studio.domain.words import run_title
from studio.services.adapters import Adapters
from studio.services.doctor import ROOM
from studio.services.freed import freed_by, in_use
from studio.services.runs import Runs
from studio.storage.paths import Home


class Item(BaseModel):
    """A version (`ref` is name@vN), or the checkpoints of a run (`ref` is its id), and the bytes its end would free."""

    kind: str
    ref: str
    bytes: int
    why: str


class Room(BaseModel):
    """The bytes that are free, whether those are few, and what may be deleted, the largest first."""

    free_bytes: int
    low: bool
    items: list[Item]


class Rooms:
    """Looks at the home folder's disk."""

    def __init__(self, home: Home, adapters: Adapters, runs: Runs) -> None:
        self.home, self.adapters, self.runs = home, adapters, runs

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.home.root).free

    @property
    def low(self) -> bool:
        return self.free < ROOM

    def look(self) -> Room:
        """Return what may be deleted. What is active or in use is not among it."""
        found = [
            Item(
                kind="version",
                ref=each.ref,
                bytes=freed_by(self.home, each),
                why="Archived." if each.archived else "Not active.",
            )
            for each in self.adapters.list(archived=True)
            if not each.active and not in_use(self.home, each)
        ]
        found += [
            Item(kind="checkpoints", ref=run.id, bytes=_size(_checkpoints(run)), why=f"The run is {run.status}.")
            for run in self.runs.list()
            if run.status in (Status.FINISHED, Status.STOPPED)
        ]
        items = sorted((each for each in found if each.bytes), key=lambda each: -each.bytes)
        return Room(free_bytes=self.free, low=self.low, items=items)

    def clear(self, run_id: str) -> int:
        """Delete the checkpoints of a run that is over and return the bytes freed; its adapter and figures stay."""
        with self.runs.alone():
            run = self.runs.get(run_id)
            if run.status not in (Status.FINISHED, Status.STOPPED):
                raise StudioError(
                    f"{run_title(run.id)} is {run.status}: it goes on from its checkpoints.", "Stop it first."
                )
            if self._kept_from(run):
                raise StudioError(f"A step of {run_title(run.id)} is being kept now.", "Try again when that has ended.")
            folder = _checkpoints(run)
            freed = _size(folder)
            if folder.is_dir():
                doomed = tempfile.mkdtemp(prefix=".removed-", dir=self.home.cache)
                folder.rename(Path(doomed) / folder.name)  # gone at once, whatever happens to the deletion
                shutil.rmtree(doomed, ignore_errors=True)
        return freed

    def _kept_from(self, run: Run) -> bool:
        """Whether a checkpoint of a run is being made a version."""
        for request in self.home.cache.glob("keep-*/request.json"):
            with suppress(OSError, ValueError):
                if json.loads(request.read_text(encoding="utf-8")).get("run") == run.path:
                    return True
        return False


def _checkpoints(run: Run) -> Path:
    return Path(run.path) / "checkpoints"


def _size(folder: Path) -> int:
    """Return the bytes that deleting a folder frees: what something else is linked to stays."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return sum(file.st_size for file in files if file.st_nlink == 1)
