"""`chat` and `evaluate`: talk with the base and its adapters, and measure one against the other."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.commands.common import Json, Map, comparison, emit, mapping, note, open_studio, progress, say
from studio.domain.errors import StudioError
from studio.domain.events import Phase

if TYPE_CHECKING:
    from studio.services.chat import Done
    from studio.studio import Studio


def chat(
    model: Annotated[
        str | None, typer.Option(help="The base model. Without it the adapter's own, else `starter`.")
    ] = None,
    adapter: Annotated[list[str] | None, typer.Option(help="name, name@v2 or a folder. Repeat to compare.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Beside the adapters, let the base model answer too.")] = False,
    prompt: Annotated[str | None, typer.Option(help="Answer this once and end.")] = None,
    system: Annotated[str | None, typer.Option(help="The instruction the conversation begins with.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1, max=8192)] = 256,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest word.", min=0, max=5)] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the likely words to choose from.", min=0.01, max=1)] = 0.95,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.", min=0)] = None,
    json: Json = False,
) -> None:
    """Talk with a model; with --prompt answer once, each adapter in turn."""
    if json and prompt is None:
        raise typer.BadParameter("needed with --json.", param_hint="--prompt")
    from studio.services.adapters import base_of

    studio = open_studio()
    voices: list[str | None] = list(adapter or [])
    if base or not voices:
        voices.insert(0, None)
    worn = [studio.adapters.get(name) for name in voices if name]
    start = [{"role": "system", "content": system}] if system else []
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    if worn and not model:
        found = base_of(worn[0], studio.models)
    else:
        with progress() as report:
            found = studio.models.resolve(model or "starter", report=report)
    try:
        if prompt is not None:
            asked = [*start, {"role": "user", "content": prompt}]
            answers = []
            for voice in voices:
                if not json and len(voices) > 1:
                    say(f"{voice or 'base model'}:")
                done = _answer(studio, found, voice, asked, sampling, quiet=json)
                answers.append({"adapter": voice} | _figures(done))
            if json:
                emit({"answers": answers})
        else:
            _converse(studio, found, voices, start, sampling)
    finally:
        studio.chat.unload()


def _converse(studio: "Studio", model: Any, voices: list[str | None], start: list[Any], sampling: Any) -> None:
    """Ask and answer until the input ends. Each voice has its own conversation."""
    talks: dict[str | None, list[dict[str, str]]] = {voice: list(start) for voice in voices}
    note("Ctrl-C stops an answer, Ctrl-D ends.")
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            say()
            return
        if not question:
            continue
        for voice, talk in talks.items():
            if len(talks) > 1:
                say(f"{voice or 'base model'}:")
            talk.append({"role": "user", "content": question})
            done = _answer(studio, model, voice, talk, sampling)
            talk.append({"role": "assistant", "content": done.text})


def _answer(
    studio: "Studio", model: Any, voice: str | None, messages: Any, sampling: Any, quiet: bool = False
) -> "Done":
    """Stream one answer to stdout, unless `quiet`; Ctrl-C ends the answer and keeps what was said."""
    from studio.services.chat import Done, Token

    stream: Any = studio.chat.answer(model, voice, messages, **sampling)
    text = ""
    try:
        with progress() as report:
            for first in stream:
                if not isinstance(first, Phase):
                    break
                report(first)
            else:
                raise StudioError("The model gave no answer.", "Try again.")
        item: Any = first
        while not isinstance(item, Done):
            if isinstance(item, Token):
                text += item.text
                if not quiet:
                    sys.stdout.write(item.text)
                    sys.stdout.flush()
            item = next(stream)
    except KeyboardInterrupt:
        if quiet:
            raise
        stream.close()
        item = Done(text=text, stopped=True)
    if not quiet:
        say()
        if item.tokens_per_second:
            note(f"{item.tokens} tokens, {item.tokens_per_second:.0f} tokens/s")
    return item


def _figures(done: "Done") -> dict[str, Any]:
    names = ("text", "tokens", "tokens_per_second", "first_token_seconds", "swap_seconds")
    return {name: getattr(done, name) for name in names}


def evaluate(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="name, name@v2 or a folder.")],
    dataset: Annotated[str, typer.Option(help="A data file never trained on, or a data set: its held-out rows.")],
    map: Map = None,
    format: Annotated[str, typer.Option(help="Structure of the rows, if it is not detected.")] = "auto",
    answers: Annotated[int | None, typer.Option(help="How many answers to write and compare.", min=0)] = None,
    json: Json = False,
) -> None:
    """Measure an adapter against its base on a data file."""
    with progress() as report:
        found = open_studio().evaluate.run(
            adapter, dataset, map=mapping(map) or None, format=format, answers=answers, report=report
        )
    if json:
        emit(found)
    else:
        comparison(found)
