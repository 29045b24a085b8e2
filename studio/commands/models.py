"""`models show`: what a base model is, before it is fetched or loaded."""

from typing import Annotated

import typer

from studio.commands.common import Json, emit, open_studio, say, table
from studio.domain.words import model_name


def show(
    model: Annotated[str, typer.Argument(help="`starter`, a Hub id, a folder or a .gguf file.")],
    revision: Annotated[str, typer.Option(help="Commit, tag or branch on the Hub.")] = "",
    json: Json = False,
) -> None:
    """Say what a model is: architecture, sizes, context, licence, template; no weights are loaded or fetched."""
    from studio.domain.model_facts import PLACES, told

    found = open_studio().models.facts(model, revision)
    if json:
        emit(found)
        return
    say(f"{model_name(found.id)}, {PLACES.get(found.source, PLACES['folder'])}")
    table(("", ""), told(found))
