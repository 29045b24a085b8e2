"""`chat` and `evaluate`: talk with the base and its adapters, and measure one against the other."""

import itertools
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.commands.common import Json, Map, comparison, emit, mapping, note, on_tasks, open_studio, progress, say
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
    """Talk with a model; with --prompt answer once."""
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
            ends = _answers(studio, found, [(voice, asked) for voice in voices], sampling, quiet=json)
            answers = [{"adapter": voice} | _figures(done) for voice, done in zip(voices, ends, strict=True)]
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
        for talk in talks.values():
            talk.append({"role": "user", "content": question})
        for talk, done in zip(talks.values(), _answers(studio, model, list(talks.items()), sampling), strict=True):
            talk.append({"role": "assistant", "content": done.text})


def _answers(studio: "Studio", model: Any, lanes: list[Any], sampling: Any, quiet: bool = False) -> list["Done"]:
    """Stream the answers to stdout in their order, unless `quiet`; Ctrl-C ends them and keeps what was said."""
    from studio.services.chat import SHRUNK, Done, Token

    stream: Any = studio.chat.answers(model, lanes, **sampling)
    told = _Told([voice for voice, _ in lanes], quiet)
    try:
        with progress() as report:
            for first in stream:
                if not isinstance(first, Phase):
                    break
                report(first)
            else:
                raise StudioError("The model gave no answer.", "Try again.")
        if studio.chat.shrunk:
            note(SHRUNK)
        for item in itertools.chain([first], stream):
            if isinstance(item, Token):
                told.add(item.lane, item.text)
            elif isinstance(item, Done):
                told.end(item)
    except KeyboardInterrupt:
        if quiet:
            raise
        stream.close()
        for lane in range(len(lanes)):
            if lane not in told.ends:
                told.end(Done(lane=lane, text=told.texts[lane], stopped=True))
    return [told.ends[lane] for lane in range(len(lanes))]


class _Told:
    """Answers that come side by side, told one after the other: the first that is not over as it is written."""

    def __init__(self, voices: list[str | None], quiet: bool) -> None:
        self.voices, self.quiet = voices, quiet
        self.texts = [""] * len(voices)
        self.ends: dict[int, Done] = {}
        self.lane, self.written = 0, 0  # who is told, and how many of their characters were
        self._head()

    def add(self, lane: int, text: str) -> None:
        self.texts[lane] += text
        self._write()

    def end(self, done: "Done") -> None:
        self.ends[done.lane] = done
        self._write()

    def _head(self) -> None:
        if not self.quiet and 1 < len(self.voices) > self.lane:
            say(f"{self.voices[self.lane] or 'base model'}:")

    def _write(self) -> None:
        while not self.quiet and self.lane < len(self.voices):
            sys.stdout.write(self.texts[self.lane][self.written :])
            sys.stdout.flush()
            self.written = len(self.texts[self.lane])
            done = self.ends.get(self.lane)
            if done is None:
                return
            say()
            if done.tokens_per_second:
                note(f"{done.tokens} tokens, {done.tokens_per_second:.0f} tokens/s")
            self.lane, self.written = self.lane + 1, 0
            self._head()


def _figures(done: "Done") -> dict[str, Any]:
    names = ("text", "tokens", "tokens_per_second", "first_token_seconds", "swap_seconds")
    return {name: getattr(done, name) for name in names}


def evaluate(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="name, name@v2 or a folder.")],
    dataset: Annotated[
        str | None, typer.Option(help="A data file never trained on, or a data set: its held-out rows.")
    ] = None,
    map: Map = None,
    format: Annotated[str, typer.Option(help="Structure of the rows, if it is not detected.")] = "auto",
    answers: Annotated[int | None, typer.Option(help="How many answers to write and compare.", min=0)] = None,
    general: Annotated[bool, typer.Option(help="Measure on general texts too, whether it forgot.")] = True,
    judge: Annotated[
        str | None, typer.Option(help="Also ask a model which answers are better: an OpenAI-compatible address.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name there.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Instead of --dataset: a folder of your own lm-eval tasks, with their data.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Of --tasks, only this one. Repeat it.")] = None,
    limit: Annotated[int | None, typer.Option(help="Of --tasks, the first documents of each.", min=1)] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Ask the questions of --tasks as chat does, not as plain text.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure an adapter against its base on a data file, or on tasks of lm-eval."""
    from studio.services.judge import Judge

    if (dataset is None) == (tasks is None):
        raise typer.BadParameter("one of the two: a data file, or a folder of tasks.", param_hint="--dataset, --tasks")
    if dataset is None and (map or format != "auto" or answers is not None or not general or judge or judge_model):
        raise typer.BadParameter("it goes with --task, --limit and --chat-template alone.", param_hint="--tasks")
    if tasks is None and (task or limit or chat_template):
        raise typer.BadParameter("they need --tasks.", param_hint="--task, --limit, --chat-template")
    if (judge is None) != (judge_model is None):
        raise typer.BadParameter("a judge has an address and a name.", param_hint="--judge, --judge-model")
    asked = Judge(judge, judge_model) if judge and judge_model else None
    if asked:
        note(f"The questions and both answers are sent to {asked.url}.")
    with progress() as report:
        measure = open_studio().evaluate
        if tasks is not None:
            found = measure.tasks(
                adapter, tasks, names=task or (), limit=limit, chat_template=chat_template, report=report
            )
        else:
            found = measure.run(
                adapter,
                dataset or "",
                map=mapping(map) or None,
                format=format,
                answers=answers,
                general=general,
                judge=asked,
                report=report,
            )
    if json:
        emit(found)
    elif tasks is not None:
        on_tasks(found)
    else:
        comparison(found)
