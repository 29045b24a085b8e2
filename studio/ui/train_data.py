"""Train, the second step: which examples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.records import Dataset
from studio.ui.pieces import block, choices, note, rows, section
from studio.ui.train_plan import Plan, Update

KINDS = {"chat": "conversations, or questions with answers", "text": "plain text"}


@dataclass(frozen=True)
class Data:
    """The step's components."""

    listed: gr.HTML
    fits: gr.HTML
    onward: gr.Button
    add: gr.Button
    back: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return [self.listed, self.fits, self.onward, self.add]

    def draw(self, plan: Plan) -> Update:
        here = bool(plan.dataset)
        items = [_row(each, each is plan.dataset) for each in plan.datasets]
        return {
            self.listed: rows(items, "Data sets", "No data yet. Add a file of examples first."),
            self.fits: _fits(plan),
            # one primary button: without data it is the one that gets some
            self.onward: gr.Button(visible=here),
            self.add: gr.Button(variant="secondary" if here else "primary"),
        }


def build() -> Data:
    """Lay out the step."""
    block(section("Which examples?"))
    listed, fits = choices(), block()
    with gr.Row(elem_classes="actions nav"):
        onward = gr.Button("Continue", variant="primary", size="md")
        back = gr.Button("Back", size="md")
        add = gr.Button("Add data", size="md")
    return Data(listed, fits, onward, add, back)


def _row(dataset: Dataset, chosen: bool) -> dict[str, Any]:
    meta = [f"{dataset.train_rows:,} to learn from", f"{dataset.eval_rows:,} held out", words.when(dataset.created)]
    text = f"From {Path(dataset.source).name}"
    return {"id": dataset.id, "title": dataset.name, "text": text, "meta": meta, "selected": chosen}


def _fits(plan: Plan) -> str:
    """Say when the data is not of the kind the purpose needs."""
    wanted = plan.profile.kind
    if not plan.dataset or wanted in ("", plan.dataset.kind):
        return ""
    return note(
        f"{plan.dataset.name} holds {KINDS[plan.dataset.kind]}. “{plan.profile.title}” needs {KINDS[wanted]}.",
        "Choose other data or another purpose; the run would work, but hardly do what is wanted.",
        word="Check",
        tone="warn",
    )
