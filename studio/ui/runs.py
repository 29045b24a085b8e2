"""Runs: the list, and one run live, from its files: a page opened at any time shows the same."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import NotFound
from studio.domain.methods import METHODS
from studio.domain.records import Run, Status
from studio.studio import Studio
from studio.ui import compare, run_detail
from studio.ui.common import QUIET, Shell, Tab, go, pace, problem, run_item
from studio.ui.pieces import block, choices, head, muted, rows

PAGE = 50  # runs on one page of the list
LIVE, SLOW = 1, 5  # seconds between two looks: at an open run that is at work; at a list with one in it
SEGMENTS = {
    "active": tuple(status for status in Status if status.active),
    "finished": (Status.FINISHED,),
    "stopped": (Status.STOPPED, Status.PAUSED),
    "failed": (Status.FAILED, Status.INTERRUPTED),
}
Update = dict[Any, Any]  # component: value
Look = tuple[Any, ...]


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab. Whatever is shown is drawn by `draw`; a tick draws again only what has changed."""
    item = shell.items["runs"]
    seen = gr.State(())  # what is shown: the open run and the last look at it, or the list's
    news = gr.State(())  # what a tick saw, when it differs from what is shown
    beat = gr.State((0.0, 0.0))  # when something new was shown, and the seconds between two ticks
    page = gr.State(0)
    timer = gr.Timer(SLOW, active=False)

    with gr.Column() as listing:
        with gr.Row(elem_classes="head"):
            block(head("Runs"))
            side_by_side = gr.Button("Compare…", size="md", scale=0, min_width=100)
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

    detail = run_detail.build(studio, shell)
    comparing = compare.build(studio, shell, matches)

    def draw_list(segment_now: str, needle_now: str, page_now: int) -> Update:
        runs, waiting = studio.queue.look()
        places = {run.id: place for place, run in enumerate(waiting)}
        chosen = [run for run in in_order(runs, waiting) if matches(run, segment_now, needle_now)]
        page_now = min(page_now, max(0, len(chosen) - 1) // PAGE)
        here = chosen[page_now * PAGE : (page_now + 1) * PAGE]
        empty = "No runs yet. Train on your data, and it appears here."
        if runs:
            empty = f"No run matches “{needle_now}”." if needle_now else "No run is in this state now."
        last = page_now * PAGE + len(here)
        hidden = detail.closed | comparing.closed
        return hidden | {
            listing: gr.update(visible=True),
            side_by_side: gr.update(visible=sum(run.step > 0 for run in runs) > 1),
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
            seen: ("", fingerprint(runs)),
            **ticking(SLOW, any(run.status.active for run in runs)),
        }

    def ticking(usual: float, active: bool) -> Update:
        """Start the clock anew, when something new is shown, or stop it."""
        since = time.monotonic()
        return {timer: gr.Timer(pace(usual, since), active=active), beat: (since, pace(usual, since))}

    def draw_run(run: Run, step: float = math.inf) -> Update:
        shown = {listing: gr.update(visible=False), seen: (run.id, detail.look(run))}
        live = ticking(LIVE, run.status.active or detail.behind(run))
        return detail.draw(run, step) | comparing.closed | shown | live

    def draw_compared(ids: str) -> Update:
        now = comparing.look(ids)
        shown = {listing: gr.update(visible=False), seen: now}
        return detail.closed | comparing.draw(ids) | shown | ticking(SLOW, any(run[1].active for run in now[1:]))

    def draw(run_id: str, segment_now: str, needle_now: str, page_now: int, *_: Any) -> Update:
        if not run_id:
            return draw_list(segment_now, needle_now, page_now)
        try:
            if compare.compares(run_id):
                return draw_compared(run_id)
            run = studio.queue.get(run_id)
        except NotFound as error:  # an old address, or its folder was deleted
            return draw_list(segment_now, needle_now, page_now) | {said: problem(error, "Not found")}
        return draw_run(run) | {detail.confirm: gr.update(visible=False)}

    def look(run_id: str, shown: Look) -> Look:
        """Return what would be shown now. The list stays when an address led to a run that is gone."""
        if run_id and shown and shown[0] == run_id:
            if compare.compares(run_id):
                return comparing.look(run_id)
            return run_id, detail.look(studio.queue.get(run_id))
        return "", fingerprint(studio.runs.list())

    def tick(run_id: str, shown: Look, beat_now: tuple[float, float]) -> Any:
        """Say whether there is something to draw. Most ticks find nothing, and each output costs the browser time."""
        now = look(run_id, shown)
        if now != shown:
            return now, gr.skip(), gr.skip()
        since, every = beat_now
        slower = pace(LIVE if now[0] and not compare.compares(now[0]) else SLOW, since)
        return (gr.skip(), gr.skip(), gr.skip()) if slower == every else (gr.skip(), gr.Timer(slower), (since, slower))

    def redraw(
        run_id: str,
        shown: Look,
        beat_now: tuple[float, float],
        segment_now: str,
        needle_now: str,
        page_now: int,
        step: float,
    ) -> Update:
        """Draw what is new."""
        now = look(run_id, shown)
        if now == shown:
            return {seen: gr.skip()}
        if not now[0]:
            return draw_list(segment_now, needle_now, page_now)
        if compare.compares(run_id):
            return draw_compared(run_id)
        run = studio.queue.get(run_id)
        (what, offset, _), (was, before, _) = now[1], shown[1]
        if what != was:
            return draw_run(run, step)
        drawn_now = detail.live(run) | {seen: now}
        if not run.status.active:  # its curve was still being read
            drawn_now |= {timer: gr.Timer(active=detail.behind(run))}
        if offset == before:  # only the machine's load
            return drawn_now
        since = time.monotonic()
        restart = {} if beat_now[1] == pace(LIVE, since) else {timer: gr.Timer(pace(LIVE, since))}
        return drawn_now | restart | {beat: (since, pace(LIVE, since))}

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
    drawn = [listing, filters, segment, needle, said, listed, clear, pager, place, before, after, page]
    drawn += [seen, beat, timer, side_by_side, *detail.outputs, *comparing.outputs]
    timer.tick(tick, [item, seen, beat], [news, timer, beat], **QUIET)
    news.change(redraw, [item, seen, beat, *filtered, *detail.inputs], drawn, **QUIET)
    detail.wire(drawn, news, draw_run)
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
    side_by_side.click(lambda: compare.CHOOSE, None, item, **QUIET)
    new.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    return Tab(draw, drawn, [timer], filtered)


def segments(runs: Sequence[Run]) -> list[tuple[str, str]]:
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


def fingerprint(runs: Sequence[Run]) -> tuple[Any, ...]:
    """Return what tells one look at the list from the next."""
    return tuple((run.id, run.status, run.step, run.phase, run.priority, run.since) for run in runs)
