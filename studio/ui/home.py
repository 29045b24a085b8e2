"""Home: on the first visit what to do next, later what is going on."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.records import Adapter, Dataset, Run
from studio.services import apart, datasets
from studio.services.machine import Machine
from studio.services.queue import turn
from studio.studio import Studio
from studio.ui.common import QUIET, Shell, Tab, go, problem, run_item
from studio.ui.pieces import block, busy, choices, facts, head, rows, section

PULSE = 5  # seconds
RECENT = 5
WHAT = (
    "Give PEFT Studio a file of questions and answers. It trains a small add-on, called an adapter, for a language "
    "model, on this machine. Then you chat with it."
)
STEPS = [
    {
        "id": "data",
        "title": "1  Data",
        "text": "Drop a CSV, JSON, JSONL, text or Parquet file. The studio says what it sees in it.",
    },
    {"id": "train", "title": "2  Train", "text": "Every setting is chosen for you, with the reason beside it."},
    {"id": "chat", "title": "3  Chat", "text": "Ask the model with and without what it learned, and see what changed."},
]


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab; what it shows is decided by what the studio has, at every visit."""
    with gr.Column(visible=False) as first:
        block(head("Teach a model your own examples", WHAT))
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Add your data", variant="primary", size="md")
            sample = gr.Button("Try it with sample data", size="md")
        said = block()
        steps = choices(rows(STEPS, "The three steps"))
    with gr.Column(visible=False) as later:
        with gr.Row(elem_classes="head"):
            block(head("Home"))
            new = gr.Button("New run", variant="primary", size="md", scale=0, min_width=120)
        activity = choices()
        in_use = choices()
    machine = block()
    timer = gr.Timer(PULSE, active=False)

    def live(runs: Sequence[Run] | None = None) -> list[Any]:
        runs = studio.queue.look()[0] if runs is None else runs
        active = any(run.status.active for run in runs)
        return [going_on(runs), this_machine(studio.machine), gr.Timer(active=active)]

    def refresh(_: str = "") -> list[Any]:
        runs = studio.queue.look()[0]
        beginning = not runs and not studio.datasets.list()
        used = in_use_now([adapter for adapter in studio.adapters.list() if adapter.active])
        return [gr.update(visible=beginning), gr.update(visible=not beginning), "", used, *live(runs)]

    def use_sample() -> Iterator[list[Any]]:
        stay = [gr.skip(), gr.skip()]
        yield [gr.update(interactive=False), busy("Reading the sample data"), *stay]
        try:
            for item in apart.add(studio.home, datasets.sample_path()):
                if isinstance(item, Dataset):
                    yield [gr.update(interactive=True), "", *go("train", item.id)]
        except StudioError as error:
            yield [gr.update(interactive=True), problem(error), *stay]

    start.click(lambda: go("data"), None, shell.to("data"), **QUIET)
    sample.click(use_sample, None, [sample, said, *shell.to("train")], **QUIET)
    new.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    steps.select(_open_step, None, shell.tabs, **QUIET)
    activity.select(_open_run, None, shell.to("runs"), **QUIET)
    in_use.select(_open_adapter, None, shell.to("adapters"), **QUIET)
    timer.tick(live, None, [activity, machine, timer], **QUIET)
    return Tab(refresh, [first, later, said, in_use, activity, machine, timer], [timer])


def _open_step(picked: gr.SelectData) -> gr.Tabs:
    return gr.Tabs(selected=picked.index)


def _open_run(picked: gr.SelectData) -> tuple[gr.Tabs, str]:
    return go("runs", str(picked.index))


def _open_adapter(picked: gr.SelectData) -> tuple[gr.Tabs, str]:
    return go("adapters", str(picked.index))


def going_on(runs: Sequence[Run]) -> str:
    """Return the active runs, those at work before those that wait in their order, and the last few that ended."""
    now = sorted((run for run in runs if run.status.active), key=lambda run: (not run.status.working, turn(run)))
    active = [run_item(run) for run in now]
    ended = [run_item(run) for run in runs if not run.status.active][:RECENT]
    shown = section("Now") + rows(active, "Active runs") if active else ""
    if ended or not active:
        shown += section("Recent") + rows(ended, "Recent runs", "No runs yet. Train on your data, and it appears here.")
    return shown


def in_use_now(adapters: list[Adapter]) -> str:
    """Return the active version of each adapter with its verdict, or nothing."""
    items = [
        {
            "id": adapter.ref,
            "title": f"{adapter.name} v{adapter.version}",
            "state": "Active",
            "tone": "live",
            "text": adapter.metrics.get("verdict") or "Not measured",
            "meta": [words.size(adapter.bytes), words.when(adapter.created)],
        }
        for adapter in adapters[:RECENT]
    ]
    return section("In use") + rows(items, "Adapters in use") if items else ""


def this_machine(machine: Machine) -> str:
    """Return what this machine has and what it can train."""
    has = machine.facts()
    able, _, remark = re.sub(", ", " · ", has.words, count=1).partition(" · ")
    cells: list[dict[str, Any]] = [{"label": "Can train", "value": able, "unit": "parameters", "note": remark}]
    if has.gpu:
        free = words.size(has.gpu.memory_free_bytes)
        cells.append(
            {
                "label": "Graphics card",
                "value": has.gpu.name,
                "note": f"{free} of {words.size(has.gpu.memory_bytes)} free",
            }
        )
    else:
        cells.append({"label": "Processor", "value": words.plural(has.cores, "core"), "note": has.processor})
    free, unit = words.size(has.memory_free_bytes).split(" ")
    cells.append(
        {"label": "Memory", "value": free, "unit": f"{unit} free", "note": f"of {words.size(has.memory_bytes)}"}
    )
    free, unit = words.size(has.disk_free_bytes).split(" ")
    cells.append({"label": "Disk", "value": free, "unit": f"{unit} free", "note": "a model takes 0.3–16 GB"})
    cells.append({"label": "Your data", "value": "stays here", "note": "nothing is uploaded anywhere"})
    return section("This machine") + facts(cells)
