"""`adapters vllm`: the command and the configuration with which vLLM serves adapters to many users."""

from pathlib import Path
from typing import Annotated

import typer

from studio.commands.common import Json, emit, note, open_studio, say
from studio.domain.errors import StudioError


def vllm(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="name or name@v2, all of one base.")],
    at_once: Annotated[
        int | None, typer.Option("--max-loras", help="Adapters in one batch. Default: all of them, at most 8.", min=1)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the options to this YAML file.")] = None,
    json: Json = False,
) -> None:
    """Print the command with which vLLM serves these adapters, and name those that it cannot."""
    if out and out.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter("vLLM reads a file that ends in .yaml.", param_hint="--out")
    plan = open_studio().vllm.plan(adapters, at_once)
    if out:
        try:
            out.write_text(plan.config, encoding="utf-8")
        except OSError as error:
            raise StudioError(f"{out} cannot be written: {error.strerror or error}.", "Name another file.") from error
    if json:
        emit(plan.model_dump() | {"command": plan.command, "config": plan.config})
    else:
        say(plan.shell)
        if out:
            note(f"Or: vllm serve --config {out}")
    for each in plan.refused:
        note(f"Left out: {each.why} {each.hint}")
    if plan.refused:
        raise typer.Exit(1)
