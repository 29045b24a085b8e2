"""A run's place in the queue, kept in its folder: a run with one waits, to start or to go on."""

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from studio.storage.paths import write_atomic

PLACE = "queue.json"


class Place(BaseModel):
    """Content of a run's `queue.json`. The higher priority goes first, then the earlier `since`.

    It waits until `after` has ended, however that ends. `card` is set at the start where there are several. `resume`
    is set while a run that was paused or ended before its time waits to go on.
    """

    since: str
    priority: int = 0
    after: str | None = None
    card: str | None = None
    resume: bool = False


def place_of(directory: str | Path) -> Place | None:
    """Return a run's place in the queue, also after it has left it; None when it was never put there."""
    with suppress(FileNotFoundError, ValidationError):
        return Place.model_validate_json((Path(directory) / PLACE).read_bytes())
    return None


def put(directory: str | Path, place: Place) -> None:
    """Write a run's place."""
    write_atomic(Path(directory) / PLACE, place.model_dump_json())
