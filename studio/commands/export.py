"""`export`: an adapter as a model folder, a GGUF file or for Ollama, with the comparison that shows it is the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.commands.common import Json, emit, open_studio, progress, say, table
from studio.domain.words import said, size
from studio.services.export import Format, Weights

if TYPE_CHECKING:
    from studio.services.ollama import Server


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
    zip: Annotated[bool, typer.Option("--zip", help="One ZIP file, OUT.zip, instead of the folder.")] = False,
    into: Annotated[
        bool, typer.Option("--import", help="With ollama: put it into the Ollama that runs, and ask it a question.")
    ] = False,
    called: Annotated[str, typer.Option("--name", help="Its name in Ollama; otherwise NAME:vN.")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: replace a model of that name, send to another machine.")
    ] = False,
    json: Json = False,
) -> None:
    """Make an adapter into a model that runs without the studio, and compare its answers with the adapter's."""
    if into and (format != "ollama" or zip):
        raise typer.BadParameter("It goes with --format ollama and without --zip.", param_hint="--import")
    studio = open_studio()
    if into:
        from studio.services import ollama

        server = ollama.find()  # what would stop it is said before the work begins
        called = called or ollama.default_name(studio.adapters.get(adapter))
        _ask(server, called, yes)
    with progress() as report:
        found = studio.export.run(adapter, format, out, weights, report, zip=zip)
        if into and found["parity"]["ok"]:
            question = studio.export.questions(studio.adapters.get(adapter))[0]
            found["ollama"] = server.take(found, called, question, replace=True, report=report)
    if json:
        emit(found)
    else:
        table(("File", "Size", "SHA-256"), [(f["name"], size(f["bytes"]), f["sha256"]) for f in found["files"]], (1,))
        say(f"Compared with the adapter: {found['parity']['words']}")
        say(f"It is in {found['path']}.")
        if "ollama" in found:
            say(f"Ollama at {found['ollama']['address']} has it: ollama run {called}")
            say(f"Asked: {said(found['ollama']['question'][-1])}")
            say(f"It answers: {found['ollama']['answer']}")
        elif into:
            say("It was not put into Ollama, as it does not answer like the adapter.")
        elif format == "ollama" and not zip:
            say(f"Next: cd {found['path']} && ollama create NAME -f Modelfile")
    if not found["parity"]["ok"]:
        raise typer.Exit(1)


def _ask(server: "Server", name: str, yes: bool) -> None:
    """Ask before a model is replaced or anything leaves this machine."""
    questions = [] if server.here else [f"Send the model to {server.address}, another machine?"]
    if server.has(name):
        questions.append(f"Replace {name}, which Ollama has already?")
    for question in questions:
        if not yes and not typer.confirm(question, err=True):
            raise typer.Exit
