"""`runs`: what is trained, from the queue to the end."""

from datetime import datetime
from typing import Annotated

import typer

from studio.commands.common import Commands, Json, beside, comparison, emit, note, open_studio, progress, say, table
from studio.commands.train import attend, finish, waits, watch
from studio.domain.words import duration, interval, model_name, run_title, size, when

runs = Commands(help="List, queue, show, compare, watch, pause, resume and stop runs.")
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `runs list` shows it.")]


@runs.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option(help="Only runs in this state, as training or failed.")] = None,
    method: Annotated[str | None, typer.Option(help="Only runs with this method, as lora or qlora.")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs whose model's name holds these words.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Only runs of this day and later.")
    ] = None,
    json: Json = False,
) -> None:
    """List the runs, newest first."""
    from studio.domain.records import Status

    if status is not None and status not in list(Status):
        raise typer.BadParameter(f"the states are {', '.join(Status)}.", param_hint="--status")
    wanted = (model or "").casefold()
    known = open_studio().runs.list(Status(status) if status else None)
    found = [
        run
        for run in known
        if method in (None, run.method)
        and wanted in f"{run.model} {model_name(run.model)}".casefold()
        and (since is None or datetime.fromisoformat(run.created) >= since.astimezone())
    ]
    if json:
        emit(found)
    elif not found:
        say("No run is like that." if known else "No runs yet. `peft-studio train` starts one.")
    else:
        rows = [
            (
                run.id,
                run.status.capitalize(),
                f"{run.step:,} of {run.steps:,}" if run.steps else "",
                "" if run.loss is None else f"{run.loss:.3f}",
                run.model,
                run.method,
                run.adapter or "",
                when(run.created),
            )
            for run in found
        ]
        table(("Run", "State", "Step", "Loss", "Model", "Method", "Adapter", "Started"), rows, right=(2, 3))


@runs.command("queue")
def queue_run(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run that waits or was only prepared. None: show the queue.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="The higher goes first; 0 unless told otherwise.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="RUN", help="Wait until this run has ended, however it ends. '': for none.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the runs that wait, the next one first; or put a run there, or change its place."""
    studio = open_studio()
    if run:
        found = studio.queue.submit(run, priority, after)
        if json:
            emit(found)
        elif found.status == "queued":
            waits(found)
        else:
            say(f"{run_title(run)} starts.")
        return
    waiting = studio.queue.list()
    if json:
        emit(waiting)
    elif not waiting:
        say("No run waits.")
    else:
        rows = [(each.id, each.priority, each.phase or "next", each.model, when(each.created)) for each in waiting]
        table(("Run", "Priority", "Waits", "Model", "Made"), rows, right=(1,))


@runs.command("show")
def show_run(run: RunId, json: Json = False) -> None:
    """Show one run."""
    found = open_studio().queue.get(run)
    if json:
        emit(found)
        return
    facts = {
        "State": found.status.capitalize() + (f". {found.error} {found.hint}" if found.error else ""),
        "Now": found.phase,
        "Step": f"{found.step:,} of {found.steps:,}" if found.steps else "",
        "Left": interval(*found.seconds_left) if found.seconds_left else "",
        "Training loss": "" if found.loss is None else f"{found.loss:.3f}",
        "Held-out loss": "" if found.eval_loss is None else f"{found.eval_loss:.3f}",
        "of the base": "" if found.base_loss is None else f"{found.base_loss:.3f}",
        "Speed": f"{found.tokens_per_second:,.0f} tokens/s" if found.tokens_per_second else "",
        "Memory": size(found.memory_bytes) if found.memory_bytes else "",
        "Time": duration(found.seconds) if found.seconds else "",
        "Model": found.model,
        "Data": found.dataset,
        "Method": found.method,
        "Adapter": found.adapter or "",
        "Folder": found.path,
    }
    say(run_title(found.id))
    table(("", ""), [(name, value) for name, value in facts.items() if value])
    if found.result.get("eval"):
        comparison(found.result["eval"])


@runs.command("settings")
def show_settings(run: RunId, json: Json = False) -> None:
    """Print a run's settings as a file to pass on: with reasons, the hardware it ran on, and its results."""
    import yaml

    from studio.services.share import settings_of

    text = settings_of(open_studio().runs.get(run))
    if json:
        emit(yaml.safe_load(text))
    else:
        say(text.rstrip())


@runs.command("compare")
def compare_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two to five runs, by their ids.")],
    json: Json = False,
) -> None:
    """Show what differs in the settings and the results of runs, with the best of each row."""
    from studio.services.compare import compare, load

    found = compare(load(open_studio().runs, runs))
    if json:
        emit(found)
        return
    for remark in found.notes:
        note(remark)
    for title, rows in (("Results", found.results), ("Settings that differ", found.settings)):
        beside(title, list(map(run_title, found.runs)), rows)
    if not found.settings:
        say("They ran with the same settings.")


@runs.command("tail")
def tail_run(
    run: RunId,
    lines: Annotated[int, typer.Option(help="Lines of the engine's log to show first.", min=0)] = 10,
    json: Json = False,
) -> None:
    """Watch a run until it ends, and keep the queue going meanwhile; Ctrl-C leaves it running."""
    studio = open_studio()
    found = studio.runs.get(run)
    if lines:
        note(studio.runs.log(run, lines))
    if found.status.active:
        waits(studio.queue.get(run))
        note("Ctrl-C ends only the watching.")
        found = watch(studio, found)
    finish(studio, found, False, json)


@runs.command("stop")
def stop_run(
    run: RunId,
    force: Annotated[bool, typer.Option("--force", help="End the engine at once, without an adapter.")] = False,
    json: Json = False,
) -> None:
    """Stop a run at its next step, the adapter so far is kept; or take one that waits out of the queue."""
    studio = open_studio()
    before = studio.runs.get(run)
    found = studio.runs.stop(run, force=force)
    if json:
        emit(found)
    elif before.status == "paused" and not force:
        say(f"{run_title(run)} makes an adapter of where it was and ends.")
    elif not before.status.active:
        say(f"{run_title(run)} is over already: {before.status}.")
    elif before.status == "queued" and not found.status.active:
        say(f"{run_title(run)} is out of the queue.")
    else:
        say(f"{run_title(run)} stops at its next step." if found.status.active else f"{run_title(run)} has ended.")


@runs.command("pause")
def pause_run(run: RunId, json: Json = False) -> None:
    """Save where a run is and end its engine, so that the memory is free; `runs resume` goes on."""
    found = open_studio().runs.pause(run)
    if json:
        emit(found)
    elif found.status.active:
        say(f"{run_title(run)} saves where it is and pauses.")
    else:
        say(f"{run_title(run)} is {found.status}.")


@runs.command("resume")
def resume_run(
    run: RunId,
    set: Annotated[
        list[str] | None, typer.Option(help="Go on with another value: --set train.learning_rate=1e-4. Repeat it.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; `runs tail` shows it.")] = False,
    json: Json = False,
) -> None:
    """Go on with a paused, interrupted or failed run from its last good checkpoint."""
    from studio.domain.document import flat, override

    studio = open_studio()
    found = studio.queue.resume(run, flat(override({}, set or [])))
    if not json:
        waits(found)
    if detach:
        emit(found) if json else say(f"{run_title(run)} goes on{' in its turn' if found.since else ''}.")
        return
    found, interrupted = attend(studio, found)
    finish(studio, found, interrupted, json)


@runs.command("save")
def save_run(run: RunId, json: Json = False) -> None:
    """Write a checkpoint of a training run at its next step."""
    found = open_studio().runs.save(run)
    emit(found) if json else say(f"{run_title(run)} is saved at its next step.")


@runs.command("keep")
def keep_run(
    run: RunId,
    step: Annotated[int, typer.Option(help="The step whose checkpoint becomes a version.", min=0)],
    json: Json = False,
) -> None:
    """Make the weights of an earlier step of an ended run a version of its adapter."""
    with progress() as report:
        made = open_studio().runs.keep(run, step, report)
    emit(made.model_dump() | {"ref": made.ref}) if json else say(f"Step {step:,} of {run_title(run)} is {made.ref}.")


@runs.callback(invoke_without_command=True)
def runs_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_runs()
