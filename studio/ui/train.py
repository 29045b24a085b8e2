"""Train: five steps from a purpose to a running training; each step has a file, and all are drawn from one plan."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain.document import flat, from_document, with_edit
from studio.domain.errors import StudioError
from studio.domain.events import Phase, Report
from studio.studio import Studio
from studio.ui import knobs, train_data, train_model, train_plan, train_purpose, train_review, train_settings
from studio.ui.common import AGAIN, QUIET, Shell, Tab, go, phases, problem
from studio.ui.data import NEW
from studio.ui.pieces import block, busy, head
from studio.ui.train_plan import DATA, MODEL, NOTHING, PURPOSE, REVIEW, SCHEMA, SETTINGS, Chosen, Plan, Update


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab: five steps. What is chosen lives in a state and in the controls; all is drawn by `draw`."""
    item = shell.items["train"]
    chosen = gr.State(NOTHING)
    with gr.Row(elem_classes="head"):
        block(head("New run"))
        bring = gr.UploadButton(
            "Import settings", file_types=[".yaml", ".yml", ".json"], size="md", scale=0, min_width=140
        )
    said = block()
    with gr.Walkthrough(selected=PURPOSE, elem_id="steps") as walk:
        with gr.Step("Purpose", id=PURPOSE):
            purpose = train_purpose.build()
        with gr.Step("Data", id=DATA):
            data = train_data.build()
        with gr.Step("Model", id=MODEL):
            base = train_model.build()
        with gr.Step("Settings", id=SETTINGS):
            settings = train_settings.build()
        with gr.Step("Review", id=REVIEW):
            review = train_review.build()

    controls = settings.controls
    now = [chosen, review.name, settings.code, *controls]
    drawn = [chosen]
    for each in (purpose, data, base, settings, review):
        drawn += each.outputs

    def planned(its: Chosen, name: str, code: str, *values: Any) -> tuple[Plan, StudioError | None]:
        """Return the plan of what is on the page, and what is wrong with the YAML; if so, the rest counts."""
        seen, failed = dict(zip(settings.made, values, strict=True)), None
        try:
            its, name, seen = train_plan.edited(studio, its, code, name, seen)
        except StudioError as error:
            failed = error
        mine = flat(knobs.document(SCHEMA, its, seen))
        return train_plan.make(studio, its, name, mine), failed

    def draw(*values: Any) -> Update:
        """Draw every step for what is chosen; what the user did not set is recommended anew."""
        _, name, _, *seen = values
        plan, failed = planned(*values)
        result = purpose.draw(plan, studio) | data.draw(plan) | base.draw(plan)
        result |= settings.draw(plan, dict(zip(settings.made, seen, strict=True)), failed)
        result |= review.draw(plan, studio, failed)
        if plan.name != name:
            result[review.name] = plan.name
        return result | {chosen: train_plan.remembered(plan, bool(failed))}

    def changed(**what: Any) -> Callable[..., Update]:
        return lambda its, *rest: draw(its | what, *rest)

    def refresh(opened: str, *values: Any) -> Update:
        """Draw; when a data set was handed over, or a run to do again, go to the review of a run with it."""
        if not opened:
            return draw(*values)
        if opened.startswith(AGAIN):
            return once_more(opened, *values) | {item: ""}
        its, _, *rest = values
        its = its | {"data": opened, "profile": "", "more": {}}
        return draw(its, "", *rest) | {item: "", review.name: "", walk: gr.Walkthrough(selected=REVIEW)}

    def fetch(id: str, its: Chosen, *rest: Any) -> Iterator[Update]:
        for answer in base.fetch(studio, id):
            yield draw(its | {"model": answer, "more": {}}, *rest) if isinstance(answer, str) else answer

    def begin(*values: Any) -> Iterator[Update]:
        """Prepare the run in words, start it, and open it."""
        yield {review.start: gr.Button("Starting", interactive=False), review.working: busy("Preparing the run")}
        try:
            plan, failed = planned(*values)
            if failed:
                raise failed
            config = from_document(plan.document)
            for answer in phases(lambda report: studio.queue.submit(studio.runs.prepare(config, report).id)):
                if isinstance(answer, Phase):
                    yield {review.working: busy(answer.words, answer.done, answer.total)}
                else:
                    there = dict(zip(shell.to("runs"), go("runs", answer.id), strict=True))
                    # the next run begins with what is recommended for it
                    begun = {review.working: "", **review.ready(studio), review.name: "", chosen: NOTHING}
                    yield begun | {walk: gr.Walkthrough(selected=PURPOSE)} | there
        except StudioError as error:
            yield {review.working: problem(error, "Not started"), **review.ready(studio)}

    def measure(*values: Any) -> Iterator[Update]:
        """Let an engine try some steps of the run, and draw what they say of all of it."""
        held = {review.start: gr.Button(interactive=False), review.measure: gr.Button(interactive=False)}
        yield held | {review.working: busy("Preparing to measure")}
        try:
            plan, failed = planned(*values)
            if failed:
                raise failed
            config = from_document(plan.document)

            def work(report: Report) -> None:
                studio.estimates.thorough(studio.runs.resolve(config, report), report, measure=True)

            for answer in phases(work):
                if isinstance(answer, Phase):
                    yield {review.working: busy(answer.words, answer.done, answer.total)}
            yield draw(*values)
        except StudioError as error:
            yield draw(*values) | {review.working: problem(error, "Not measured")}

    def once_more(opened: str, *values: Any) -> Update:
        """Take over the settings of a run, changed as `again` says."""
        run_id, _, edit = opened.removeprefix(AGAIN).partition(":")
        try:
            folder = Path(studio.runs.get(run_id).path)
            lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
            changes = {"data.path": lineage["dataset"]["id"]} | json.loads(edit or "{}")  # not the file it came from
            return take_over(with_edit(train_plan.load(folder / "config.yaml"), changes))
        except StudioError as error:
            return {said: problem(error, "Not opened")}

    def bring_in(file: str) -> Update:
        try:
            fitted = studio.fit(train_plan.load(Path(file)))
            taken = take_over(fitted.document)
            return taken | {said: taken[said] + train_plan.fitting(fitted)}
        except StudioError as error:
            return {said: problem(error, "Not imported")}

    def take_over(document: Any) -> Update:
        """Take over a document: its values become the user's, its data and model are chosen if they are here."""
        its, name, values, missing = train_plan.taken(studio, document)
        seen = [values[key] for key in settings.made]
        taken = dict(zip(controls, seen, strict=True))  # `draw` leaves a control that shows its value already
        there = {said: missing, walk: gr.Walkthrough(selected=DATA if missing else REVIEW), review.name: name}
        return there | taken | draw(its, name, "", *seen)

    def choose(key: str) -> Callable[..., Update]:
        def chose(picked: gr.SelectData, its: Chosen, *rest: Any) -> Update:
            more = {} if key in ("data", "model") else its["more"]  # a revision is of its model
            return draw(its | {key: str(picked.index), "more": more}, *rest)

        return chose

    def take_back(picked: gr.SelectData, its: Chosen, name: str, code: str, *values: Any) -> Update:
        """Let a setting be what is recommended again."""
        key, seen = str(picked.index), dict(zip(settings.made, values, strict=True))
        rest = [each for each in its["changed"] if each != key]
        return draw(its | {"changed": rest, "shown": its["shown"] | {key: seen[key]}}, name, code, *values)

    def make_fit(picked: gr.SelectData, its: Chosen, name: str, code: str, *values: Any) -> Update:
        """Use one of the changes that need less: its settings become the user's."""
        plan, _ = planned(its, name, code, *values)
        said = train_review.quoted(plan, studio)
        place = int(picked.index)
        if not said or place >= len(said.ladder):
            return draw(its, name, code, *values)
        edit, seen = dict(said.ladder[place].edit), dict(zip(settings.made, values, strict=True))
        its = its | {"model": edit.pop("model.id", its["model"])}
        its |= {"more": its["more"] | {key: value for key, value in edit.items() if key not in seen}}
        own = {key: knobs.shown(value, SCHEMA[key]) for key, value in edit.items() if key in seen}
        taken = dict(zip(controls, (seen | own).values(), strict=True))  # `draw` leaves what shows its value already
        return taken | draw(its, name, code, *(seen | own).values())

    def step(number: int, *buttons: gr.Button) -> None:
        gr.on([each.click for each in buttons], lambda: gr.Walkthrough(selected=number), None, walk, **QUIET)

    step(PURPOSE, data.back)
    step(DATA, purpose.onward, base.back)
    step(MODEL, data.onward, settings.back)
    step(SETTINGS, base.onward, review.back)
    step(REVIEW, settings.onward)
    settings.onward.click(draw, now, drawn, **QUIET)
    typed = [[each.input] if isinstance(each, gr.Dropdown) else [each.submit, each.blur] for each in controls]
    for events in [*typed, [settings.code.blur]]:
        gr.on(events, draw, now, drawn, trigger_mode="always_last", **QUIET)
    settings.reset.click(changed(shown={}, changed=[]), now, drawn, **QUIET)
    gr.on([each.select for each in settings.reasons], take_back, now, drawn, **QUIET)
    review.ladder.select(make_fit, now, drawn, **QUIET)
    purpose.listed.select(choose("profile"), now, drawn, **QUIET)
    data.listed.select(choose("data"), now, drawn, **QUIET)
    base.listed.select(choose("model"), now, drawn, **QUIET)
    got = [*drawn, base.getting, base.get, base.wanted]
    gr.on([base.get.click, base.wanted.submit], fetch, [base.wanted, *now], got, **QUIET)
    data.add.click(lambda: go("data", NEW), None, shell.to("data"), **QUIET)
    bring.upload(bring_in, bring, [*drawn, said, walk], **QUIET)
    left = [review.start, review.first, review.working, review.name, walk, chosen]
    review.measure.click(measure, now, drawn, **QUIET)
    review.start.click(begin, now, [*left, *shell.to("runs")], **QUIET)
    return Tab(refresh, [*drawn, item, walk, said], inputs=now)
