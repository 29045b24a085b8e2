"""`quickstart`: from nothing to an adapter you chat with, and a second time nothing is done twice."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from studio.commands.common import Json, emit, ended, note, open_studio, progress, say
from studio.commands.train import attend, outcome, summary, waits
from studio.domain.errors import Taken
from studio.domain.words import plural, run_title, size

if TYPE_CHECKING:
    from studio.domain.records import Run
    from studio.studio import Studio

SHOWN = 2  # answers before and after


def quickstart(
    no_ui: Annotated[
        bool, typer.Option("--no-ui", help="End when the adapter is there; do not open the studio.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Train anew without asking, even if it was done before.")
    ] = False,
    json: Json = False,
) -> None:
    """Fetch the starter model, train on the sample data, compare, and open the studio on the result."""
    from studio.services import quickstart as first

    studio = open_studio()
    known = studio.models.find("starter")
    with progress() as report:
        model = known or studio.models.fetch_starter(report)
    note(f"Model: SmolLM2-135M-Instruct, {size(model.bytes)}, {'here already' if known else 'fetched'}.")
    run = None if again else first.earlier(studio.runs)
    if run and first.goes_on(run):
        note(f"{run_title(run.id)} goes on after step {run.checkpoint}; --again trains anew.")
        run = studio.queue.resume(run.id)
        waits(run)
    elif run and not run.status.active and sys.stdin.isatty() and not json:
        note(f"{run_title(run.id)} has trained on the sample data already.")
        run = None if typer.confirm("Train again?", default=False, err=True) else run
    elif run:
        note(f"{run_title(run.id)} is used again; --again trains anew.")
    if run is None:
        with progress() as report:
            run = studio.runs.prepare(first.config(), report)
        dataset = studio.datasets.get(run.dataset)
        note(
            f"Data: {plural(dataset.rows, 'sample conversation')}, {dataset.eval_rows} of them held out for testing. "
            f"Training takes a few minutes."
        )
        run = studio.queue.submit(run.id)
        waits(run)
    interrupted = False
    if run.status.active:
        run, interrupted = attend(studio, run)
    if run.status in ("failed", "interrupted"):
        raise ended(run_title(run.id), run.error, run.hint)
    if json:
        emit(outcome(studio, run))
    else:
        summary(run)
        _before_and_after(run)
    if interrupted:
        raise typer.Exit(130)
    if not no_ui:
        _open(studio, run)


def _before_and_after(run: "Run") -> None:
    samples = (run.result.get("eval") or {}).get("samples") or []
    for sample in samples[:SHOWN]:
        say()
        say(f"Question: {sample['prompt']}")
        say(f"Base model: {sample['base'].strip()}")
        say(f"{run.adapter}: {sample['adapter'].strip()}")


def _open(studio: "Studio", run: "Run") -> None:
    from studio.ui.app import launch

    path = f"/?view=runs&run={run.id}"
    try:
        launch(studio, path=path)
    except Taken as other:
        if not other.address:
            raise
        say(f"The studio is open already: {other.address}{path}")
