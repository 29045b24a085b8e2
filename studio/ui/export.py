"""Export, in an adapter's card: what to make of it, where it goes, and how it compares with the adapter."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Adapter
from studio.services.export import Format, Weights
from studio.studio import Studio
from studio.ui import ollama
from studio.ui.common import QUIET, edge, phases, problem
from studio.ui.pieces import block, busy, definitions, html, note, section

FORMS = [
    ("Model folder", "merged"),
    ("GGUF file", "gguf"),
    ("GGUF adapter", "gguf-adapter"),
    ("Ollama package", "ollama"),
]
ABOUT = {
    "merged": "The base with the adapter in it, for transformers, vLLM and what else reads model folders.",
    "gguf": "One file for llama.cpp and programs built on it.",
    "gguf-adapter": "The adapter alone, for llama.cpp beside a GGUF file of its base: llama-cli -m BASE --lora FILE.",
    "ollama": "A GGUF file and a Modelfile with the chat format it was trained with.",
}
WEIGHTS = [("16 bits", "f16"), ("8 bits, half the size", "q8_0")]


def panel(studio: Studio, adapter: Adapter, button: gr.Button) -> None:
    """Make the panel that `button` opens: it stays open with the result until it is closed."""
    with gr.Column(visible=False, elem_classes=["confirm", "calm"]) as opened:
        block(section(f"Export {adapter.name} v{adapter.version}", "Its answers are compared with the adapter's."))
        form = gr.Radio(FORMS, value="merged", label="What to make", info=ABOUT["merged"], interactive=True)
        weights = gr.Radio(WEIGHTS, value="f16", label="Weights", visible=False, interactive=True)
        place = gr.Textbox(label="Folder, on the machine that runs the studio", max_lines=1, interactive=True)
        packed = gr.Checkbox(False, label="As one ZIP file instead of a folder", interactive=True)
        said = block()
        made = gr.State({})  # an Ollama package that lies in a folder
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Export", size="md", min_width=90, scale=0)
            into = gr.Button("Import into Ollama…", size="md", min_width=90, scale=0, visible=False)
            close = gr.Button("Close", size="md", min_width=80, scale=0)
        ollama.panel(studio, adapter, into, made)

    def choose(wanted: Format) -> list[Any]:
        file = wanted in ("gguf", "ollama")
        place = str(studio.export.place(adapter, wanted))
        return [gr.Radio(info=ABOUT[wanted]), gr.Radio(visible=file), place, "", {}, gr.Button(visible=False)]

    def run(wanted: Format, kept: Weights, folder: str, packed: bool) -> Iterator[list[Any]]:
        waits, hidden = gr.Button("Exporting", interactive=False), gr.Button(visible=False)
        yield [busy("Starting the engine"), waits, {}, hidden]
        package: dict[str, Any] = {}
        try:
            for answer in phases(
                lambda report: studio.export.run(adapter.ref, wanted, folder, kept, report, zip=packed)
            ):
                if isinstance(answer, Phase):
                    yield [busy(answer.words, answer.done, answer.total), waits, {}, hidden]
                else:
                    package = answer if wanted == "ollama" and not packed and answer["parity"]["ok"] else {}
                    yield [told(answer), waits, package, hidden]
        except StudioError as error:
            yield [problem(error, "Not exported"), waits, {}, hidden]
        yield [gr.skip(), gr.Button("Export", interactive=True), gr.skip(), gr.Button(visible=bool(package))]

    about = [form, weights, place, said, made, into]
    button.click(edge(lambda kind: [gr.Column(visible=True), *choose(kind)]), form, [opened, *about], **QUIET)
    form.input(edge(choose), form, about, **QUIET)
    start.click(edge(run), [form, weights, place, packed], [said, start, made, into], **QUIET)
    close.click(lambda: gr.Column(visible=False), None, opened, **QUIET)


def told(result: dict[str, Any]) -> str:
    """Return where an export lies, what it holds and how it compares."""
    parity = result["parity"]
    if parity["ok"]:
        shown = note(
            f"Same answers: {parity['words']}",
            f"{parity['prompts']} questions were compared, read by {parity['by']}.",
            word="Exported",
            tone="good",
        )
    else:
        shown = note(
            f"It does not answer like the adapter: {parity['words']}",
            "The files stay.",
            word="Differs",
            tone="bad",
            urgent=True,
        )
    size = words.size(sum(file["bytes"] for file in result["files"]))
    packed = result["path"].endswith(".zip")
    pairs = [("File" if packed else "Folder", result["path"]), ("Size", size)]
    if result["format"] == "ollama" and not packed:
        pairs.append(("Or by hand, in that folder", "ollama create NAME -f Modelfile"))
    return shown + definitions(pairs)


def badges(adapter: Adapter) -> str:
    """Return what was exported of a version, each with whether it answers like the adapter; nothing if nothing was."""
    names = {form: name for name, form in FORMS}
    shown = [
        {
            "name": names.get(each["format"], each["format"]),
            "ok": each["parity"].get("ok"),
            "why": each["parity"].get("words", ""),
            "when": words.when(each["at"]),
            "path": each["path"],
        }
        for each in adapter.exports
    ]
    return html(
        """{% if lines %}<p class="muted">Exported:{% for it in lines %} {{ it.name }}
<em class="{{ 'good' if it.ok else 'bad' }}" title="{{ it.why }} {{ it.path }}">
{{ 'same answers' if it.ok else 'differs' }}</em> {{ it.when }}{% if not it.ok %}: {{ it.why }}{% endif %}{{ '' if
loop.last else ' · ' }}{% endfor %}</p>{% endif %}""",
        lines=shown,
    )
