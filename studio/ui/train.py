"""Train: examples, a model, settings with their reasons, and the start of a run."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from studio.domain import words
from studio.domain.config import TrainingConfig
from studio.domain.document import from_document, to_yaml
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Dataset, Model
from studio.services.models import CONVERTED_BYTES, STARTER
from studio.services.recommend import recommend
from studio.storage.paths import slug, write_atomic
from studio.studio import Studio
from studio.ui import knobs
from studio.ui.common import QUIET, Shell, Tab, go, phases, problem
from studio.ui.data import NEW
from studio.ui.pieces import block, busy, choices, definitions, facts, head, rows, section

DATA, MODEL, SETTINGS, REVIEW = 1, 2, 3, 4  # the steps
FETCHED = "Small enough for any machine, good for a first try. Fetched when the run starts."
# What is known of the starter before it is fetched.
AHEAD = Model(id=STARTER, path="", source="", parameters=134_515_008, context=8192, bytes=CONVERTED_BYTES)
Update = dict[Any, Any]


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab: four steps. What is chosen lives in states and in the controls; all is drawn by `draw`."""
    item = shell.items["train"]
    data_id, model_id = gr.State(""), gr.State("")
    memory = gr.State({"shown": {}, "changed": []})  # what the controls were set to, and which the user changed
    schema = knobs.fields()

    with gr.Row(elem_classes="head"):
        block(head("New run"))
        bring = gr.UploadButton(
            "Import settings", file_types=[".yaml", ".yml", ".json"], size="md", scale=0, min_width=140
        )
    said = block()
    with gr.Walkthrough(selected=DATA, elem_id="steps") as walk:
        with gr.Step("Data", id=DATA):
            block(section("Which examples?"))
            data_rows = choices()
            with gr.Row(elem_classes="actions nav"):
                to_model = gr.Button("Continue", variant="primary", size="md")
                add_data = gr.Button("Add data", size="md")
        with gr.Step("Model", id=MODEL):
            block(section("Which model?", "Larger models know more, and need more memory and time."))
            model_rows = choices()
            with gr.Row(elem_classes="inline"):
                wanted = gr.Textbox(
                    label="Another model: a Hub id, a folder or a .gguf file", placeholder="owner/model", max_lines=1
                )
                get = gr.Button("Get this model", size="md", scale=0, min_width=140)
            getting = block()
            with gr.Row(elem_classes="actions nav"):
                to_settings = gr.Button("Continue", variant="primary", size="md")
                back_to_data = gr.Button("Back", size="md")
        with gr.Step("Settings", id=SETTINGS):
            block(section("Settings", "Chosen for this model, this data and this machine. Change what you like."))
            wrong = block()
            made, groups = knobs.form(schema)
            with gr.Row(elem_classes="actions nav"):
                to_review = gr.Button("Review", variant="primary", size="md")
                back_to_model = gr.Button("Back", size="md")
                reset = gr.Button("Use the recommended values", size="md")
        with gr.Step("Review", id=REVIEW):
            verdict = block()
            name = gr.Textbox(
                "",
                label="Name of the adapter",
                info="Versions are counted for each name. Empty: the name of the data.",
                max_lines=1,
                max_length=80,
                elem_classes="narrow",
            )
            plan = block()
            working = block()
            with gr.Row(elem_classes="actions nav"):
                start = gr.Button("Start training", variant="primary", size="md")
                back_to_settings = gr.Button("Back", size="md")
                save = gr.DownloadButton("Save these settings", size="md")

    controls = [each.control for each in made.values()]
    chosen = [data_id, model_id, name, memory, *controls]
    drawn = [data_id, model_id, name, memory, *controls, *(each.reason for each in made.values()), *groups.values()]
    drawn += [data_rows, model_rows, wrong, verdict, plan, working, start, save, to_model, add_data]

    def document(data: str, model: str, title: str, memory_now: dict[str, Any], *values: Any) -> dict[str, Any]:
        mine = knobs.document(schema, memory_now, dict(zip(made, values, strict=True)))
        mine["model"] = mine.get("model", {}) | {"id": model}
        mine["data"] = mine.get("data", {}) | {"path": data}
        return mine | {"name": title}

    def draw(data: str, model: str, title: str, memory_now: dict[str, Any], *values: Any) -> Update:
        """Draw every step for what is chosen; what the user did not set is recommended anew."""
        kept, here = studio.datasets.list(), studio.models.list()
        data = data if data in [each.id for each in kept] else kept[0].id if kept else ""
        model = model or (here[0].id if here else STARTER)
        result: Update = {
            data_id: data,
            model_id: model,
            data_rows: rows(
                [data_row(each, data) for each in kept], "Data sets", "No data yet. Add a file of examples first."
            ),
            model_rows: rows(model_items(here, model, studio), "Models"),
            # one primary button: without data it is the one that gets some
            to_model: gr.Button(visible=bool(data)),
            add_data: gr.Button(variant="secondary" if data else "primary"),
            working: "",
        }
        if not data:
            nothing = section("Nothing to train on yet", "Add a file of examples first.")
            return result | {verdict: nothing, plan: "", wrong: "", start: gr.Button(interactive=False)}
        mine = document(data, model, title, memory_now, *values)
        try:
            dataset, found = studio.datasets.get(data), studio.models.find(model)
            config, reasons = resolve(studio, mine, dataset, found)
        except StudioError as error:
            stop = {wrong: problem(error, "Change this"), verdict: problem(error, "Change this"), plan: ""}
            return result | stop | {start: gr.Button(interactive=False)}
        now = config.model_dump()
        flat = {key: now[key.split(".")[0]][key.split(".")[1]] for key in made}
        for key, knob, seen in zip(made, made.values(), values, strict=True):
            result[knob.reason] = knobs.why(reasons.get(key, ""))
            value = knobs.shown(flat[key], schema[key])
            # What is being typed would be lost. An automatic number is always drawn: a Number without a value shows 0.
            if value is None or value != seen:
                result[knob.control] = value
        for group, accordion in groups.items():
            result[accordion] = gr.Accordion(label=knobs.group_title(group, made, flat))
        return result | {
            memory: {
                "shown": {key: knobs.shown(value, schema[key]) for key, value in flat.items()},
                "changed": [key for key in made if key.split(".")[1] in mine.get(key.split(".")[0], {})],
            },
            wrong: "",
            verdict: section("Ready to start") + facts(figures(config, dataset)),
            plan: section("What will run") + definitions(what_runs(config, dataset, found)),
            start: gr.Button("Start training", interactive=True),
            save: gr.DownloadButton(value=str(settings_file(studio, config, reasons))),
        }

    def refresh(opened: str, *values: Any) -> Update:
        """Draw; when a data set was handed over, go to the review of a run with it."""
        if not opened:
            return draw(*values)
        _, model, _, *rest = values
        return draw(opened, model, "", *rest) | {item: "", name: "", walk: gr.Walkthrough(selected=REVIEW)}

    def fetch(id: str, *values: Any) -> Iterator[Update]:
        if not id.strip():
            return
        yield {getting: busy(f"Looking for {id.strip()}"), get: gr.Button(interactive=False)}
        try:
            for answer in phases(lambda report: studio.models.resolve(id.strip(), "", report)):
                if isinstance(answer, Phase):
                    yield {getting: busy(answer.words, answer.done, answer.total)}
                else:
                    data, _, *rest = values
                    at = answer.id if studio.models.find(answer.id) else answer.path
                    yield {getting: "", get: gr.Button(interactive=True), wanted: ""} | draw(data, at, *rest)
        except StudioError as error:
            yield {getting: problem(error, "Not found"), get: gr.Button(interactive=True)}

    def begin(*values: Any) -> Iterator[Update]:
        """Prepare the run in words, start it, and open it."""
        yield {start: gr.Button("Starting", interactive=False), working: busy("Preparing the run")}
        ready = gr.Button("Start training", interactive=True)
        try:
            config = from_document(document(*values))
            for answer in phases(lambda report: studio.runs.start(studio.runs.prepare(config, report).id)):
                if isinstance(answer, Phase):
                    yield {working: busy(answer.words, answer.done, answer.total)}
                else:
                    there = zip(shell.to("runs"), go("runs", answer.id), strict=True)
                    # the next run begins with what is recommended for it
                    begun = {working: "", start: ready, name: "", memory: {"shown": {}, "changed": []}}
                    yield begun | {walk: gr.Walkthrough(selected=DATA)} | dict(there)
        except StudioError as error:
            yield {working: problem(error, "Not started"), start: ready}

    def read_settings(file: str, *values: Any) -> Update:
        """Take over a saved document: its values become the user's, its data and model are chosen if they are here."""
        try:
            config = from_document(load(Path(file)))
            data = studio.datasets.get(config.data.path).id
        except StudioError as error:
            return {said: problem(error, "Not imported")}
        mine = config.model_dump()
        controls_now = [knobs.shown(mine[key.split(".")[0]][key.split(".")[1]], schema[key]) for key in made]
        usual = {key: knobs.shown(field["default"], field) for key, field in schema.items()}
        drawn_now = draw(data, config.model.id, config.name, {"shown": usual, "changed": []}, *controls_now)
        return {said: "", walk: gr.Walkthrough(selected=REVIEW), name: config.name} | drawn_now

    def choose_data(picked: gr.SelectData, _: str, *rest: Any) -> Update:
        return draw(str(picked.index), *rest)

    def choose_model(picked: gr.SelectData, data: str, _: str, *rest: Any) -> Update:
        return draw(data, str(picked.index), *rest)

    def step(number: int, *buttons: gr.Button) -> None:
        gr.on([each.click for each in buttons], lambda: gr.Walkthrough(selected=number), None, walk, **QUIET)

    step(DATA, back_to_data)
    step(MODEL, to_model, back_to_model)
    step(SETTINGS, to_settings, back_to_settings)
    step(REVIEW, to_review)
    to_review.click(draw, chosen, drawn, **QUIET)
    for each in controls:
        events = [each.input] if isinstance(each, gr.Dropdown) else [each.submit, each.blur]
        gr.on(events, draw, chosen, drawn, trigger_mode="always_last", **QUIET)
    reset.click(lambda *now: draw(*now[:3], {"shown": {}, "changed": []}, *now[4:]), chosen, drawn, **QUIET)
    data_rows.select(choose_data, chosen, drawn, **QUIET)
    model_rows.select(choose_model, chosen, drawn, **QUIET)
    gr.on([get.click, wanted.submit], fetch, [wanted, *chosen], [*drawn, getting, get, wanted], **QUIET)
    add_data.click(lambda: go("data", NEW), None, shell.to("data"), **QUIET)
    bring.upload(read_settings, [bring, *chosen], [*drawn, said, walk], **QUIET)
    start.click(begin, chosen, [start, working, walk, name, memory, *shell.to("runs")], **QUIET)
    return Tab(refresh, [*drawn, item, walk, said], inputs=chosen)


def resolve(
    studio: Studio, document: dict[str, Any], dataset: Dataset, model: Model | None
) -> tuple[TrainingConfig, dict[str, str]]:
    """Return the config as it will run, with a reason per key; a model that is not here yet leaves it open."""
    config = from_document(document)
    if model is None and config.model.id != STARTER:
        return config, {}
    lengths = studio.datasets.profile(dataset.id).characters
    return recommend(config, model or AHEAD, dataset, studio.machine.facts(), lengths)


def data_row(dataset: Dataset, chosen: str) -> dict[str, Any]:
    """Return a data set as an item to choose."""
    meta = [f"{dataset.train_rows:,} to learn from", f"{dataset.eval_rows:,} held out", words.when(dataset.created)]
    text = f"From {Path(dataset.source).name}"
    return {"id": dataset.id, "title": dataset.name, "text": text, "meta": meta, "selected": dataset.id == chosen}


def model_items(here: list[Model], chosen: str, studio: Studio) -> list[dict[str, Any]]:
    """Return the models to choose from: those on this machine, the one that was named, the starter."""
    known = list(here)
    if chosen not in [model.id for model in here] and (found := studio.models.find(chosen)):
        known.insert(0, found)
    if STARTER not in [model.id for model in known]:
        known.append(AHEAD)
    return [
        {
            "id": model.id,
            "title": words.model_name(model.id),
            "state": "Starter" if model.id == STARTER else "",
            "text": " · ".join(filter(None, ["On this machine", model.licence])) if model.path else FETCHED,
            "meta": [
                f"{words.short(model.parameters)} parameters" if model.parameters else "",
                f"reads {words.count(model.context)} tokens" if model.context else "",
                words.size(model.bytes) if model.bytes else "",
            ],
            "selected": model.id == chosen,
        }
        for model in known
    ]


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


def what_runs(config: TrainingConfig, dataset: Dataset, model: Model | None) -> list[tuple[str, str]]:
    """Return what the user is about to start, in a few lines."""
    base = words.model_name(config.model.id) + (
        f", commit {model.revision[:7]}" if model and model.source == "hub" else ""
    )
    fetched = "" if model else ", fetched at the start"
    held = {"none": "", "int8": ", held in 8 bits", "nf4": ", held in 4 bits (NF4)"}[config.quantization]
    rate = config.train.learning_rate
    speed = "chosen at the start" if rate == "auto" else f"{words.rate(rate)}, {config.train.schedule}"
    return [
        ("Data", f"{dataset.name}, {words.plural(dataset.usable, 'example')}"),
        ("Model", base + held + fetched),
        ("Method", config.adapter),
        ("Learning rate", speed),
        ("Where", "This machine. The run goes on when this page is closed."),
    ]


def settings_file(studio: Studio, config: TrainingConfig, reasons: dict[str, str]) -> Path:
    """Write the settings where the page can offer them for download."""
    folder = studio.home.cache / "uploads" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{slug(config.name or 'settings')}.yaml"
    write_atomic(file, to_yaml(config, reasons))
    return file


def load(file: Path) -> Any:
    """Read a document; JSON is YAML too."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudioError(f"{file.name} is not a settings file.", "Choose the YAML file a studio saved.") from error
