"""What the commands share: errors in words, one JSON document on stdout, progress on stderr, comparisons as tables."""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.domain.errors import EngineError, StudioError
from studio.domain.events import Phase, Report
from studio.domain.metrics import Line, Metric, lines

if TYPE_CHECKING:
    from rich.console import Console

    from studio.services.compare import Row
    from studio.studio import Studio

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="What a column means: prompt=COL, response=COL, system=COL or text=COL. Repeat it."),
]
INTERRUPTED = 130  # exit code after Ctrl-C


class Commands(typer.Typer):
    """A Typer whose commands never end in a traceback."""

    def command(self, name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        register = super().command(name, **options)
        return lambda function: register(edge(function))


def edge(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn whatever a command lets through into one sentence, the next step and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except StudioError as error:
            if os.environ.get("PEFT_STUDIO_DEBUG"):
                raise
            fail(error, bool(kwargs.get("json")))
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if os.environ.get("PEFT_STUDIO_DEBUG"):
                raise
            fail(_unexpected(error), bool(kwargs.get("json")))

    return guarded


def fail(error: StudioError, as_json: bool) -> None:
    """Say what is wrong and the next step, and end with exit code 1."""
    message, hint = error.message, error.hint
    if as_json:
        emit({"error": message, "hint": hint})
    note(message)
    if hint:
        note(hint)
    raise typer.Exit(1)


def _unexpected(error: Exception) -> StudioError:
    from studio.storage.paths import Home

    path = Home().logs / "studio.log"
    logger = logging.getLogger("studio.cli")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=2, encoding="utf-8")
    except OSError:  # nowhere to write to: then the screen has to do
        return StudioError(f"Something failed here: {type(error).__name__}: {error}.", "Run `peft-studio doctor`.")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.propagate = False
    logger.addHandler(handler)
    logger.error("peft-studio %s", " ".join(sys.argv[1:2]), exc_info=error)
    logger.removeHandler(handler)
    handler.close()
    return StudioError(f"Something failed here. The details are in {path}.", "Run `peft-studio doctor`.")


def open_studio() -> "Studio":
    """Return the services on the home folder."""
    from studio.studio import Studio

    return Studio()


def emit(document: Any) -> None:
    """Print a JSON document on stdout; what is not a number is null."""
    from pydantic_core import to_json

    sys.stdout.write(to_json(document, indent=2, inf_nan_mode="null").decode() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say(text: str = "") -> None:
    """Write a line to stdout: what the user asked for, when it was not asked for as JSON."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def console() -> "Console":
    """Return stdout as a place for tables; in a file or a pipe no line is folded to fit a screen."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Print rows under a head; the columns in `right` are numbers."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="dim", show_header=any(head))
    for place, title in enumerate(head):
        grid.add_column(title, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console().print(grid)


@contextmanager
def progress() -> Iterator[Report]:
    """Show phases on stderr: as a bar on a terminal, else a line for each new phase."""
    if not sys.stderr.isatty():
        last = ""

        def line(phase: Phase) -> None:
            nonlocal last
            if _kind(phase) != last:
                last = _kind(phase)
                note(phase.words)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from studio.services.progress import words

    terminal = Console(stderr=True, markup=False, highlight=False, emoji=False)
    text = TextColumn("{task.description}", markup=False)
    with Progress(SpinnerColumn(), text, BarColumn(16), TimeElapsedColumn(), console=terminal, transient=True) as bar:
        task, shown = bar.add_task("", total=None), ""

        def show(phase: Phase) -> None:
            nonlocal shown
            if _kind(phase) != shown:
                shown = _kind(phase)
                bar.reset(task)
            bar.update(task, description=words(phase), total=phase.total, completed=phase.done or 0)

        yield show


def _kind(phase: Phase) -> str:
    """Return what stays of a phase's words while its numbers change."""
    return re.sub(r"[\d.,]+", "", phase.words)


def mapping(pairs: list[str] | None) -> dict[str, str]:
    """Read `--map role=column` options."""
    found = {}
    for pair in pairs or []:
        role, equals, column = pair.partition("=")
        if not equals or not role.strip() or not column:
            raise typer.BadParameter(f"{pair!r} is not of the form prompt=COLUMN.", param_hint="--map")
        found[role.strip()] = column
    return found


def beside(title: str, heads: list[str], rows: "Sequence[Row]") -> None:
    """Print the rows of a comparison, a column for each thing compared, the best of a row named."""
    if rows:
        cells = [
            [row.name, *(f"{text} best" if at in row.best else text for at, text in enumerate(row.words))]
            for row in rows
        ]
        table((title, *heads), cells, right=range(1, len(heads) + 1))
        say()


def comparison(report: dict[str, Any]) -> None:
    """Print base against adapter, a metric a row, and the verdict."""
    rows = [
        (line.metric.name, line.metric.value(line.base), line.metric.value(line.adapter), line.difference)
        for line in lines(report)
    ]
    head = (f"On {report['rows']:,} held-out rows", "Base model", "Adapter", "Difference, 95 % interval")
    table(head, rows, right=(1, 2))
    say(report["verdict"])
    if judged := report.get("judge"):
        say(judged["verdict"])


def on_tasks(report: dict[str, Any]) -> None:
    """Print base against adapter on tasks, a metric a row, and the verdict."""
    rows = []
    for name, differences in report["difference"].items():
        for key, found in differences.items():
            base, adapter = report["base"][name][key], report["adapter"][name][key]
            told = Line(key, Metric(key, digits=3), base, adapter, found).difference
            rows.append((name, f"{report['documents'][name]:,}", key, f"{base:,.3f}", f"{adapter:,.3f}", told))
    head = ("Task", "Documents", "Metric", "Base model", "Adapter", "Difference, 95 % interval")
    table(head, rows, right=(1, 3, 4))
    say(report["verdict"])


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML or JSON file."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudioError(f"There is no file {path}.", "Check the path of the configuration.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StudioError(f"{path} cannot be read.", "Name a YAML or JSON file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise StudioError(f"{path}{where}: this is not YAML.", "`--print-config` shows one that is.") from error


def ended(title: str, error: str, hint: str) -> EngineError:
    """Return the error of a run that did not finish."""
    return EngineError(f"{title} did not finish. {error}", hint)
