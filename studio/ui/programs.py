"""Your programs, in Settings: the switch, the address to give them, and the key, which is shown once."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.domain.words import when
from studio.studio import Studio
from studio.ui.common import QUIET, confirm, consequences
from studio.ui.pieces import block, definitions, html, section

FIRST = 3  # names told as examples
Update = dict[Any, Any]


class Section:
    """The part of the tab; `now` returns what it shows, for `outputs`."""

    def __init__(self, studio: Studio) -> None:
        self.programs = studio.programs
        block(section("Your programs", "They ask the models and adapters here as they ask OpenAI's, with a key."))
        with gr.Column(elem_classes="list"):
            with gr.Row(elem_classes="item"):
                self.on = gr.Checkbox(
                    label="Answer programs",
                    info="The engine that answers in Chat answers them too. Who has no key is refused.",
                    interactive=True,
                )
            with gr.Row(elem_classes="item", visible=False) as self.keys:
                self.made = block()
                another = gr.Button("New key…", size="sm", scale=0, min_width=100)
            with gr.Row(elem_classes="item", visible=False) as self.fresh:
                # Gradio's own copy button takes the label away from the box
                self.key = gr.Textbox(
                    label="The key, shown this once",
                    info="Give it to your programs now; the studio keeps no copy.",
                    buttons=[],
                    interactive=False,
                    max_lines=1,
                )
                copy = gr.Button("Copy", size="sm", scale=0, min_width=100)
        new = confirm(another, "Make a new key?", "Make a new key", "Keep the one there is")
        self.facts = block()
        another.click(
            lambda: consequences(["Programs that have the key of now are refused from then on."]),
            None,
            new.lines,
            **QUIET,
        )
        copy.click(None, self.key, None, js="key => navigator.clipboard?.writeText(key)", **QUIET)
        self.on.input(self._switch, self.on, list(self.outputs), **QUIET)
        new.act.click(lambda: self.now(self.programs.new_key()), None, list(self.outputs), **QUIET)

    @property
    def outputs(self) -> Sequence[Any]:
        return self.on, self.keys, self.made, self.fresh, self.key, self.facts

    def now(self, key: str = "") -> Update:
        """Return how things stand, with a key that was just made; one that is shown stays until it is switched off."""
        access = self.programs.access
        return {
            self.on: access.on,
            self.keys: gr.Row(visible=bool(access.made)),
            self.made: html("<p>A key, made {{ made }}</p>", made=when(access.made)) if access.made else "",
            **({self.fresh: gr.Row(visible=bool(key)), self.key: key} if key or not access.on else {}),
            self.facts: definitions(self._facts()) if access.on else "",
        }

    def _switch(self, on: bool) -> Update:
        access = self.programs.switch(on)
        return self.now(self.programs.new_key() if on and not access.key_sha256 else "")

    def _facts(self) -> list[tuple[str, str]]:
        names = [voice.name for voice in self.programs.voices()]
        shown = ", ".join(names[:FIRST]) + (f" and {len(names) - FIRST} more" if len(names) > FIRST else "")
        return [("Address", self.programs.address), ("Models", shown or "None yet: a first run brings one.")]
