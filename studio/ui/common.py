"""What the tabs share: the shell they stand in, how one opens an item in another, confirmations and errors."""

import functools
import inspect
import json
import logging
import queue
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.events import Phase, Report
from studio.domain.methods import METHODS
from studio.domain.records import Run, Status
from studio.services.usage import on_battery
from studio.ui.pieces import block, html, note

log = logging.getLogger("studio.ui")
T = TypeVar("T")

# For every event: no spinner over content, and no entry in the public API.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Shell:
    """The tabs, and for each the id of the item open in it ("" is its list). `items[name].change` redraws the tab."""

    tabs: gr.Tabs
    items: dict[str, gr.State]

    def to(self, name: str) -> list[Any]:
        """Return the outputs of a handler that returns `go(name, …)`."""
        return [self.tabs, self.items[name]]


CALM = 30  # seconds without anything new


def pace(usual: float, since: float) -> float:
    """Return the seconds to the next look: twice as many on battery, and when nothing is new since that moment."""
    return 2 * usual if time.monotonic() - since > CALM or on_battery() else usual


def go(name: str, item: str = "") -> tuple[gr.Tabs, str]:
    """Select a tab and open an item there. A handler with outputs `shell.to(name)` returns this."""
    return gr.Tabs(selected=name), item


AGAIN = "run:"  # begins what is opened in Train when a run is to be done again


def again(run_id: str, edit: dict[str, Any]) -> tuple[gr.Tabs, str]:
    """Open a new run with the settings of this one, changed by `edit`: group.key and its value."""
    return go("train", f"{AGAIN}{run_id}:{json.dumps(edit)}")


@dataclass(frozen=True)
class Tab:
    """What the shell needs of a tab.

    `refresh(item, *inputs)` returns a value for each of `outputs`; it runs when the tab is selected, and when the open
    item changes: by the tab itself, another tab or the page's address. `timers` are stopped when another tab is
    selected; `refresh` starts them again if something is live.
    """

    refresh: Callable[..., Any]
    outputs: Sequence[Any]
    timers: Sequence[gr.Timer] = ()
    inputs: Sequence[Any] = ()


TONES = {
    Status.QUEUED: "live",
    Status.STARTING: "live",
    Status.TRAINING: "live",
    Status.EVALUATING: "live",
    Status.PAUSED: "warn",
    Status.STOPPED: "warn",
    Status.INTERRUPTED: "warn",
    Status.FAILED: "bad",
    Status.FINISHED: "good",
}


def run_item(run: Run) -> dict[str, Any]:
    """Return a run as an item of `rows`, the same in every list."""
    item: dict[str, Any] = {
        "id": run.id,
        "title": words.run_title(run.id),
        "state": run.status.capitalize(),
        "tone": TONES[run.status],
        "text": run.error or f"{words.model_name(run.model)} · {METHODS[run.method].title} · {run.dataset}",
    }
    loss = f"loss {run.loss:.3f}" if run.loss is not None else ""
    if run.status is Status.QUEUED:
        item["meta"] = [loss, "", words.when(run.created)]
        item["text"] = f"{run.phase or 'waits to start'} · {item['text']}"
    elif run.status.active:
        left = f"{words.interval(*run.seconds_left)} left" if run.seconds_left else run.phase
        item["percent"] = round(100 * run.step / run.steps) if run.steps else 0
        item["meta"] = [loss, left, f"started {words.when(run.started or run.created)}"]
    else:
        took = (
            f"took {words.duration(run.seconds)}"
            if run.status == Status.FINISHED
            else f"after {words.duration(run.seconds)}"
        )
        item["meta"] = [loss, took, words.when(run.ended or run.created)]
    return item


@dataclass(frozen=True)
class Confirm:
    """A question that opens in place: fill `lines` with `consequences([…])`, close `panel` when the item changes."""

    panel: gr.Column
    lines: gr.HTML
    act: gr.Button


def confirm(button: gr.Button, question: str, yes: str, no: str, destroys: bool = True) -> Confirm:
    """Make the panel that opens under `button` and says what will happen; `act.click` does it."""
    with gr.Column(visible=False, elem_classes="confirm" if destroys else ["confirm", "calm"]) as panel:
        block(html("<h2>{{ question }}</h2>", question=question))
        lines = block()
        with gr.Row(elem_classes="actions"):
            act = gr.Button(yes, variant="stop" if destroys else "secondary", size="md")
            keep = gr.Button(no, size="md")
    button.click(lambda: gr.update(visible=True), None, panel, **QUIET)
    gr.on([act.click, keep.click], lambda: gr.update(visible=False), None, panel, **QUIET)
    return Confirm(panel, lines, act)


def consequences(lines: Sequence[str]) -> str:
    """Return what will happen as a list."""
    return html("<ul>{% for it in lines %}<li>{{ it }}</li>{% endfor %}</ul>", lines=lines)


def phases(work: Callable[[Report], T]) -> Iterator[Phase | T]:
    """Do the work on a thread; yield the phases it reports as they come, then what it returns."""
    reported: queue.Queue[Phase | None] = queue.Queue()
    with ThreadPoolExecutor(max_workers=1) as pool:
        done = pool.submit(work, reported.put)
        done.add_done_callback(lambda _: reported.put(None))
        while (phase := reported.get()) is not None:
            yield phase
        yield done.result()


def problem(error: StudioError, word: str = "Not done") -> str:
    """Return a known error as a note that stands where it arose."""
    return note(error.message, error.hint, word=word, tone="bad", urgent=True)


def _toast(error: Exception) -> gr.Error:
    """Turn what a handler let through into a toast: known errors in words, others as a reference to the log."""
    if isinstance(error, StudioError):
        return gr.Error(escape(str(error)), print_exception=False)
    reference = secrets.token_hex(2).upper()
    log.error("Reference %s", reference, exc_info=error)
    return gr.Error(f"Something failed here. Reference {reference}. The details are in the log.", print_exception=False)


def edge(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that no exception reaches the page as such. The shell does it for every event."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from handler(*args, **kwargs)
            except gr.Error:
                raise
            except Exception as error:
                raise _toast(error) from error

        return stream

    @functools.wraps(handler)
    def once(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise _toast(error) from error

    return once
