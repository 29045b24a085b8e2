"""`data show`: what a model would read of an example and learn of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.commands.common import Json, Map, console, emit, mapping, open_studio, progress, say, table
from studio.domain.events import Phase, Report
from studio.domain.words import count, plural

if TYPE_CHECKING:
    from studio.domain.config import TrainingConfig
    from studio.domain.supervision import Supervision
    from studio.services.sample import Subject
    from studio.studio import Studio


def show(
    file: Annotated[str, typer.Argument(help="A data file, or the id or name of a data set.")],
    model: Annotated[str, typer.Option(help="`starter`, a Hub id, a folder or a .gguf file.")],
    row: Annotated[
        int, typer.Option(help="Row of the file, or example of the data set, from 1. 0: the first.", min=0)
    ] = 0,
    map: Map = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the run, as data.max_length=512.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a model would read of an example and learn of it, what is wrong with it and the remedy."""
    from studio.domain.document import from_document, override

    document = {"model": {"id": model}, "data": {"path": file, "map": mapping(map)}}
    config = from_document(override(document, set or []))
    studio = open_studio()
    with progress() as report:
        subject = _subject(studio, config, row, report)
        base = studio.models.resolve(model, config.model.revision, report)
        for seen in studio.inspect.look(base, subject, config):
            if isinstance(seen, Phase):
                report(seen)
            elif json:
                emit(seen)
            else:
                _tell(seen)


def _subject(studio: "Studio", config: "TrainingConfig", row: int, report: Report) -> "Subject":
    """Return the example to look at: of a file, or of a data set where there is no such file."""
    from studio.services import sample

    data = config.data
    path = Path(data.path).expanduser()
    if path.exists():
        return sample.of_file(studio.home, path, format=data.format, map=data.map or None, row=row, report=report)
    dataset = studio.datasets.get(data.path)
    return sample.of_dataset(studio.home, dataset, studio.datasets.example(dataset.id, max(row - 1, 0)))


def _tell(seen: "Supervision") -> None:
    from rich.text import Text

    from studio.domain.supervision import LEVELS, READS

    text = Text()
    for span in seen.spans:
        style = "underline" if span.trained else "strike" if span.cut else "dim"
        text.append(span.text.removesuffix(span.end), style)
        text.append(span.end, f"{style} reverse" if span.end else "")
    say(f"Row {seen.row}. {READS}")
    console().print(text, soft_wrap=True)
    figures = f"{count(seen.trained_tokens)} of {plural(seen.tokens, 'token')} trained, {seen.truncated_tokens:,} cut."
    ends = "trained" if seen.terminator.trained else "not trained"
    say(f"{figures} End of the answer ({seen.terminator.text!r}): {ends}. Up to {count(seen.limit)} tokens fit.")
    rows = [(LEVELS[each.level], f"{each.title}. {each.why}", each.remedy) for each in seen.findings]
    if rows:
        table(("", "Finding", "Remedy"), rows)
    else:
        say("No findings.")
