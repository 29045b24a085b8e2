"""Compare runs, a view of the Runs tab: two to five are chosen, then stand side by side. Its item: ids, commas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.records import Run
from studio.services.compare import FEWEST, MOST, Comparison, Row, Side, compare, load
from studio.studio import Studio
from studio.ui.chart import READOUT
from studio.ui.common import QUIET, Shell, again, problem, run_item
from studio.ui.overlay import Trace, held_out, swatch, training
from studio.ui.pieces import block, choices, head, html, muted, note, rows, section
from studio.ui.run_detail import ADDRESS

CHOOSE = ","  # the item of the view with nothing chosen yet
LISTED = 50  # runs to choose from; the filter reaches the others
NONE = "Nothing to compare yet. Runs appear here once they have trained a step."
Update = dict[Any, Any]


@dataclass(frozen=True)
class Comparing:
    """The view. `draw(item)` shows it, `look(item)` tells one state of its runs from the next, `closed` hides it."""

    outputs: Sequence[Any]
    closed: Update
    draw: Callable[[str], Update]
    look: Callable[[str], tuple[Any, ...]]


def build(studio: Studio, shell: Shell, matches: Callable[[Run, str, str], bool]) -> Comparing:
    """Build the view; `matches(run, "all", words)` is how the list filters."""
    item = shell.items["runs"]
    chosen = gr.State(CHOOSE)
    with gr.Column(visible=False) as panel:
        back = gr.Button("All runs", size="sm", elem_classes="back", scale=0, min_width=80)
        with gr.Row(elem_classes="head"):
            title = block()
            with gr.Row(elem_classes="actions end"):
                other = gr.Button("Choose others", size="md", visible=False)
                act = gr.Button("Compare", variant="primary", size="md", visible=False)
        needle = gr.Textbox(
            "",
            placeholder="Name, model, data, method or date",
            label="Filter runs to compare",
            show_label=False,
            container=False,
            elem_classes="narrow",
        )
        said = block()
        toggles = choices()
        results = choices()
        charts = block(js_on_load=READOUT, elem_classes="charts")
        settings = block()
    outputs = [panel, title, other, act, needle, said, toggles, results, charts, settings, chosen]

    def draw(opened: str) -> Update:
        ids = parts(opened)
        try:
            sides = load(studio.runs, ids) if len(ids) >= FEWEST else []
        except StudioError as error:
            return choose(CHOOSE, "") | {said: problem(error, "Not compared")}
        return show(sides) if sides else choose(opened, "")

    def choose(now: str, wanted: str) -> Update:
        ids, here = parts(now), [run for run in studio.runs.list() if run.step]
        shown = [run for run in here if matches(run, "all", wanted) or run.id in ids][:LISTED]
        empty = f"No run matches “{wanted}”." if here else NONE
        return {
            panel: gr.update(visible=True),
            title: html('<div data-run="{{ now }}">', now=now)
            + head("Compare runs", left_to_choose(len(ids)))
            + "</div>",
            other: gr.update(visible=False),
            act: gr.update(
                visible=True,
                interactive=len(ids) >= FEWEST,
                value=f"Compare {len(ids)} runs" if len(ids) >= FEWEST else "Compare",
            ),
            needle: gr.update(visible=bool(here)),
            said: "",
            toggles: rows([run_item(run) | {"selected": run.id in ids} for run in shown], "Runs to compare", empty),
            results: "",
            charts: "",
            settings: "",
            chosen: now,
        }

    def show(sides: list[Side]) -> Update:
        found = compare(sides)
        names = short_names([side.run for side in sides])
        lines = list(zip(names, sides, strict=True))
        now = ",".join(found.runs)
        return {
            panel: gr.update(visible=True),
            title: html('<div data-run="{{ now }}">', now=now)
            + head(f"{len(sides)} runs side by side", " · ".join(words.run_title(id) for id in found.runs))
            + "</div>",
            other: gr.update(visible=True),
            act: gr.update(visible=False),
            needle: gr.update(visible=False),
            said: "".join(note(text, word="Note") for text in found.notes),
            toggles: "",
            results: section("Results") + table(found.results, sides, names, "What came out", again=True),
            charts: held_out([Trace(name, place, side.held) for place, (name, side) in enumerate(lines)])
            + training([Trace(name, place, side.trained) for place, (name, side) in enumerate(lines)]),
            settings: section("Settings") + differences(found, sides, names),
            chosen: now,
        }

    def toggle(now: str, wanted: str, picked: gr.SelectData) -> Update:
        ids = parts(now)
        id = str(picked.index)
        if id in ids:
            ids.remove(id)
        elif len(ids) < MOST:
            ids.append(id)
        else:
            return {said: note("Five runs at most stand side by side.", "Leave one out first.", word="Full")}
        return choose(joined(ids), wanted)

    def look(opened: str) -> tuple[Any, ...]:
        runs = [studio.runs.get(id) for id in parts(opened)]
        return (opened, *((run.id, run.status, run.step) for run in runs))

    toggles.select(toggle, [chosen, needle], outputs, **QUIET)
    needle.input(choose, [chosen, needle], outputs, trigger_mode="always_last", **QUIET)
    act.click(lambda now: now, chosen, item, **QUIET)
    other.click(lambda: CHOOSE, None, item, **QUIET)
    back.click(lambda: "", None, item, **QUIET)
    results.select(_again, None, shell.to("train"), **QUIET)
    title.change(None, title, js=ADDRESS, api_visibility="private")
    return Comparing(outputs, {panel: gr.update(visible=False), title: ""}, draw, look)


def _again(picked: gr.SelectData) -> tuple[gr.Tabs, str]:
    """Open a new run with the settings of this one."""
    return again(str(picked.index), {})


def compares(item: str) -> bool:
    """Whether an item of the tab is a comparison, not a run."""
    return "," in item


def parts(item: str) -> list[str]:
    """Return the ids in an item, each once."""
    return list(dict.fromkeys(id for id in item.split(",") if id))


def joined(ids: Sequence[str]) -> str:
    return ",".join(ids) if len(ids) > 1 else "".join(ids) + CHOOSE


def left_to_choose(count: int) -> str:
    """Return what is to be done next."""
    if count < FEWEST:
        return "Choose two to five of them." if not count else "Choose one more at least."
    return f"{count} are chosen" + (f"; up to {MOST} fit." if count < MOST else ", more do not fit.")


def short_names(runs: Sequence[Run]) -> list[str]:
    """Return what to call the runs in little room: without what all names begin with."""
    titles = [words.run_title(run.id) for run in runs]
    beginnings = {title.rpartition(", ")[0] for title in titles}
    return [title.rpartition(", ")[2] for title in titles] if len(beginnings) == 1 else titles


def differences(found: Comparison, sides: Sequence[Side], names: Sequence[str]) -> str:
    """Return what differs in the settings, or that nothing does."""
    if not found.settings:
        return muted("They ran with the same settings.")
    return table(found.settings, sides, names, "What differs; the rest is the same")


def table(lines: Sequence[Row], sides: Sequence[Side], names: Sequence[str], label: str, again: bool = False) -> str:
    """Return rows of values, a column a run, the best of a row in bold with the word; `again` adds a button each."""
    return html(
        """<div class="sides" tabindex="0" role="region" aria-label="{{ label }}"><table>
<thead><tr><th scope="col">{{ label }}</th>{% for name, run in heads %}<th scope="col">{{ marks[loop.index0] }}{{ name }}</th>
{% endfor %}</tr></thead><tbody>{% for it in lines %}<tr><th scope="row">{{ it.name }}</th>
{% for text in it.words %}<td class="num">{% if loop.index0 in it.best %}<b>{{ text }}</b> <em class="good">best</em>
{% else %}{{ text }}{% endif %}</td>{% endfor %}</tr>{% endfor %}
{% if again %}<tr><th scope="row">Go on from here</th>{% for name, run in heads %}
<td><button class="again" data-id="{{ run }}" aria-label="New run from {{ name }}">New run from this</button></td>
{% endfor %}</tr>{% endif %}</tbody></table></div>""",  # noqa: E501
        lines=lines,
        heads=list(zip(names, [side.run.id for side in sides], strict=True)),
        marks=[Markup(swatch(place)) for place in range(len(sides))],
        label=label,
        again=again,
    )
