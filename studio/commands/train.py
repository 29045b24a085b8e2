"""`train` and `run`: a run in the foreground, with a progress bar and its result."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.commands.common import (
    INTERRUPTED,
    Json,
    Map,
    comparison,
    emit,
    ended,
    mapping,
    note,
    open_studio,
    progress,
    read_yaml,
    say,
)
from studio.domain.events import AnyEvent, Evaluated, Phase, Started, Step, Warned
from studio.domain.methods import METHODS
from studio.domain.profiles import PROFILES
from studio.domain.words import count, duration, interval, plural, run_title, short

if TYPE_CHECKING:
    from studio.domain.config import TrainingConfig
    from studio.domain.records import Run
    from studio.studio import Studio


Config = Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml", help="A configuration; options override it.")]
ModelName = Annotated[str | None, typer.Option("--model", help="`starter`, a Hub id, a folder or a .gguf file.")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="A data file, or the id of a data set.")]
Purpose = Annotated[
    str | None,
    typer.Option("--profile", help=f"What the model is for, which sets the rest: {', '.join(PROFILES)}."),
]
MethodName = Annotated[str | None, typer.Option("--method", help=f"{', '.join(METHODS)}.")]
MaxSteps = Annotated[int | None, typer.Option(help="End after this many steps.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the data.")]
Name = Annotated[str | None, typer.Option(help="Name of the adapter.")]
Set = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other setting, as train.seed=1.")]
Fix = Annotated[
    list[str] | None,
    typer.Option("--fix", help="A finding of `data check` to mend first, such as encoding. Repeat it."),
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be used.")]


def train(
    config: Config = None,
    model: ModelName = None,
    dataset: DatasetName = None,
    map: Map = None,
    profile: Purpose = None,
    method: MethodName = None,
    max_steps: MaxSteps = None,
    epochs: Epochs = None,
    name: Name = None,
    set: Set = None,
    skip_bad_rows: SkipBadRows = False,
    fix: Fix = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the run, or queue it while the machine is busy; print its id.")
    ] = False,
    priority: Annotated[int, typer.Option(help="In the queue the higher goes first.")] = 0,
    after: Annotated[
        str | None, typer.Option(metavar="RUN", help="Start only when this run has ended, however it ends.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings with reasons; start nothing.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the ")] = False,
    json: Json = False,
) -> None:
    """Train an adapter on your data, with a progress bar; Ctrl-C pauses it, and `runs resume` goes on."""
    from studio.domain.config import TrainingConfig
    from studio.domain.document import to_yaml

    if schema:
        emit(TrainingConfig.model_json_schema())
        return
    settings = settings_of(
        config, model, dataset, map, profile, method, max_steps, epochs, name, set, skip_bad_rows, fix
    )
    studio = open_studio()
    if after:
        studio.runs.get(after)  # said before anything is made
    if print_config:
        with progress() as report:
            found = studio.runs.resolve(settings, report)
        settings, reasons = found.config, found.reasons
        if json:
            emit({"config": settings.model_dump(), "reasons": reasons})
        else:
            say(to_yaml(settings, reasons).rstrip())
        return
    with progress() as report:
        run = studio.runs.prepare(settings, report)
    run = studio.queue.submit(run.id, priority, after)
    waits(run)
    if detach:
        if json:
            emit({"run": run.id, "status": run.status})
        else:
            say(run.id)
        return
    run, interrupted = attend(studio, run)
    finish(studio, run, interrupted, json)


def settings_of(
    config: Path | None,
    model: str | None,
    dataset: str | None,
    map: list[str] | None,
    profile: str | None,
    method: str | None,
    max_steps: int | None,
    epochs: float | None,
    name: str | None,
    set: list[str] | None,
    skip_bad_rows: bool,
    fix: list[str] | None,
) -> "TrainingConfig":
    """Return the settings of a file with the options over them; both a model and data have to be named."""
    from studio.domain.document import ABOUT, from_document, override

    document = read_yaml(config) if config else {}
    flags = {
        "model.id": model,
        "data.path": dataset,
        "data.map": mapping(map) or None,
        "data.skip_bad_rows": skip_bad_rows or None,
        "data.repairs": fix or None,
        "profile": profile,
        "method.name": method,
        "train.max_steps": max_steps,
        "train.epochs": epochs,
        "name": name,
    }
    if not isinstance(document, dict):
        from_document(document)  # says what is wrong with it
    wanted = _document(document, {key: value for key, value in flags.items() if value is not None})
    wanted = override(wanted, set or [])
    for group, key, flag in (("model", "id", "--model"), ("data", "path", "--dataset")):
        if isinstance(wanted.setdefault(group, {}), dict) and not wanted[group].get(key):
            raise typer.BadParameter(f"it is needed, or {group}.{key} in a ", param_hint=flag)
    return from_document(_fitted(wanted, model, dataset) if wanted.get(ABOUT) else wanted)


def run(
    run_dir: Annotated[Path, typer.Argument(help="A prepared run directory, of this machine or copied here.")],
    json: Json = False,
) -> None:
    """Execute a prepared run directory here, to its end."""
    studio = open_studio()
    with _interrupts() as times, showing() as show:
        result = studio.runs.execute(run_dir, show)
    finish(studio, result, bool(times), json)


def _fitted(document: dict[str, Any], model: str | None, dataset: str | None) -> dict[str, Any]:
    """Fit settings that were passed on to this machine, and say what was changed; what was named here stays."""
    about = dict(document["about"])
    for part, named in (("model", model), ("data", dataset)):
        if named:
            about.pop(part, None)
    fitted = open_studio().fit(document | {"about": about})
    for line in (*fitted.changes, *fitted.open):
        note(line)
    return fitted.document


def waits(run: "Run") -> None:
    """Say what a run waits for, if it does."""
    if run.status == "queued":
        note(f"{run_title(run.id)} waits in the queue: {run.phase}.")


def watch(studio: "Studio", run: "Run") -> "Run":
    """Show a run from its first event until its engine ends, and keep the queue going."""
    with showing(run_title(run.id)) as show:
        for event in studio.queue.follow(run.id):
            show(event)
    return studio.runs.get(run.id)


def attend(studio: "Studio", run: "Run") -> tuple["Run", bool]:
    """Show a run until its engine ends. Ctrl-C pauses it, a second one ends it by force."""
    seen = 0
    with _interrupts() as times:
        while True:
            try:
                with showing(run_title(run.id)) as show:
                    for number, event in enumerate(studio.queue.follow(run.id), 1):
                        if number > seen:
                            seen = number
                            show(event)
                return studio.runs.get(run.id), bool(times)
            except KeyboardInterrupt:
                if studio.runs.get(run.id).status == "queued":
                    note("It leaves the queue.")
                    studio.runs.stop(run.id)
                    continue
                force = len(times) > 1
                note(
                    "Ending the engine."
                    if force
                    else "Saving where it is, then pausing. Ctrl-C again ends the engine without."
                )
                if force:
                    studio.runs.stop(run.id, force=True)
                else:
                    studio.runs.pause(run.id)


def finish(studio: "Studio", run: "Run", interrupted: bool, json: bool) -> None:
    """Print what came out of a run; raise what it failed with."""
    if run.status in ("failed", "interrupted"):
        raise ended(run_title(run.id), run.error, run.hint)
    if json:
        emit(outcome(studio, run))
    else:
        summary(run)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def outcome(studio: "Studio", run: "Run") -> dict[str, Any]:
    """Return the result of a run in the form `train --json` prints."""
    folder = Path(run.path) / "adapter"
    path = studio.adapters.get(run.adapter).path if run.adapter else str(folder) if folder.is_dir() else None
    told = ("eval", "closing", "peak_memory_bytes")
    figures = ("steps", "real_tokens", "tokens_per_second", "train_seconds", "final_loss", *told)
    head = {"run": run.id, "status": run.status, "adapter": run.adapter, "adapter_path": path}
    return head | {key: run.result.get(key) for key in figures}


def summary(run: "Run") -> None:
    """Print the result of a run in words."""
    seconds = run.result.get("train_seconds")
    took = f" after {plural(run.step, 'step')}" + (f" and {duration(seconds)}" if seconds else "")
    say(f"{run_title(run.id)} {run.status}{took}." + (f" The adapter is {run.adapter}." if run.adapter else ""))
    if run.error:
        note(f"{run.error} {run.hint}".strip())
    if run.status == "paused":
        note(f"`peft-studio runs resume {run.id}` goes on; `peft-studio runs stop {run.id}` makes an adapter of it.")
    if run.result.get("eval"):
        comparison(run.result["eval"])
    if closing := run.result.get("closing"):
        say(f"{closing['words']} {closing['advice']}")
    if run.adapter:
        say(f"Chat with it: peft-studio chat --adapter {run.adapter}")


@contextmanager
def showing(title: str = "The run") -> Iterator[Callable[[AnyEvent], None]]:
    """Show the events of a run: steps as a bar with the time left, news as lines."""
    from studio.domain.events import dump
    from studio.services.progress import Progress

    state = Progress()
    with progress() as report:

        def show(event: AnyEvent) -> None:
            state.feed(dump(event).encode())
            match event:
                case Phase():
                    report(event)
                case Started():
                    held = f", {count(event.eval_rows)} held out" if event.eval_rows else ""
                    note(
                        f"{title}: {plural(event.steps, 'step')}, {plural(event.rows, 'example')}{held}, "
                        f"{short(event.trainable_parameters)} trainable parameters, {event.device}, {event.precision}."
                    )
                case Step():
                    left = f", {interval(*state.seconds_left)} left" if state.seconds_left else ""
                    news = f"steps, loss {event.loss:.3f}, {event.tokens_per_second:,.0f} tokens/s{left}"
                    total = state.started.steps if state.started else None
                    report(Phase(words="Training", done=event.step, total=total, unit=news))
                case Evaluated() if event.final is None:
                    base = f" (the base has {state.base_loss:.3f})" if event.step and state.base_loss else ""
                    what = f"after step {event.step}{base}" if event.step else "of the base model"
                    note(f"Held-out loss {what}: {event.loss:.3f}.")
                case Warned():
                    note(f"{event.words} {event.hint}".strip())
                case _:
                    pass

        yield show


@contextmanager
def _interrupts() -> Iterator[list[float]]:
    """Count the Ctrl-C pressed meanwhile; each still raises KeyboardInterrupt."""
    times: list[float] = []

    def count_it(number: int, frame: Any) -> None:
        times.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, count_it)
    try:
        yield times
    finally:
        signal.signal(signal.SIGINT, before)


def _document(document: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with the values of the options in their places."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    for path, value in flags.items():
        group, dot, key = path.partition(".")
        if not dot:
            result[path] = value
        elif isinstance(result.setdefault(group, {}), dict):
            result[group][key] = value
    return result
