"""Train, the fourth step: every setting with its reason, as a form and as YAML beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.ui import knobs
from studio.ui.common import QUIET, problem
from studio.ui.pieces import block, section
from studio.ui.train_plan import SCHEMA, Plan, Update, text

INTRO = "Chosen for this purpose, this model, this data and this machine. Change what you like."


@dataclass(frozen=True)
class Settings:
    """The step's components."""

    made: dict[str, knobs.Knob]
    groups: dict[str, gr.Accordion]
    wrong: gr.HTML
    code: gr.Code
    wrong_code: gr.HTML
    onward: gr.Button
    back: gr.Button
    reset: gr.Button

    @property
    def controls(self) -> list[Any]:
        return [each.control for each in self.made.values()]

    @property
    def reasons(self) -> list[gr.HTML]:
        return [each.reason for each in self.made.values()]

    @property
    def outputs(self) -> list[Any]:
        shown = [*self.controls, *self.reasons, *self.groups.values()]
        return [*shown, self.wrong, self.code, self.wrong_code]

    def draw(self, plan: Plan, seen: Mapping[str, Any], failed: StudioError | None) -> Update:
        """Draw what differs from what is seen. What is wrong in the YAML is said there, and the text stays."""
        result: Update = {
            self.wrong: problem(plan.error, "Change this") if plan.error else "",
            self.wrong_code: problem(failed, "Not taken over") if failed else "",
        }
        if not plan.config:
            return result
        for key, knob in self.made.items():
            value = knobs.shown(plan.values[key], SCHEMA[key])
            offer = knobs.label(key, plan.instead[key]) if key in plan.instead else ""
            result[knob.reason] = knobs.why(key, plan.reasons.get(key, ""), offer)
            # What is being typed would be lost. An automatic number is always drawn: a Number without a value shows 0.
            if value is None or value != seen[key]:
                result[knob.control] = value
        for group, accordion in self.groups.items():
            result[accordion] = gr.Accordion(label=knobs.group_title(group, self.made, plan.values))
        return result if failed else result | {self.code: text(plan)}


def build() -> Settings:
    """Lay out the step."""
    with gr.Row(elem_classes="head"):
        block(section("Settings", INTRO))
        beside = gr.Checkbox(label="Show as YAML", interactive=True, scale=0, min_width=160)
    wrong = block()
    with gr.Row(elem_classes="beside"):
        with gr.Column(scale=3, min_width=320):
            made, groups = knobs.form(SCHEMA)
        with gr.Column(scale=2, min_width=320, visible=False) as column:
            wrong_code = block()
            code = gr.Code(
                language="yaml",
                label="YAML, taken over when you leave it",
                interactive=True,
                elem_classes="yaml",
                lines=20,
                max_lines=40,
                buttons=["copy"],
            )
    with gr.Row(elem_classes="actions nav"):
        onward = gr.Button("Review", variant="primary", size="md")
        back = gr.Button("Back", size="md")
        reset = gr.Button("Use the recommended values", size="md")
    beside.input(lambda yes: gr.Column(visible=yes), beside, column, **QUIET)
    return Settings(made, groups, wrong, code, wrong_code, onward, back, reset)
