"""`export`: an adapter as a model folder, a GGUF file or for Ollama, with the comparison that shows it is the same."""

from pathlib import Path
from typing import Annotated

import typer

from studio.commands.common import Json, emit, open_studio, progress, say, table
from studio.domain.words import size
from studio.services.export import Format, Weights


def export(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="name, name@v2 or a folder.")],
    format: Annotated[
        Format,
        typer.Option(
            help="merged: a folder for transformers, vLLM. gguf: a file for llama.cpp. gguf-adapter: the adapter "
            "alone, for its --lora. ollama: a GGUF file and a Modelfile."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.")],
    weights: Annotated[Weights, typer.Option(help="How a GGUF file stores the weights.")] = "f16",
    json: Json = False,
) -> None:
    """Make an adapter into a model that runs without the studio, and compare its answers with the adapter's."""
    with progress() as report:
        found = open_studio().export.run(adapter, format, out, weights, report)
    if json:
        emit(found)
    else:
        table(("File", "Size", "SHA-256"), [(f["name"], size(f["bytes"]), f["sha256"]) for f in found["files"]], (1,))
        say(f"Compared with the adapter: {found['parity']['words']}")
        say(f"It is in {found['path']}.")
        if format == "ollama":
            say(f"Next: cd {found['path']} && ollama create NAME -f Modelfile")
    if not found["parity"]["ok"]:
        raise typer.Exit(1)
