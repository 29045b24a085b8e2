"""Train, the last step: what will run, in a few lines, and the button that starts it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.errors import StudioError
from studio.domain.quote import Quote
from studio.domain.records import Dataset
from studio.services import trial
from studio.services.prepare import Resolved
from studio.storage.paths import slug, write_atomic
from studio.studio import Studio
from studio.ui.common import problem
from studio.ui.pieces import block, choices, definitions, facts, muted, section
from studio.ui.quote import cells, ladder, memory
from studio.ui.train_plan import Plan, Update


@dataclass(frozen=True)
class Review:
    """The step's components."""

    verdict: gr.HTML
    ladder: gr.HTML
    name: gr.Textbox
    what: gr.HTML
    working: gr.HTML
    start: gr.Button
    measure: gr.Button
    back: gr.Button
    save: gr.DownloadButton
    first: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        told = [self.verdict, self.ladder, self.what, self.working, self.first]
        return [*told, self.name, self.start, self.measure, self.save]

    def draw(self, plan: Plan, studio: Studio, failed: StudioError | None) -> Update:
        idle = {self.what: "", self.ladder: "", self.working: "", self.start: gr.Button(interactive=False)}
        idle |= {self.measure: gr.Button(visible=False)}
        if not plan.dataset:
            return idle | {self.verdict: section("Nothing to train on yet", "Add a file of examples first.")}
        if wrong := failed or plan.error:
            return idle | {self.verdict: problem(wrong, "Change this")}
        assert plan.config
        said = quoted(plan, studio)
        title = "This will not fit" if said and not said.fits else "Ready to start"
        drawn = facts([*figures(plan.config, plan.dataset), *cells(said)]) + memory(said) if said else ""
        return {
            self.verdict: section(title) + (drawn or facts(figures(plan.config, plan.dataset))),
            self.ladder: ladder(said) if said else "",
            self.what: section("What will run") + definitions(what_runs(plan)),
            self.save: gr.DownloadButton(value=str(_file(studio, plan))),
            self.working: "",
            self.measure: self._offer(said, studio),
            **self.ready(studio),
        }

    def _offer(self, said: Quote | None, studio: Studio) -> gr.Button:
        """Return the button that measures, with how long that takes; beside another run it would measure that too."""
        if not said or said.time_basis == "measured" or studio.queue.ahead():
            return gr.Button(visible=False)
        return gr.Button(f"Measure first, about {words.duration(trial.seconds(said))}", visible=True)

    def ready(self, studio: Studio) -> Update:
        """Return the start button, and who goes before the run while the machine is busy."""
        ahead = studio.queue.ahead()
        label = "Add to the queue" if ahead else "Start training"
        return {self.start: gr.Button(label, interactive=True), self.first: muted(ahead)}


def build() -> Review:
    """Lay out the step."""
    verdict = block()
    steps = choices()
    name = gr.Textbox(
        "",
        label="Name of the adapter",
        info="Versions are counted for each name. Empty: the name of the data.",
        max_lines=1,
        max_length=80,
        elem_classes="narrow",
    )
    what = block()
    working = block()
    with gr.Row(elem_classes="actions nav"):
        start = gr.Button("Start training", variant="primary", size="md")
        measure = gr.Button("Measure first", size="md", visible=False)
        back = gr.Button("Back", size="md")
        save = gr.DownloadButton("Save these settings", size="md")
        first = block()
    return Review(verdict, steps, name, what, working, start, measure, back, save, first)


def quoted(plan: Plan, studio: Studio) -> Quote | None:
    """Return what the run needs; nothing for a model whose size is not known yet."""
    if not (plan.config and plan.dataset and plan.base):
        return None
    return studio.estimates.of(Resolved(plan.config, plan.reasons, plan.base, plan.dataset))


def figures(config: TrainingConfig, dataset: Dataset) -> list[dict[str, Any]]:
    """Return what is certain before the start: how many steps of how many examples."""
    each, passes, limit = config.train.effective_rows, config.train.epochs, config.train.max_steps
    cells: list[dict[str, Any]] = [
        {"label": "To learn from", "value": words.count(dataset.train_rows), "unit": "examples"},
        {"label": "Held out for testing", "value": words.count(dataset.eval_rows), "note": "never trained on"},
    ]
    size = "" if each == "auto" else f"{words.plural(each, 'example')} each"
    if dataset.kind == "text":  # it is cut into pieces, which are counted at the start
        size, steps = "", limit
    elif each == "auto" or passes == "auto":
        steps = limit
    else:
        steps = math.ceil(passes * math.ceil(dataset.train_rows / each))
        steps = min(steps, limit or steps)
        cells.append({"label": "Passes over the data", "value": f"{passes:g}"})
    return [*cells, {"label": "Steps", "value": words.count(steps) if steps else "", "note": size}]


def what_runs(plan: Plan) -> list[tuple[str, str]]:
    """Return what the user is about to start, in a few lines."""
    config, dataset, model = plan.config, plan.dataset, plan.model
    assert config
    assert dataset
    base = words.model_name(config.model.id) + (
        f", commit {model.revision[:7]}" if model and model.source == "hub" else ""
    )
    fetched = "" if model else ", fetched at the start"
    held = {"none": "", "int8": ", held in 8 bits", "nf4": ", held in 4 bits (NF4)"}[config.quantization]
    rate = config.train.learning_rate
    speed = "chosen at the start" if rate == "auto" else f"{words.rate(rate)}, {config.train.schedule}"
    suggested = plan.suggestion and not plan.chosen["profile"]
    purpose = plan.profile.title + (f". {plan.suggestion.why}" if suggested and plan.suggestion else "")
    return [
        ("Purpose", purpose),
        ("Data", f"{dataset.name}, {words.plural(dataset.usable, 'example')}"),
        ("Model", base + held + fetched),
        ("Method", config.adapter),
        ("Learning rate", speed),
        ("Where", "This machine. The run goes on when this page is closed."),
    ]


def _file(studio: Studio, plan: Plan) -> Path:
    """Write the settings where the page can offer them for download."""
    assert plan.config
    folder = studio.home.cache / "uploads" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{slug(plan.config.name or 'settings')}.yaml"
    write_atomic(file, to_yaml(plan.config, plan.reasons))
    return file
