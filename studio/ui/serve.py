"""Serve, in an adapter's card: the command with which vLLM serves it, alone or beside others of its base."""

from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.domain.records import Adapter
from studio.studio import Studio
from studio.ui.common import QUIET, edge, problem
from studio.ui.pieces import block, definitions, note, section

ABOUT = "For many users at once: vLLM holds the base once and answers as each adapter, on a machine with a card."
Update = dict[Any, Any]


def panel(studio: Studio, adapter: Adapter, button: gr.Button) -> None:
    """Make the panel that `button` opens: it stays open until it is closed."""
    with gr.Column(visible=False, elem_classes=["confirm", "calm"]) as opened:
        block(section("Serve with vLLM", ABOUT))
        who = gr.Dropdown([], multiselect=True, label="Adapters, all of one base", interactive=True)
        command = gr.Textbox(label="Command", lines=8, max_lines=20, buttons=[], interactive=True, elem_classes="log")
        said, left_out = block(), block()
        with gr.Row(elem_classes="actions"):
            copy = gr.Button("Copy", size="md", min_width=90, scale=0)
            close = gr.Button("Close", size="md", min_width=80, scale=0)

    def show() -> Update:
        same = [other.ref for other in studio.adapters.list() if other.base_path == adapter.base_path]
        return {opened: gr.Column(visible=True), who: gr.Dropdown(same, value=[adapter.ref])} | tell([adapter.ref])

    def tell(refs: list[str]) -> Update:
        try:
            plan = studio.vllm.plan(refs)
        except StudioError as error:
            nothing = {command: gr.Textbox("", visible=False), copy: gr.Button(visible=False), left_out: ""}
            return nothing | {said: problem(error, "Not served")}
        names = [("Programs ask for", ", ".join(plan.names)), ("At", "http://127.0.0.1:8000/v1")]
        return {
            command: gr.Textbox(plan.shell, visible=True),
            copy: gr.Button(visible=True),
            said: definitions(names),
            left_out: "".join(note(each.why, each.hint, word="Left out", tone="warn") for each in plan.refused),
        }

    shown = [command, copy, said, left_out]
    button.click(edge(show), None, [opened, who, *shown], **QUIET)
    who.change(edge(tell), who, shown, **QUIET)  # taking one away is no input to Gradio
    copy.click(None, command, None, js="text => navigator.clipboard?.writeText(text)", **QUIET)
    close.click(lambda: gr.Column(visible=False), None, opened, **QUIET)
