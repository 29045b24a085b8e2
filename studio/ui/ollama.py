"""Import into Ollama, in an adapter's export: under what name, what will happen, and what it answers there."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Adapter
from studio.services import ollama
from studio.studio import Studio
from studio.ui.common import QUIET, consequences, edge, phases, problem
from studio.ui.pieces import block, busy, definitions, note


def panel(studio: Studio, adapter: Adapter, button: gr.Button, made: gr.State) -> None:
    """Make the question that `button` opens; `made` is the exported package, or empty."""
    with gr.Column(visible=False) as opened:
        name = gr.Textbox(ollama.default_name(adapter), label="Name in Ollama", max_lines=1, interactive=True)
        lines, said = block(), block()
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Import", size="md", min_width=90, scale=0)
            leave = gr.Button("Not now", size="md", min_width=80, scale=0)

    def look(name: str, package: dict[str, Any]) -> list[Any]:
        try:
            server = ollama.find()
            taken = server.has(name)
        except StudioError as error:
            return [gr.Column(visible=True), "", problem(error, "Not imported"), gr.Button(visible=False)]
        size = words.size(sum(file["bytes"] for file in package.get("files", [])))
        where = "on this machine" if server.here else f"at {server.address}, another machine"
        happens = [f"{size} are sent to Ollama {server.version} {where}.", "One held-out question is asked there."]
        if taken:
            happens.insert(0, f"The model {name} that Ollama has now is replaced.")
        act = gr.Button("Replace it" if taken else "Import", visible=True, interactive=True)
        return [gr.Column(visible=True), consequences(happens), "", act]

    def run(name: str, package: dict[str, Any], act: str) -> Iterator[list[Any]]:
        waits = gr.Button("Importing", interactive=False)
        yield ["", busy("Asking for Ollama"), waits]
        try:
            server, question = ollama.find(), studio.export.questions(adapter)[0]
            replace = act == "Replace it"
            for answer in phases(lambda report: server.take(package, name, question, replace=replace, report=report)):
                shown = busy(answer.words, answer.done, answer.total) if isinstance(answer, Phase) else told(answer)
                yield [gr.skip(), shown, waits]
        except ollama.NameTaken as error:
            yield [gr.skip(), problem(error, "Not imported"), gr.Button("Replace it", interactive=True)]
        except StudioError as error:
            yield [gr.skip(), problem(error, "Not imported"), gr.Button("Import", interactive=True)]
        else:
            yield [gr.skip(), gr.skip(), gr.Button(visible=False)]

    shown = [opened, lines, said, start]
    button.click(edge(look), [name, made], shown, **QUIET)
    gr.on([name.submit, name.blur], edge(look), [name, made], shown, **QUIET)
    made.change(lambda: gr.Column(visible=False), None, opened, **QUIET)
    start.click(edge(run), [name, made, start], [lines, said, start], **QUIET)
    leave.click(lambda: gr.Column(visible=False), None, opened, **QUIET)


def told(found: dict[str, Any]) -> str:
    """Return what was asked and answered in Ollama, and how to talk to it."""
    pairs = [
        ("Asked", words.said(found["question"][-1])),
        ("It answers", found["answer"] or "Nothing."),
        ("Talk to it", f"ollama run {found['model']}"),
    ]
    return note(f"Ollama has {found['model']}.", word="Imported", tone="good") + definitions(pairs)
