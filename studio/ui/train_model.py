"""Train, the third step: which base model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.model_facts import told
from studio.domain.records import Model
from studio.services.model_facts import of_folder
from studio.services.models import STARTER
from studio.studio import Studio
from studio.ui.common import phases, problem
from studio.ui.pieces import block, busy, choices, definitions, rows, section
from studio.ui.train_plan import AHEAD, Plan, Update

FETCHED = "Small enough for any machine, good for a first try. Fetched when the run starts."


@dataclass(frozen=True)
class Base:
    """The step's components."""

    listed: gr.HTML
    facts: gr.HTML
    wanted: gr.Textbox
    get: gr.Button
    getting: gr.HTML
    onward: gr.Button
    back: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return [self.listed, self.facts]

    def draw(self, plan: Plan) -> Update:
        return {self.listed: rows(_items(plan), "Models"), self.facts: _facts(plan)}

    def fetch(self, studio: Studio, id: str) -> Iterator[Update | str]:
        """Fetch the model in words; the last thing is the id to choose it by, if it came."""
        if not id.strip():
            return
        yield {self.getting: busy(f"Looking for {id.strip()}"), self.get: gr.Button(interactive=False)}
        free = gr.Button(interactive=True)
        try:
            for answer in phases(lambda report: studio.models.resolve(id.strip(), "", report)):
                if isinstance(answer, Phase):
                    yield {self.getting: busy(answer.words, answer.done, answer.total)}
                else:
                    yield {self.getting: "", self.get: free, self.wanted: ""}
                    yield answer.id if studio.models.find(answer.id) else answer.path
        except StudioError as error:
            yield {self.getting: problem(error, "Not found"), self.get: free}


def build() -> Base:
    """Lay out the step."""
    block(section("Which model?", "Larger models know more, and need more memory and time."))
    listed = choices()
    with gr.Row(elem_classes="inline"):
        wanted = gr.Textbox(
            label="Another model: a Hub id, a folder or a .gguf file", placeholder="owner/model", max_lines=1
        )
        get = gr.Button("Get this model", size="md", scale=0, min_width=140)
    getting = block()
    with gr.Row(elem_classes="actions nav"):
        onward = gr.Button("Continue", variant="primary", size="md")
        back = gr.Button("Back", size="md")
    facts = block()
    return Base(listed, facts, wanted, get, getting, onward, back)


def _items(plan: Plan) -> list[dict[str, Any]]:
    """Return the models to choose from: those on this machine, the one that was named, the starter."""
    known, chosen = list(plan.models), plan.chosen["model"]
    if plan.model and chosen not in [model.id for model in known]:
        known.insert(0, plan.model)
    if STARTER not in [model.id for model in known]:
        known.append(AHEAD)
    return [_row(model, model.id == chosen) for model in known]


def _facts(plan: Plan) -> str:
    """Return what the chosen model is, once it is on this machine."""
    known = {each.id: each for each in (*plan.models, plan.model) if each}
    model = known.get(plan.chosen["model"])
    if not model or not model.path:
        return ""
    try:
        found = of_folder(Path(model.path), model.id, model.source, model.revision, model.licence)
    except StudioError:  # a run with it says so
        return ""
    return section(f"About {words.model_name(model.id)}") + definitions(told(found))


def _row(model: Model, chosen: bool) -> dict[str, Any]:
    return {
        "id": model.id,
        "title": words.model_name(model.id),
        "state": "Starter" if model.id == STARTER else "",
        "text": " · ".join(filter(None, ["On this machine", model.licence])) if model.path else FETCHED,
        "meta": [
            f"{words.short(model.parameters)} parameters" if model.parameters else "",
            f"reads {words.count(model.context)} tokens" if model.context else "",
            words.size(model.bytes) if model.bytes else "",
        ],
        "selected": chosen,
    }
