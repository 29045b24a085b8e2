"""Data: a file is dropped, looked at and, once it is right, kept as a data set to train on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.config import DataConfig
from studio.domain.errors import NeedsMapping, SeveralFiles, StudioError
from studio.domain.events import Phase
from studio.services import apart, datasets
from studio.services.datasets import Check
from studio.services.packed import locate
from studio.studio import Studio
from studio.ui import data_page, findings, inspector
from studio.ui.common import QUIET, Shell, Tab, confirm, consequences, go, problem
from studio.ui.pieces import (
    block,
    busy,
    choices,
    example,
    facts,
    head,
    muted,
    note,
    rows,
    section,
)

NEW, FILE = "new", "a file"  # open instead of a data set: the place to add one, a file that was read but not added
UNUSED = "not used"
LARGE, FIRST_ROWS = 5_000_000, 1_000  # bytes from which on the first rows are shown while the others are read
MEANINGS = {"prompt": "Question", "response": "Answer", "system": "Instruction", "text": "Text"}
WHERE = (
    "The examples a model learns from. Files are read here and copied into the studio; nothing is uploaded anywhere."
)
KINDS = "CSV, JSON, JSONL, text or Parquet, packed or not, up to 2 GB. Not sure? Drop it: the studio says what it sees."
COLUMNS = "The studio guessed these from the names and the text. Change what is wrong."
PREVIEW = "The examples as the model sees them. It learns to write what is marked."
HELD_OUT = DataConfig.model_fields["eval_fraction"]

Update = dict[Any, Any]


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab: a list, a place to add a file, and one data set; the open item says which is shown."""
    item = shell.items["data"]
    # Of the file being added: {path, map, found, bad, repairs, mends: rows a repair makes usable}; its first examples.
    file, found_examples = gr.State(), gr.State([])

    with gr.Column(visible=False) as listing:
        with gr.Row(elem_classes="head"):
            block(head("Data", WHERE))
            more = gr.Button("Add data", variant="primary", size="md", scale=0, min_width=120)
        listed = choices()

    with gr.Column(visible=False) as adding:
        back = gr.Button("All data", size="sm", elem_classes="back", scale=0, min_width=80)
        block(head("Add data", WHERE))
        said = block()
        members = gr.Dropdown([], label="Which of its files?", visible=False, interactive=True, elem_classes="narrow")
        drop = gr.File(label="Data file", show_label=False, height=180, elem_id="drop")
        block(muted(KINDS))
        with gr.Row(elem_classes="inline"):
            path = gr.Textbox(
                label="Or the path of a file on this machine",
                placeholder="/data/tickets.csv, or owner/name of the Hub",
                max_lines=1,
            )
            read_path = gr.Button("Read the file", size="md", scale=0, min_width=120)
        with gr.Row(elem_classes="actions"):
            sample = gr.Button("Use the sample data", size="md")

    with gr.Column(visible=False) as one:
        back_from_one = gr.Button("All data", size="sm", elem_classes="back", scale=0, min_width=80)
        with gr.Row(elem_classes="head"):
            title = block()
            with gr.Row(elem_classes="actions end"):
                remove = gr.Button("Delete…", size="md")
                use = gr.Button("Train on this data", variant="primary", size="md", min_width=160)
        sure = confirm(remove, "Delete this data set?", "Delete the data set", "Keep it")
        working = block()
        figures = block()
        with gr.Column(visible=False) as columns:
            block(section("Columns", COLUMNS))
            with gr.Row():
                picks = {
                    meaning: gr.Dropdown([UNUSED], value=UNUSED, label=label, min_width=160, interactive=True)
                    for meaning, label in MEANINGS.items()
                }
        issues = choices()
        leave_out = gr.Checkbox(label="Leave out", visible=False, interactive=True)
        held_out = gr.Slider(
            0,
            50,
            10,
            step=1,
            label=f"{HELD_OUT.title} for testing, %",
            info=HELD_OUT.description,
            buttons=[],
            interactive=True,
            elem_classes="narrow",
        )
        with gr.Row(elem_classes="head"):
            block(section("What the model will learn from", PREVIEW))
            number = gr.Slider(1, 2, 1, step=1, label="Example", scale=0, min_width=260, buttons=[], interactive=True)
        shown = block()
        learned = inspector.build(studio, item, file, found_examples, number)

    views = (listing, adding, one)

    def view(chosen: gr.Column) -> Update:
        return {each: gr.update(visible=each is chosen) for each in views} | {sure.panel: gr.update(visible=False)}

    def refresh(opened: str) -> Update:
        kept = studio.datasets.list()
        dataset = next((each for each in kept if each.id == opened), None)
        if dataset:
            check = studio.datasets.profile(dataset.id)
            texts = {
                title: head(dataset.name, f"{check.why} {check.file}."),
                figures: facts(data_page.kept_facts(dataset, check)),
                shown: example(studio.datasets.example(dataset.id, 0)),
            }
            hidden = {each: gr.update(visible=False) for each in (columns, leave_out, held_out)}
            return (
                view(one)
                | texts
                | hidden
                | learned.reset(True)
                | {
                    use: gr.Button("Train on this data", interactive=True),
                    remove: gr.update(visible=True),
                    number: gr.Slider(maximum=max(dataset.train_rows, 2), value=1, visible=True),
                    working: "",
                    issues: findings.shown(check, kept=True),
                    file: None,
                }
            )
        if opened == FILE:
            return {file: gr.skip()}  # it is on the page already
        if opened == NEW or not kept:
            empty: Update = {drop: None, path: "", said: "", members: gr.update(visible=False), file: None}
            return view(adding) | {back: gr.update(visible=bool(kept))} | empty
        return view(listing) | {listed: rows([data_page.row(each) for each in kept], "Data sets"), file: None}

    def read(source: str | None, mapping: dict[str, str] | None = None) -> Iterator[Update]:
        """Check a file and show what was found, or say why it cannot be read."""
        if not source or not source.strip():
            return
        place = Path(source.strip())
        inputs: Update = {each: gr.update(interactive=False) for each in (drop, read_path, sample)}
        yield {said: busy(f"Reading {place.name}"), **inputs}
        inputs = {each: gr.update(interactive=True) for each in (drop, read_path, sample)}
        inputs[members] = gr.update(visible=False)
        where = said
        try:
            for answer in look(studio, place, mapping):
                if isinstance(answer, Phase):
                    yield {where: busy(answer.words, answer.done, answer.total)}
                    continue
                shown_now: Update = {said: "", item: FILE, **inputs, **view(one), **looked_at(place, *answer)}
                if not answer[0].complete:
                    where = working
                    shown_now |= {working: busy("These are the first rows. The others are being read")}
                    shown_now |= {use: gr.Button("Train on this data", interactive=False)}
                yield shown_now
        except SeveralFiles as several:
            named = [(locate(Path(each))[1], each) for each in several.files]
            ask = note(several.message, "Choose the one to learn from.", word="Archive")
            yield {**inputs, said: ask, members: gr.Dropdown(named, value=None, visible=True)}
        except StudioError as error:
            yield {where: problem(error, "Not read"), **inputs, drop: gr.File(value=None, interactive=True)}

    def looked_at(place: Path, check: Check, mapping: dict[str, str] | None, guessed: bool) -> Update:
        """Show a checked file; `mapping` is what it is to be added with."""
        bad = check.problem_count
        emptied = learned.reset(bool(check.examples))
        options = [UNUSED, *check.columns]
        return {
            file: {"path": str(place), "map": mapping, "found": check.map, "bad": bad, "repairs": []}
            | {"mends": {finding.repair: finding.unusable for finding in check.findings}},
            found_examples: check.examples,
            title: head(place.name, f"{check.why} {check.file}."),
            remove: gr.update(visible=False),
            working: note(
                "The columns do not say what they mean.",
                "Look whether question and answer are right.",
                word="Check",
                tone="warn",
            )
            if guessed
            else "",
            figures: facts(data_page.file_facts(check)),
            columns: gr.update(visible=bool(check.columns) and "messages" not in check.map),
            **{
                pick: gr.Dropdown(options, value=check.map.get(meaning, UNUSED), info=data_page.sample(check, meaning))
                for meaning, pick in picks.items()
            },
            issues: findings.shown(check),
            leave_out: gr.Checkbox(
                label=f"Leave out {words.plural(bad, 'row')}", value=False, visible=bool(bad and check.usable)
            ),
            held_out: gr.update(visible=bool(check.usable)),
            number: gr.Slider(maximum=max(len(check.examples), 2), value=1, visible=len(check.examples) > 1),
            shown: example(check.examples[0]) if check.examples else "",
            use: data_page.primary(bad),
            **emptied,
        }

    def remap(meaning: str) -> Any:
        def again(file: dict[str, Any], *picked: str) -> Iterator[Update]:
            # what was found and cannot be changed here, such as the input of an Alpaca row, stays
            kept = {name: column for name, column in file["found"].items() if name not in picks}
            mapping = {name: column for name, column in kept.items() if column not in picked}
            mapping |= {name: column for name, column in zip(picks, picked, strict=True) if column != UNUSED}
            if meaning == "text" and "text" in mapping:
                mapping = {"text": mapping["text"]}
            else:
                mapping.pop("text", None)
            if "text" not in mapping and not {"prompt", "response"} <= set(mapping):
                ask = note(
                    "Choose a column for the question and one for the answer, or one for the text.", word="Columns"
                )
                yield {
                    working: ask,
                    use: gr.Button(interactive=False),
                    **({picks["text"]: UNUSED} if meaning != "text" else {}),
                }
                return
            place = Path(file["path"])
            yield {working: busy(f"Reading {place.name}"), use: gr.Button(interactive=False)}
            try:
                for answer in look(studio, place, mapping):
                    if isinstance(answer, Phase):
                        yield {working: busy(answer.words, answer.done, answer.total)}
                    else:
                        yield looked_at(place, *answer)
            except StudioError as error:
                yield {working: problem(error, "Not read")}

        return again

    def keep(file: dict[str, Any] | None, opened: str, share: float, skip_bad: bool) -> Iterator[Update]:
        """Add the file that was read, and take what is open to Train."""
        to_train = shell.to("train")
        if not file:
            yield dict(zip(to_train, go("train", opened), strict=True))
            return
        yield {use: gr.Button(interactive=False), working: busy("Copying the examples")}
        try:
            options = {"map": file["map"], "eval_fraction": share / 100, "skip_bad": skip_bad}
            options |= {"repairs": file["repairs"]}
            for answer in apart.add(studio.home, file["path"], **options):
                if isinstance(answer, Phase):
                    yield {working: busy(answer.words, answer.done, answer.total)}
                else:
                    _discard(studio, file["path"])
                    yield {working: "", item: answer.id, **dict(zip(to_train, go("train", answer.id), strict=True))}
        except StudioError as error:
            yield {working: problem(error), use: gr.Button(interactive=True)}

    def repair(picked: gr.SelectData, its: dict[str, Any]) -> Update:
        its = findings.toggled(its, str(picked.index))
        bad = findings.bad_rows(its)
        label = f"Leave out {words.plural(bad, 'row')}"
        return {
            file: its,
            use: data_page.primary(bad),
            leave_out: gr.Checkbox(label=label, value=False, visible=bool(bad)),
        }

    def turn(place: float, opened: str, examples: list[dict[str, Any]]) -> str:
        index = int(place) - 1
        if opened != FILE:
            return example(studio.datasets.example(opened, index))
        return example(examples[index]) if index < len(examples) else ""

    def ask(opened: str) -> Update:
        dataset = studio.datasets.get(opened)
        taken = words.size(sum(part.stat().st_size for part in Path(dataset.path).rglob("*") if part.is_file()))
        lines = [
            f"{words.plural(dataset.usable, 'example')}, {taken}, leave the studio.",
            "The file they came from stays. So do runs and adapters.",
        ]
        return {sure.lines: consequences(lines), sure.act: f"Delete {dataset.name}, {taken}"}

    def delete(opened: str) -> str:
        studio.datasets.remove(opened)
        return ""

    outputs = [*views, back, said, members, drop, path, read_path, sample, listed, title, remove, use, working, figures]
    outputs += [columns, *picks.values(), issues, leave_out, held_out, number, shown, sure.panel, file, found_examples]
    outputs += learned.outputs
    more.click(lambda: NEW, None, item, **QUIET)
    gr.on([back.click, back_from_one.click], lambda: "", None, item, **QUIET)
    listed.select(_picked, None, item, **QUIET)
    drop.upload(read, drop, [*outputs, item], **QUIET)
    members.input(read, members, [*outputs, item], **QUIET)
    gr.on([read_path.click, path.submit], read, path, [*outputs, item], **QUIET)
    sample.click(lambda: (yield from read(str(datasets.sample_path()))), None, [*outputs, item], **QUIET)
    for meaning, pick in picks.items():
        pick.input(remap(meaning), [file, *picks.values()], outputs, **QUIET)
    issues.select(repair, file, [file, use, leave_out], **QUIET)
    leave_out.input(
        lambda yes, its: data_page.primary(0 if yes else findings.bad_rows(its)), [leave_out, file], use, **QUIET
    )
    number.input(turn, [number, item, found_examples], shown, trigger_mode="always_last", **QUIET)
    use.click(keep, [file, item, held_out, leave_out], [use, working, item, *shell.to("train")], **QUIET)
    remove.click(ask, item, [sure.lines, sure.act], **QUIET)
    sure.act.click(delete, item, item, **QUIET)
    return Tab(refresh, outputs)


def look(studio: Studio, place: Path, mapping: dict[str, str] | None) -> Iterator[Any]:
    """Yield phases, then (check, the map to add it with, whether that map is a guess); of a large file twice.

    The first time only the first rows were looked at.
    """
    file = locate(place)[0]
    large = file.is_file() and file.stat().st_size > LARGE
    guessed = False
    for limit in (FIRST_ROWS, None) if large else (None,):
        try:
            for answer in apart.check(studio.home, place, map=mapping, limit=limit):
                yield answer if isinstance(answer, Phase) else (answer, mapping, guessed)
        except NeedsMapping as asked:
            mapping, guessed = asked.suggestion, True
            for answer in apart.check(studio.home, place, map=mapping, limit=limit):
                yield answer if isinstance(answer, Phase) else (answer, mapping, guessed)


def _discard(studio: Studio, path: str) -> None:
    """Delete an uploaded copy; a file named by its path stays."""
    file = locate(Path(path))[0]
    if file.is_relative_to(studio.home.cache):
        file.unlink(missing_ok=True)


def _picked(row: gr.SelectData) -> str:
    return str(row.index)
