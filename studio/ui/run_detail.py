"""One run on the page: its components, what is drawn in them, and what its buttons do."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import NotFound, StudioError
from studio.domain.records import Run, Status
from studio.services.past import quoted
from studio.services.runs import resumable
from studio.studio import Studio
from studio.ui import run_page
from studio.ui.chart import READOUT
from studio.ui.common import QUIET, Shell, again, confirm, consequences, go, problem
from studio.ui.pieces import block, choices, muted, section
from studio.ui.quote import against
from studio.ui.watch import Drawn, Watch

Update = dict[Any, Any]  # component: value
Look = tuple[Any, ...]
# the address names the open run, so that a reload shows it again
ADDRESS = """text => {
  const run = new DOMParser().parseFromString(text, 'text/html').querySelector('[data-run]'), url = new URL(location);
  url.searchParams.set('view', 'runs');
  run ? url.searchParams.set('run', run.dataset.run) : url.searchParams.delete('run');
  history.replaceState(history.state, '', url);
}"""


@dataclass(frozen=True)
class Detail:
    """What the tab needs of the open run. `look` tells one look at it from the next; `draw` is all, `live` what moves.

    `inputs` come after the run in `draw` and `live`; `closed` is what is drawn when the list is shown instead.
    """

    outputs: list[Any]
    inputs: list[Any]
    closed: Update
    confirm: gr.Column
    look: Callable[[Run], Look]
    behind: Callable[[Run], bool]  # whether its curve is still being read
    draw: Callable[..., Update]
    live: Callable[..., Update]
    wire: Callable[[list[Any], gr.State, Callable[[Run], Update]], None]


def build(studio: Studio, shell: Shell) -> Detail:
    """Make the components of one run. The tab draws them; it calls `wire` with its outputs and how it shows a run."""
    item = shell.items["runs"]
    watch = Watch()
    log_open, table_open = gr.State(False), gr.State(False)

    with gr.Column(visible=False) as one:
        back = gr.Button("All runs", size="sm", elem_classes="back", scale=0, min_width=80)
        with gr.Row(elem_classes="head"):
            title = block()
            with gr.Row(elem_classes="actions end"):
                pause = gr.Button("Pause", size="md", min_width=84, visible=False)
                stop = gr.Button("Stop…", size="md", min_width=84, visible=False)
                resume = gr.Button("Resume", variant="primary", size="md", min_width=110, visible=False)
                chat = gr.Button("Chat with it", variant="primary", size="md", min_width=110, visible=False)
        said = block()
        stopping = confirm(stop, "Stop this run?", "Stop the run", "Keep training")
        state = block()
        notes = choices()
        result = block()
        figures = block()
        charts = block(js_on_load=READOUT, elem_classes="charts")
        with gr.Accordion("Show as table", open=False, visible=False) as table_panel:
            table = block()
        answers = block()
        with gr.Column(visible=False) as asked:
            with gr.Row(elem_classes="head"):
                block(section("Answers at each checkpoint", "The same questions, asked again as the model learns."))
                after = gr.Slider(
                    0, 1, step=1, label="After step", interactive=True, buttons=[], scale=0, min_width=260
                )
            told = block()
            keep = gr.Button("Keep this step as a version", size="sm", visible=False, scale=0, min_width=200)
        with gr.Accordion("Log", open=False) as log_panel:
            log_needle = gr.Textbox("", label="Filter lines", placeholder="Only lines with this", interactive=True)
            log = gr.Textbox(
                label="The last 200 lines of worker.log",
                lines=8,
                max_lines=16,
                interactive=False,
                buttons=["copy"],
                elem_classes="log",
            )

    @cache
    def memory(on_card: bool) -> int:
        machine = studio.machine.facts()
        return machine.gpu.memory_bytes if on_card and machine.gpu else machine.memory_bytes

    def look(run: Run) -> Look:
        curve = watch(run)
        return (
            (
                run.id,
                run.status,
                run.adapter,
                run.phase if run.since else "",
                pausing(run),
                len(curve.warnings),
                len(curve.samples),
            ),
            curve.offset,
            studio.meter.look(run),
        )

    def live(run: Run, *_: Any) -> Update:
        """Draw what moves while the run is at work."""
        curve = watch(run)
        on_card = curve.started is not None and curve.started.device != run_page.PROCESSOR
        return {
            state: run_page.state_line(run, curve),
            figures: run_page.figures(run, curve, memory(on_card), studio.meter.look(run))
            + muted(against(quoted(run.path, run.created), run)),
            charts: curve.figures,
        }

    def draw(run: Run, step: float = math.inf) -> Update:
        """Draw all; `step` is where the slider over the answers stands."""
        curve = watch(run)
        started = run.status in (Status.STARTING, Status.TRAINING)
        again = run_page.waits_to_go_on(run)
        ends = started or (run.status in (Status.QUEUED, Status.PAUSED) and not again)
        return live(run) | {
            one: gr.update(visible=True),
            title: run_page.heading(run),
            said: "",
            pause: gr.update(
                visible=started or again,
                value="Leave the queue" if again else "Pausing after this step" if pausing(run) else "Pause",
                interactive=again or not pausing(run),
            ),
            stop: gr.update(visible=ends, value="Stop…", interactive=True),
            stopping.panel: gr.skip() if ends else gr.update(visible=False),
            resume: gr.update(visible=resumable(run), value=run_page.resume_words(run), interactive=True),
            chat: gr.update(visible=run.adapter is not None and not resumable(run)),
            notes: run_page.notes(run, curve),
            result: run_page.result(run),
            answers: run_page.answers(run),
            table_panel: gr.update(visible=len(curve.losses) > 1),
            **samples(run, curve, step),
        }

    def samples(run: Run, curve: Drawn, step: float) -> Update:
        if not curve.samples:
            return {asked: gr.update(visible=False)}
        steps = sorted(curve.samples)
        # it follows the newest answers until it was moved back; a check that has just come is the last but one
        at = steps[-1] if step >= (steps[-2] if len(steps) > 1 else 0) else nearest(steps, step)
        between = math.gcd(*(step - steps[0] for step in steps)) or 1
        return {
            asked: gr.update(visible=True),
            after: gr.Slider(
                minimum=steps[0], maximum=max(steps[-1], steps[0] + 1), step=between, value=at, visible=len(steps) > 1
            ),
            told: run_page.asked(curve.samples, at),
            keep: keeping(run, at),
        }

    def keeping(run: Run, step: int) -> Any:
        """Offer to keep the step that is shown, where its checkpoint is there and it is not what was kept anyway."""
        there = step in studio.runs.kept_steps(run.id) and not run.status.active and step != watch(run).kept
        return gr.update(
            visible=there and run.status in (Status.FINISHED, Status.STOPPED),
            value=f"Keep step {words.count(step)} as a version",
            interactive=True,
        )

    def show_samples(run_id: str, step: float) -> Update:
        run = studio.runs.get(run_id)
        curve = watch(run)
        if not curve.samples:
            return {told: ""}
        at = nearest(sorted(curve.samples), step)
        return {told: run_page.asked(curve.samples, at), keep: keeping(run, at)}

    def do_keep(run_id: str, step: float) -> Iterator[Update]:
        run = studio.runs.get(run_id)
        at = nearest(sorted(watch(run).samples), step)
        yield {keep: gr.update(value=f"Keeping step {words.count(at)}", interactive=False)}
        try:
            made = studio.runs.keep(run_id, at)
        except StudioError as error:
            yield {said: problem(error, "Not kept"), keep: keeping(run, at)}
        else:
            yield {keep: gr.update(value=f"Step {words.count(at)} is v{made.version}", interactive=False)}

    def show_table(run_id: str) -> str:
        with suppress(NotFound):
            return run_page.table(watch(studio.runs.get(run_id)))
        return ""

    def show_log(run_id: str, wanted: str) -> str:
        with suppress(NotFound):
            return lines_with(studio.runs.log(run_id), wanted)
        return ""

    def ask_stop(run_id: str) -> str:
        run = studio.runs.get(run_id)
        if run.status is Status.QUEUED:
            return consequences(["It has not started, so nothing is lost.", "It leaves the queue for good."])
        if not run.step:
            return consequences(["It ends before the first step.", "Nothing is learned, so nothing is kept."])
        at = f"Training ends after the step it is in, now {words.count(run.step)} of {words.count(run.steps)}."
        if run.status is Status.PAUSED:
            at = f"Training ends at step {words.count(run.step)} of {words.count(run.steps)} and cannot be resumed."
        return consequences([at, f"What it has learned until then is kept as a version of {run.name}."])

    def wire(drawn: list[Any], news: gr.State, show: Callable[[Run], Update]) -> None:
        def do_stop(run_id: str) -> Update:
            told = {stop: gr.update(value="Stopping after this step", interactive=False)}
            return show(studio.runs.stop(run_id)) | told

        def do_pause(run_id: str) -> Update:
            return show(studio.runs.pause(run_id))

        def do_resume(run_id: str, edit: dict[str, Any] | None = None) -> Update:
            try:
                return show(studio.queue.resume(run_id, edit))
            except StudioError as error:  # another page was first
                return {said: problem(error, "Not resumed")}

        def do_remedy(picked: gr.SelectData, run_id: str) -> Update:
            """Go on with what a note advises, or open a new run with it."""
            run = studio.runs.get(run_id)
            closing = picked.index == run_page.CLOSING
            edit = run.result["closing"]["edit"] if closing else watch(run).warnings[int(picked.index)].edit
            if not closing and resumable(run, edit):
                return do_resume(run_id, edit)
            return dict(zip(shell.to("train"), again(run_id, edit), strict=True))

        back.click(lambda: "", None, item, **QUIET)
        stop.click(ask_stop, item, stopping.lines, **QUIET)
        stopping.act.click(do_stop, item, drawn, **QUIET)
        pause.click(do_pause, item, drawn, **QUIET)
        resume.click(do_resume, item, drawn, **QUIET)
        notes.select(do_remedy, item, [*drawn, *shell.to("train")], **QUIET)
        chat.click(lambda run_id: go("chat", studio.runs.get(run_id).adapter or ""), item, shell.to("chat"), **QUIET)
        title.change(None, title, js=ADDRESS, api_visibility="private")
        after.input(show_samples, [item, after], [told, keep], trigger_mode="always_last", **QUIET)
        keep.click(do_keep, [item, after], [keep, said], **QUIET)
        for panel, is_open in ((log_panel, log_open), (table_panel, table_open)):
            panel.expand(lambda: True, None, is_open, **QUIET)
            panel.collapse(lambda: False, None, is_open, **QUIET)
        gr.on([log_panel.expand, log_needle.input, item.change], show_log, [item, log_needle], log, **QUIET)
        gr.on([table_panel.expand, item.change], show_table, item, table, **QUIET)
        news.change(
            lambda run_id, wanted, is_open: show_log(run_id, wanted) if is_open else gr.skip(),
            [item, log_needle, log_open],
            log,
            **QUIET,
        )
        news.change(
            lambda run_id, is_open: show_table(run_id) if is_open else gr.skip(), [item, table_open], table, **QUIET
        )

    outputs = [one, title, said, pause, stop, stopping.panel, resume, chat, state, notes, result, figures, charts]
    outputs += [table_panel, answers, asked, after, told, keep]
    closed = {one: gr.update(visible=False), title: ""}
    return Detail(outputs, [after], closed, stopping.panel, look, watch.behind, draw, live, wire)


def pausing(run: Run) -> bool:
    """Whether the engine was asked to pause and has not done so yet."""
    return run.status.active and (Path(run.path) / "control" / "pause").exists()


def nearest(steps: list[int], wanted: float) -> int:
    """Return the step with answers that is nearest."""
    return min(steps, key=lambda step: abs(step - wanted))


def lines_with(log: str, needle: str) -> str:
    """Return the lines of a log that hold the needle."""
    return "\n".join(line for line in log.splitlines() if needle.casefold() in line.casefold())
