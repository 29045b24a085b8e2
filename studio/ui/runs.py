"""Runs: the list, and one run live, from its files: a page opened at any time shows the same."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import NotFound
from studio.domain.methods import METHODS
from studio.domain.records import Run, Status
from studio.studio import Studio
from studio.ui import run_page
from studio.ui.chart import READOUT
from studio.ui.common import QUIET, Shell, Tab, confirm, consequences, go, problem, run_item
from studio.ui.pieces import block, choices, head, muted, rows
from studio.ui.watch import Curve, Watch

PAGE = 50  # runs on one page of the list
LIVE, SLOW = 1, 5  # seconds between two looks: at an open run that is at work; at a list with one in it
SEGMENTS = {
    "active": tuple(status for status in Status if status.active),
    "finished": (Status.FINISHED,),
    "stopped": (Status.STOPPED, Status.PAUSED),
    "failed": (Status.FAILED, Status.INTERRUPTED),
}
Update = dict[Any, Any]  # component: value
# the address names the open run, so that a reload shows it again
ADDRESS = """text => {
  const run = new DOMParser().parseFromString(text, 'text/html').querySelector('[data-run]'), url = new URL(location);
  url.searchParams.set('view', 'runs');
  run ? url.searchParams.set('run', run.dataset.run) : url.searchParams.delete('run');
  history.replaceState(history.state, '', url);
}"""


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab. Whatever is shown is drawn by `draw`; a tick draws again only what has changed."""
    item = shell.items["runs"]
    seen = gr.State(())  # what is shown: a run's id, state and byte offset, or the list's
    news = gr.State(())  # what a tick saw, when it differs from what is shown
    page = gr.State(0)
    log_open = gr.State(False)
    timer = gr.Timer(SLOW, active=False)

    with gr.Column() as listing:
        with gr.Row(elem_classes="head"):
            block(head("Runs"))
            new = gr.Button("New run", variant="primary", size="md", scale=0, min_width=120)
        with gr.Row(elem_classes="filters") as filters:
            segment = gr.Radio(
                [("All", "all")],
                value="all",
                label="Show",
                show_label=False,
                container=False,
                elem_classes="segments",
                interactive=True,
            )
            needle = gr.Textbox(
                "",
                placeholder="Name, model, data, method or date",
                label="Filter runs",
                show_label=False,
                container=False,
                scale=0,
                min_width=280,
            )
        said = block()
        listed = choices()
        clear = gr.Button("Clear filter", size="sm", visible=False, scale=0, min_width=100, elem_classes="back")
        with gr.Row(elem_classes="actions", visible=False) as pager:
            place = block()
            before = gr.Button("Previous", size="sm", min_width=84, scale=0)
            after = gr.Button("Next", size="sm", min_width=72, scale=0)

    with gr.Column(visible=False) as one:
        back = gr.Button("All runs", size="sm", elem_classes="back", scale=0, min_width=80)
        with gr.Row(elem_classes="head"):
            title = block()
            with gr.Row(elem_classes="actions end"):
                stop = gr.Button("Stop…", size="md", min_width=84, visible=False)
                chat = gr.Button("Chat with it", variant="primary", size="md", min_width=110, visible=False)
        stopping = confirm(stop, "Stop this run?", "Stop the run", "Keep training")
        state = block()
        notes = block()
        result = block()
        figures = block()
        charts = block(js_on_load=READOUT, elem_classes="charts")
        answers = block()
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

    watch = Watch(studio.runs)

    def draw_list(segment_now: str, needle_now: str, page_now: int) -> Update:
        runs = studio.runs.list()
        waiting = studio.queue.list() if any(run.since for run in runs) else []
        places = {run.id: place for place, run in enumerate(waiting)}
        chosen = [run for run in in_order(runs, waiting) if matches(run, segment_now, needle_now)]
        page_now = min(page_now, max(0, len(chosen) - 1) // PAGE)
        here = chosen[page_now * PAGE : (page_now + 1) * PAGE]
        empty = "No runs yet. Train on your data, and it appears here."
        if runs:
            empty = f"No run matches “{needle_now}”." if needle_now else "No run is in this state now."
        last = page_now * PAGE + len(here)
        return {
            listing: gr.update(visible=True),
            one: gr.update(visible=False),
            filters: gr.update(visible=bool(runs)),
            said: "",
            segment: gr.Radio(choices=segments(runs)),
            listed: rows([listed_item(run, places) for run in here], "Runs", empty),
            clear: gr.update(visible=bool(runs) and not chosen),
            pager: gr.update(visible=len(chosen) > PAGE),
            place: muted(f"{page_now * PAGE + 1}–{last} of {len(chosen)}"),
            before: gr.update(interactive=page_now > 0),
            after: gr.update(interactive=last < len(chosen)),
            page: page_now,
            title: "",
            seen: fingerprint(runs),
            timer: gr.Timer(SLOW, active=any(run.status.active for run in runs)),
        }

    def draw_run(run: Run, curve: Curve) -> Update:
        training = run.status in (Status.QUEUED, Status.STARTING, Status.TRAINING)
        return draw_live(run, curve) | {
            listing: gr.update(visible=False),
            one: gr.update(visible=True),
            title: run_page.heading(run),
            stop: gr.update(visible=training, value="Stop…", interactive=True),
            stopping.panel: gr.skip() if training else gr.update(visible=False),
            chat: gr.update(visible=run.adapter is not None),
            notes: run_page.notes(run, curve),
            result: run_page.result(run),
            answers: run_page.answers(run),
            timer: gr.Timer(LIVE, active=run.status.active),
        }

    def draw_live(run: Run, curve: Curve) -> Update:
        on_card = curve.started is not None and curve.started.device != run_page.PROCESSOR
        return {
            state: run_page.state_line(run),
            figures: run_page.figures(run, curve, memory(on_card)),
            charts: curve.figures,
            seen: look_of(run, curve),
        }

    def draw(run_id: str, segment_now: str, needle_now: str, page_now: int) -> Update:
        if not run_id:
            return draw_list(segment_now, needle_now, page_now)
        try:
            run = studio.queue.get(run_id)
        except NotFound as error:  # an old address, or its folder was deleted
            return draw_list(segment_now, needle_now, page_now) | {said: problem(error, "Not found")}
        return draw_run(run, watch(run)) | {stopping.panel: gr.update(visible=False)}

    def tick(run_id: str, shown: tuple[Any, ...]) -> Any:
        """Say whether there is something to draw. Most ticks find nothing, and each output costs the browser time."""
        if not run_id or not shown or shown[0] != run_id:  # the list is shown
            now = fingerprint(studio.runs.list())
        else:
            run = studio.queue.get(run_id)
            now = look_of(run, watch(run))
        return gr.skip() if now == shown else now

    def redraw(run_id: str, shown: tuple[Any, ...], segment_now: str, needle_now: str, page_now: int) -> Update:
        """Draw what is new."""
        if not run_id or not shown or shown[0] != run_id:  # the list is shown
            now = fingerprint(studio.runs.list())
            return {seen: gr.skip()} if now == shown else draw_list(segment_now, needle_now, page_now)
        run = studio.queue.get(run_id)
        curve = watch(run)
        now = look_of(run, curve)
        if now == shown:
            return {seen: gr.skip()}
        return draw_live(run, curve) if now[:-1] == shown[:-1] else draw_run(run, curve)

    def show_log(run_id: str, wanted: str) -> str:
        with suppress(NotFound):
            return lines_with(studio.runs.log(run_id), wanted)
        return ""

    def ask_stop(run_id: str) -> str:
        run = studio.runs.get(run_id)
        if run.status is Status.QUEUED:
            return consequences(["It has not started, so nothing is lost.", "It leaves the queue for good."])
        kept = f"What it has learned until then is kept as a version of {run.name}."
        at = f"Training ends after the step it is in, now {words.count(run.step)} of {words.count(run.steps)}."
        return consequences(
            [at, kept] if run.step else ["It ends before the first step.", "Nothing is learned, so nothing is kept."]
        )

    def do_stop(run_id: str) -> Update:
        run = studio.runs.stop(run_id)
        return draw_run(run, watch(run)) | {stop: gr.update(value="Stopping after this step", interactive=False)}

    def pick(chosen: gr.SelectData, segment_now: str, needle_now: str, page_now: int) -> Update:
        """Open a run, or do what its button in the list says."""
        verb, _, run_id = str(chosen.index).rpartition(":")
        if not verb:
            return {item: run_id}
        act: dict[str, Callable[[str], object]]
        act = {"up": studio.queue.up, "first": studio.queue.first, "stop": studio.runs.stop}
        act[verb](run_id)
        return draw_list(segment_now, needle_now, page_now)

    filtered = [segment, needle, page]
    drawn = [
        *(listing, one, filters, segment, needle, said, listed, clear, pager, place, before, after, page),
        *(title, stop, stopping.panel, chat, state, notes, result, figures, charts, answers, seen, timer),
    ]
    timer.tick(tick, [item, seen], news, **QUIET)
    news.change(redraw, [item, seen, *filtered], drawn, **QUIET)
    news.change(
        lambda run_id, wanted, is_open: show_log(run_id, wanted) if is_open else gr.skip(),
        [item, log_needle, log_open],
        log,
        **QUIET,
    )
    gr.on(
        [segment.input, needle.input],
        lambda a, b: draw_list(a, b, 0),
        [segment, needle],
        drawn,
        trigger_mode="always_last",
        **QUIET,
    )
    clear.click(lambda: draw_list("all", "", 0) | {segment: "all", needle: ""}, None, drawn, **QUIET)
    before.click(lambda a, b, n: draw_list(a, b, n - 1), filtered, drawn, **QUIET)
    after.click(lambda a, b, n: draw_list(a, b, n + 1), filtered, drawn, **QUIET)
    listed.select(pick, filtered, [item, *drawn], **QUIET)
    back.click(lambda: "", None, item, **QUIET)
    new.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    stop.click(ask_stop, item, stopping.lines, **QUIET)
    stopping.act.click(do_stop, item, drawn, **QUIET)
    chat.click(lambda run_id: go("chat", studio.runs.get(run_id).adapter or ""), item, shell.to("chat"), **QUIET)
    title.change(None, title, js=ADDRESS, api_visibility="private")
    log_panel.expand(lambda: True, None, log_open, **QUIET)
    log_panel.collapse(lambda: False, None, log_open, **QUIET)
    gr.on([log_panel.expand, log_needle.input, item.change], show_log, [item, log_needle], log, **QUIET)
    return Tab(draw, drawn, [timer], filtered)


def segments(runs: list[Run]) -> list[tuple[str, str]]:
    """Return the filters that have runs, with their counts."""
    counts = {name: sum(run.status in statuses for run in runs) for name, statuses in SEGMENTS.items()}
    shown = [(f"{name.capitalize()} {number}", name) for name, number in counts.items() if number]
    return [(f"All {len(runs)}", "all"), *shown]


def matches(run: Run, segment: str, needle: str) -> bool:
    """Whether a run is in the segment and has every word of the needle in its name, model, data, method or date."""
    within = segment not in SEGMENTS or run.status in SEGMENTS[segment]
    names = [words.run_title(run.id), run.name, run.model, words.model_name(run.model), run.dataset]
    text = " ".join([*names, METHODS[run.method].title, run.created[:10], words.when(run.created)]).casefold()
    return within and all(word in text for word in needle.casefold().split())


def in_order(runs: Sequence[Run], waiting: Sequence[Run]) -> list[Run]:
    """Return those at work, then those that wait in their order, then the others, newest first."""
    queued = {run.id for run in waiting}
    others = [run for run in runs if not run.status.working and run.id not in queued]
    return [*(run for run in runs if run.status.working), *waiting, *others]


def listed_item(run: Run, places: dict[str, int]) -> dict[str, Any]:
    """Return a run as an item of the list; one that waits has buttons for its place in the queue."""
    place = places.get(run.id)
    if place is None:
        return run_item(run)
    actions = [("up", "Move up")] * (place > 0) + [("first", "Start next")] * (place > 1) + [("stop", "Cancel")]
    return run_item(run) | {"actions": [(f"{verb}:{run.id}", name) for verb, name in actions]}


def fingerprint(runs: list[Run]) -> tuple[Any, ...]:
    """Return what tells one look at the list from the next."""
    return tuple((run.id, run.status, run.step, run.phase, run.priority, run.since) for run in runs)


def look_of(run: Run, curve: Curve) -> tuple[Any, ...]:
    """Return what tells one look at a run from the next; all but the last draws the whole view again."""
    return (run.id, run.status, run.phase if run.since else "", len(curve.warnings), curve.offset)


def lines_with(log: str, needle: str) -> str:
    """Return the lines of a log that hold the needle."""
    return "\n".join(line for line in log.splitlines() if needle.casefold() in line.casefold())
