"""Measure a version against its base again, below the cards: on which rows, and by a judge elsewhere if wanted."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Adapter
from studio.services.judge import KEY, Judge
from studio.studio import Studio
from studio.ui import report
from studio.ui.common import QUIET, edge, phases, problem
from studio.ui.pieces import block, busy, muted


def panel(studio: Studio, versions: Sequence[Adapter]) -> None:
    """Make the closed part with the form and what came of it; nothing of it is kept."""
    refs = [(f"v{each.version}", each.ref) for each in versions]
    active = next((each.ref for each in versions if each.active), refs[0][1])
    sets = [(each.name, each.id) for each in studio.datasets.list() if each.eval_rows]
    with gr.Accordion("Measure again", open=False):
        with gr.Row():
            which = gr.Dropdown(refs, value=active, label="Version", interactive=True)
            data = gr.Dropdown(
                sets,
                value=sets[0][1] if sets else None,
                label="On the held-out rows of, or a file never trained on",
                allow_custom_value=True,
                interactive=True,
            )
        general = gr.Checkbox(True, label="General texts too: did it forget?", interactive=True)
        with gr.Row():
            url = gr.Textbox(
                label="Judge, if wanted",
                info="Address of a model that chooses the better answer. Questions and both answers are sent there.",
                placeholder="http://localhost:11434/v1",
                max_lines=1,
                interactive=True,
            )
            model = gr.Textbox(
                label="Its name there",
                info=f"A key, where one is needed, is read from {KEY} when the studio starts.",
                max_lines=1,
                interactive=True,
            )
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Measure", size="md", min_width=100, scale=0)
        said = block()

    def run(which: str, data: str | None, general: bool, url: str, model: str) -> Iterator[list[Any]]:
        waits = gr.Button("Measuring", interactive=False)
        yield [busy("Starting the engine"), waits]
        try:
            judge = judge_of(url, model)
            if not data:
                raise StudioError("There is nothing to measure on.", "Choose a data set, or name a file.")
            for answer in phases(
                lambda told: studio.evaluate.run(which, data, general=general, judge=judge, report=told)
            ):
                shown = busy(answer.words, answer.done, answer.total) if isinstance(answer, Phase) else told_of(answer)
                yield [shown, waits]
        except StudioError as error:
            yield [problem(error, "Not measured"), waits]
        yield [gr.skip(), gr.Button("Measure", interactive=True)]

    start.click(edge(run), [which, data, general, url, model], [said, start], **QUIET)


def judge_of(url: str, model: str) -> Judge | None:
    """Return the judge the form names; None if it names none."""
    if bool(url.strip()) != bool(model.strip()):
        raise StudioError("A judge has an address and a name.", "Give both, or leave both empty.")
    return Judge(url.strip(), model.strip()) if url.strip() else None


def told_of(result: dict[str, Any]) -> str:
    """Return a comparison as it is shown: verdict, judge, table, answers."""
    judged = result.get("judge", {}).get("verdict", "")
    return report.verdict(result["verdict"]) + muted(judged) + report.table(result) + report.samples(result)
