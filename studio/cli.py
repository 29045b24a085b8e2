"""`peft-studio`: the commands, named like the tabs. Only `ui` loads the page."""

from typing import Annotated

import typer

from studio import __version__
from studio.commands import adapters, api, chat, data, estimate, export, inspect, quickstart, runs, train, vllm
from studio.commands import models as base_models
from studio.commands.common import Commands, Json, emit, note, open_studio, progress, say, table
from studio.domain.errors import StudioError
from studio.domain.words import plural, short, size

app = Commands(
    help="Fine-tune a language model on your own data, and use it. Without a command: opens the studio.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = Commands(help="The base models on this machine.", no_args_is_help=True)

app.command()(quickstart.quickstart)
app.command()(estimate.estimate)
app.command()(train.train)
app.command()(train.run)
app.command()(chat.chat)
app.command()(chat.evaluate)
app.command()(export.export)
models.command("show")(base_models.show)
app.add_typer(models, name="models")
data.data.command("show")(inspect.show)
app.add_typer(data.data, name="data")
app.add_typer(runs.runs, name="runs")
adapters.adapters.command("vllm")(vllm.vllm)
app.add_typer(adapters.adapters, name="adapters")
app.add_typer(api.api, name="api")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"peft-studio {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        ui()


@app.command()
def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than this machine's need PEFT_STUDIO_PASSWORD.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: 7860, or the next free one.", min=1, max=65535)] = None,
    share: Annotated[
        bool, typer.Option("--share", help="A public link for three days; needs PEFT_STUDIO_PASSWORD.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Open the studio in the browser."""
    from studio.ui.app import launch

    launch(host=host, port=port, share=share, browser=not no_browser)


@models.command("list")
def list_models(json: Json = False) -> None:
    """List the base models on this machine."""
    found = open_studio().models.list()
    if json:
        emit(found)
    elif not found:
        say("No models yet. `peft-studio models fetch starter` fetches a small one.")
    else:
        rows = [(m.id, short(m.parameters), f"{m.context:,}", size(m.bytes), m.licence, m.source) for m in found]
        table(("Model", "Parameters", "Context", "Size", "Licence", "From"), rows, right=(1, 2, 3))


@models.command("fetch")
def fetch_model(
    model: Annotated[str, typer.Argument(help="`starter`, a Hub id or a .gguf file.")],
    revision: Annotated[str, typer.Option(help="Commit, tag or branch on the Hub.")] = "",
    json: Json = False,
) -> None:
    """Bring a base model onto this machine."""
    with progress() as report:
        found = open_studio().models.resolve(model, revision, report)
    if json:
        emit(found)
    else:
        say(f"{found.id} is in {found.path} ({size(found.bytes)}).")


@app.command("doctor")
def examine(
    reindex: Annotated[bool, typer.Option("--reindex", help="Make the database anew from the folders.")] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="Show every part of this machine and what it allows, nothing else.")
    ] = False,
    json: Json = False,
) -> None:
    """Check Python, packages, hardware and the home folder, with a remedy for what is missing."""
    from studio.services import doctor, hardware

    if machine:
        found = hardware.parts(open_studio().machine)
        if json:
            emit(found)
        else:
            table(("Part", "What it is", "What it allows"), [(part.part, part.words, part.allows) for part in found])
        return
    findings = list(doctor.environment())
    try:
        studio = open_studio()
    except StudioError as error:
        findings.append(doctor.no("home folder", error))
    else:
        if reindex:
            note(f"The database now knows {plural(studio.store.reindex(), 'adapter')}.")
        findings += doctor.installation(studio.home, studio.store, studio.models, studio.machine)
    if json:
        emit(findings)
    else:
        rows = [("ok" if f.ok else "not ok", f.check, " ".join(filter(None, (f.detail, f.remedy)))) for f in findings]
        table(("", "Check", "Found"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
