"""What stands around the cards of an adapter: notes on a version, two side by side, the rule, room on the disk."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import StudioError
from studio.domain.records import Adapter
from studio.services.compare import Row
from studio.services.rooms import Item
from studio.studio import Studio
from studio.ui.common import QUIET, confirm, consequences, edge, problem
from studio.ui.pieces import block, definitions, html, note, section

NAMED = 3  # of what may go when the disk runs short
LINEAGE = {
    "dataset_sha256": "Data",
    "base_revision": "Base commit",
    "studio": "Studio",
    "seed": "Seed",
    "device": "Made on",
    "precision": "Precision",
}


def details(studio: Studio, adapter: Adapter, button: gr.Button, again: Callable[[], Any], shown: gr.State) -> None:
    """Make the panel that `button` opens: note, tags, what the version came from, and archive."""
    with gr.Column(visible=False, elem_classes=["confirm", "calm"]) as opened:
        block(section(f"{adapter.name} v{adapter.version}") + definitions(came_from(adapter)))
        text = gr.Textbox(adapter.note, label="Note", max_lines=4, interactive=True)
        tags = gr.Textbox(", ".join(adapter.tags), label="Tags, with commas between", max_lines=1, interactive=True)
        said = block()
        with gr.Row(elem_classes="actions"):
            keep = gr.Button("Save", size="md", min_width=90, scale=0)
            hide = gr.Button("Archive", size="md", min_width=90, scale=0, visible=not adapter.active)
            close = gr.Button("Close", size="md", min_width=80, scale=0)

    def save(text: str, tags: str) -> list[Any]:
        try:
            studio.versions.describe(adapter.ref, text.strip(), tags.split(","))
        except StudioError as error:
            return [problem(error, "Not kept"), gr.skip()]
        return ["", again()]

    def archive() -> list[Any]:
        try:
            studio.versions.archive(adapter.ref)
        except StudioError as error:
            return [problem(error, "Not archived"), gr.skip()]
        return ["", again()]

    button.click(lambda: gr.Column(visible=True), None, opened, **QUIET)
    close.click(lambda: gr.Column(visible=False), None, opened, **QUIET)
    keep.click(edge(save), [text, tags], [said, shown], **QUIET)
    hide.click(edge(archive), None, [said, shown], **QUIET)


def came_from(adapter: Adapter) -> list[tuple[str, str]]:
    """Return an adapter's lineage in words, hashes by their first letters."""
    return [(title, str(adapter.lineage.get(key, ""))[:12]) for key, title in LINEAGE.items()]


def side_by_side(studio: Studio, versions: Sequence[Adapter]) -> None:
    """Make the closed part that compares two versions."""
    refs = [(f"v{each.version}", each.ref) for each in versions]
    active = next((each.ref for each in versions if each.active), refs[0][1])
    other = next(ref for _, ref in refs if ref != active)
    with gr.Accordion("Compare two versions", open=False) as part:
        with gr.Row():
            one = gr.Dropdown(refs, value=active, label="Version", interactive=True)
            two = gr.Dropdown(refs, value=other, label="With", interactive=True)
        drawn = block()

    def draw(one: str, two: str) -> str:
        try:
            found = studio.versions.compare(one, two)
        except StudioError as error:
            return note(error.message, error.hint, word="Choose")
        heads = [f"v{ref.rpartition('@v')[2]}" for ref in found.versions]
        return (
            "".join(note(text, word="Note") for text in found.notes)
            + table(found.results, heads, "Measured")
            + (table(found.settings, heads, "Settings that differ") if found.settings else "")
        )

    part.expand(edge(draw), [one, two], drawn, **QUIET)
    gr.on([one.input, two.input], edge(draw), [one, two], drawn, **QUIET)


def table(lines: Sequence[Row], heads: Sequence[str], label: str) -> str:
    """Return rows of values, a column for each thing compared, the best of a row in bold with the word."""
    return html(
        """<div class="sides" tabindex="0" role="region" aria-label="{{ label }}"><table>
<thead><tr><th scope="col">{{ label }}</th>{% for name in heads %}<th scope="col">{{ name }}</th>{% endfor %}</tr>
</thead><tbody>{% for it in lines %}<tr><th scope="row">{{ it.name }}</th>{% for text in it.words %}
<td class="num">{% if loop.index0 in it.best %}<b>{{ text }}</b> <em class="good">best</em>{% else %}{{ text }}
{% endif %}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>""",
        lines=lines,
        heads=heads,
        label=label,
    )


def rule(studio: Studio, name: str) -> None:
    """Make the closed part that says which new versions become active."""
    now = studio.versions.rule(name)
    with gr.Accordion("Which new version becomes active", open=False):
        block(
            html("<p class='muted'>One that is better than the base. The one before stays, and can be made active.</p>")
        )
        held = gr.Checkbox(now is not None, label="Only if it forgot little", interactive=True)
        most = gr.Number(
            1 if now is None else now,
            label="General points it may lose",
            info="Of 100 next words of general texts, how many fewer it may guess than its base.",
            minimum=0,
            maximum=100,
            visible=now is not None,
            interactive=True,
        )

    def choose(held: bool, most: float | None) -> Any:
        studio.versions.set_rule(name, (1 if most is None else most) if held else None)
        return gr.Number(visible=held)

    gr.on([held.input, most.change], edge(choose), [held, most], most, **QUIET)


def archived(studio: Studio, hidden: Sequence[Adapter], again: Callable[[], Any], shown: gr.State) -> None:
    """Make the closed part with the archived versions: each can be brought back or deleted."""
    size = words.size(sum(adapter.bytes for adapter in hidden))
    with gr.Accordion(f"Archived: {words.plural(len(hidden), 'version')}, {size}", open=False):
        for adapter in hidden:
            _archived(studio, adapter, again, shown)


def _archived(studio: Studio, adapter: Adapter, again: Callable[[], Any], shown: gr.State) -> None:
    with gr.Row(elem_classes="item", key=f"archived-{adapter.ref}"):
        told = " · ".join(filter(None, [words.when(adapter.created), words.size(adapter.bytes), adapter.note]))
        block(html("<b>v{{ v }}</b> <span class='muted num'>{{ told }}</span>", v=adapter.version, told=told))
        back = gr.Button("Bring back", size="sm", min_width=90, scale=0)
        delete = gr.Button("Delete…", size="sm", min_width=80, scale=0)
    asked = confirm(delete, f"Delete {adapter.name} v{adapter.version}?", f"Delete v{adapter.version}", "Keep it")

    def restore() -> Any:
        studio.versions.restore(adapter.ref)
        return again()

    def remove() -> Any:
        studio.adapters.remove(adapter.ref)
        return again()

    delete.click(edge(lambda: consequences(losses(studio, adapter))), None, asked.lines, **QUIET)
    back.click(edge(restore), None, shown, **QUIET)
    asked.act.click(edge(remove), None, shown, **QUIET)


def losses(studio: Studio, adapter: Adapter) -> list[str]:
    """Return what goes when a version is deleted."""
    lines = [f"{words.size(studio.adapters.frees(adapter.ref))} become free. Its run and what was measured there stay."]
    if adapter.active:
        lines.append("It is the only version.")
    return [*lines, "This cannot be undone."]


def room(studio: Studio, again: Callable[[], Any], shown: gr.State) -> None:
    """Where the disk is nearly full, name the largest of what may go; checkpoints can be deleted here."""
    if not studio.rooms.low:
        return
    found = studio.rooms.look()
    largest = found.items[:NAMED]
    free = words.size(found.free_bytes)
    if not largest:
        block(
            note(
                f"{free} are free on the disk.", "No version and no checkpoint here can be spared.", word="Little room"
            )
        )
        return
    block(
        note(
            f"{free} are free on the disk.",
            "These are the largest that can be spared.",
            word="Little room",
            tone="warn",
        )
    )
    with gr.Column(elem_classes="list"):
        for item in largest:
            _spare(studio, item, again, shown)


def _spare(studio: Studio, item: Item, again: Callable[[], Any], shown: gr.State) -> None:
    version = item.kind == "version"
    what = item.ref if version else f"Checkpoints of {words.run_title(item.ref)}"
    size = words.size(item.bytes)
    with gr.Row(elem_classes="item", key=f"room-{item.kind}-{item.ref}"):
        block(
            html(
                "<b>{{ what }}</b> <span class='muted num'>{{ why }} {{ size }}</span>",
                what=what,
                why=item.why,
                size=size,
            )
        )
        delete = gr.Button("Delete…", size="sm", min_width=80, scale=0)
    asked = confirm(delete, f"Delete {what}?", f"Delete, {size}", "Keep it")
    stays = "Its run stays." if version else "The adapter and the figures stay; no earlier step can be kept afterwards."

    def remove() -> Any:
        (studio.adapters.remove if version else studio.rooms.clear)(item.ref)
        return again()

    delete.click(
        edge(lambda: consequences([f"{size} become free. {stays}", "This cannot be undone."])),
        None,
        asked.lines,
        **QUIET,
    )
    asked.act.click(edge(remove), None, shown, **QUIET)
