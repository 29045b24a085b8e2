"""The first run: the starter model and the bundled sample data, with settings a small machine finishes in minutes."""

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.records import Run, Status
from studio.services.datasets import sample_path
from studio.services.models import STARTER
from studio.services.runs import Runs

NAME = "support-desk"
# What differs from the recommendation, so that two slow cores are done within four minutes.
SETTINGS: dict[str, dict[str, object]] = {"train": {"epochs": 1.5}, "evaluate": {"answers": 8}}


def config() -> TrainingConfig:
    """Return the settings of the first run."""
    places = {"model": {"id": STARTER}, "data": {"path": str(sample_path())}}
    return from_document({"name": NAME, **places, **SETTINGS})


def earlier(runs: Runs) -> Run | None:
    """Return the newest run of the quickstart that made an adapter, still makes one, or can be resumed to."""
    mine = (NAME, STARTER, sample_path().stem)
    known = [run for run in runs.list() if (run.name, run.model, run.dataset) == mine]
    made = (
        run for run in known if run.status.active or (run.status is Status.FINISHED and run.adapter) or goes_on(run)
    )
    return next(made, None)


def goes_on(run: Run) -> bool:
    """Whether it ended before its time and has a checkpoint to go on from."""
    return run.status in (Status.PAUSED, Status.INTERRUPTED) and run.checkpoint is not None
