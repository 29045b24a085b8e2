"""Adapters: the versions of one name, newest first, each with what was measured of it."""

from functools import partial
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import NotFound
from studio.domain.methods import METHODS
from studio.domain.records import Adapter
from studio.services.freed import freed_by
from studio.studio import Studio
from studio.ui import export, measure, report, serve
from studio.ui import versions as around
from studio.ui.common import QUIET, Shell, Tab, confirm, consequences, edge, go, problem
from studio.ui.pieces import block, head, html, muted

FIRST = 10  # cards drawn before "Show older"


def build(studio: Studio, shell: Shell) -> Tab:
    """Build the tab. `shown` says what the cards are drawn for; only another value draws them again.

    Drawing gives every button a new number, so that a press between two drawings meets one that is gone.
    """
    item = shell.items["adapters"]
    shown = gr.State(("", FIRST, ""))  # the name, how many cards, and what `state` says of them
    with gr.Row(elem_classes="head"):
        title = block(head("Adapters"))
        pick = gr.Dropdown(
            [],
            label="Adapter",
            show_label=False,
            container=False,
            scale=0,
            min_width=200,
            visible=False,
            interactive=True,
        )
    said = block()
    with gr.Column(visible=False) as empty:
        block(html("<p class='muted'>No adapters yet. A finished run puts one here.</p>"))
        train = gr.Button("New run", variant="primary", size="md", elem_classes="back", scale=0, min_width=120)

    def refresh(ref: str) -> list[Any]:
        names = list(dict.fromkeys(adapter.name for adapter in studio.adapters.list()))
        wanted, _, version = ref.partition("@v")
        name = wanted if wanted in names else names[0] if names else ""
        return [
            heading(studio.adapters.list(name)) if name else head("Adapters"),
            gr.Dropdown(choices=names, value=name or None, visible=len(names) > 1),
            ""
            if wanted in ("", name)
            else problem(NotFound(f"There is no adapter {ref}.", "It was deleted."), "Not found"),
            gr.update(visible=not names),
            (
                name,
                10_000 if version and wanted == name else FIRST,
                state(name) if name else "",
            ),
        ]

    outputs = [title, pick, said, empty, shown]
    train.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    pick.input(lambda name: name, pick, item, **QUIET)

    shown.change(
        edge(lambda now: heading(studio.adapters.list(now[0])) if now[0] else gr.skip()), shown, title, **QUIET
    )

    @gr.render(inputs=shown, triggers=[shown.change], show_progress="hidden")
    def cards(now: tuple[str, int, str]) -> None:
        name, most, _ = now
        known = studio.adapters.list(name, archived=True) if name else []
        versions = [adapter for adapter in known if not adapter.archived]
        before = studio.versions.before(name) if name else None
        again = partial(drawn_anew, name)
        if name:
            around.room(studio, again, shown)
        for adapter in versions[:most]:
            card(adapter, versions, before)
        if len(versions) > most:
            words_older = f"Show {len(versions) - most} older"
            older = gr.Button(words_older, size="sm", elem_classes="back", scale=0, min_width=120)
            older.click(edge(lambda: (name, len(versions), state(name))), None, shown, **QUIET)
        if len(versions) > 1:
            around.side_by_side(studio, versions)
        if versions:
            measure.panel(studio, versions)
        if hidden := [adapter for adapter in known if adapter.archived]:
            around.archived(studio, hidden, again, shown)
        if name:
            around.rule(studio, name)

    def drawn_anew(name: str) -> tuple[str, int, str]:
        return name, FIRST, state(name)

    def state(name: str) -> str:
        """Return a text that changes when what is drawn would."""
        spare = studio.rooms.look().model_dump_json(exclude={"free_bytes"}) if studio.rooms.low else ""
        return spare + "".join(each.model_dump_json() for each in studio.adapters.list(name, archived=True))

    def card(adapter: Adapter, versions: list[Adapter], before: int | None) -> None:
        version = f"v{adapter.version}"
        active = next((other for other in versions if other.active), adapter)
        with gr.Column(elem_classes="card", key=adapter.ref):
            block(card_head(adapter))
            if adapter.metrics:
                block(report.intervals(adapter.metrics))
            with gr.Row(elem_classes="actions"):
                chat = gr.Button(
                    f"Chat with {version}",
                    variant="primary" if adapter.active else "secondary",
                    size="sm",
                    min_width=110,
                    scale=0,
                )
                act = f"Go back to {version}…" if adapter.version == before else "Make active…"
                choose = gr.Button(act, size="sm", min_width=100, scale=0, visible=not adapter.active)
                run = gr.Button("Open its run", size="sm", min_width=100, scale=0, visible=bool(adapter.run))
                out = gr.Button("Export…", size="sm", min_width=80, scale=0)
                many = gr.Button("Serve…", size="sm", min_width=80, scale=0)
                more = gr.Button("More…", size="sm", min_width=80, scale=0)
                alone = len(versions) == 1
                delete = gr.Button("Delete…", size="sm", min_width=80, scale=0, visible=alone or not adapter.active)
            chosen = confirm(
                choose,
                f"Make {adapter.name} {version} active?",
                f"Make {version} active",
                f"Keep v{active.version}",
                False,
            )
            export.panel(studio, adapter, out)
            serve.panel(studio, adapter, many)
            around.details(studio, adapter, more, partial(drawn_anew, adapter.name), shown)
            size = words.size(freed_by(studio.home, adapter))
            removed = confirm(delete, f"Delete {adapter.name} {version}?", f"Delete {version}, {size}", "Keep it")

        def activate() -> tuple[str, int, str]:
            studio.adapters.activate(adapter.ref)
            return drawn_anew(adapter.name)

        def remove() -> list[Any]:
            studio.adapters.remove(adapter.ref)
            return refresh(adapter.name if len(versions) > 1 else "")

        changes = [f"The name {adapter.name} alone stands for {version} from now on.", f"v{active.version} stays."]
        choose.click(edge(lambda: consequences(changes)), None, chosen.lines, **QUIET)
        delete.click(edge(lambda: consequences(around.losses(studio, adapter))), None, removed.lines, **QUIET)
        chat.click(edge(lambda: go("chat", adapter.ref)), None, shell.to("chat"), **QUIET)
        run.click(edge(lambda: go("runs", adapter.run)), None, shell.to("runs"), **QUIET)
        chosen.act.click(edge(activate), None, shown, **QUIET)
        removed.act.click(edge(remove), None, outputs, **QUIET)

    return Tab(refresh, outputs)


def heading(versions: list[Adapter]) -> str:
    """Return the name, the base model, and how many versions take how much room."""
    number = words.plural(len(versions), "version")
    size = words.size(sum(adapter.bytes for adapter in versions))
    return head(versions[0].name, f"Adapter for {words.model_name(versions[0].base)}. {number}, {size}.")


def card_head(adapter: Adapter) -> str:
    """Return a version's number, state, origin and verdict."""
    origin = [words.when(adapter.created)]
    if adapter.run:
        origin.append(words.run_title(adapter.run))
    if adapter.step is not None:
        origin.append(f"step {words.count(adapter.step)}")
    if adapter.method in METHODS:
        origin.append(METHODS[adapter.method].title)
    shown = html(
        """<div class="c-head"><b>v{{ version }}</b>{% if active %}<em class="live">Active</em>{% endif %}
{% for tag in tags %}<em>{{ tag }}</em>{% endfor %}
<span class="muted num">{{ origin }}</span></div>""",
        version=adapter.version,
        active=adapter.active,
        tags=adapter.tags,
        origin=" · ".join([*origin, words.size(adapter.bytes)]),
    )
    measured = report.verdict(adapter.metrics.get("verdict") or "Not measured: no rows were held out to compare on.")
    held = f"Not made active by itself. {adapter.held}" if adapter.held and not adapter.active else ""
    return shown + measured + muted(held) + export.badges(adapter) + muted(adapter.note)
