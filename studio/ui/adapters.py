"""Adapters: the versions of one name, newest first, each with what was measured of it."""

from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.errors import NotFound
from studio.domain.methods import METHODS
from studio.domain.records import Adapter
from studio.studio import Studio
from studio.ui import export, report
from studio.ui.common import QUIET, Shell, Tab, confirm, consequences, edge, go, problem
from studio.ui.pieces import block, head, html

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
            (name, 10_000 if version and wanted == name else FIRST, state(studio.adapters.list(name)) if name else ""),
        ]

    outputs = [title, pick, said, empty, shown]
    train.click(lambda: go("train"), None, shell.to("train"), **QUIET)
    pick.input(lambda name: name, pick, item, **QUIET)

    @gr.render(inputs=shown, triggers=[shown.change], show_progress="hidden")
    def cards(now: tuple[str, int, str]) -> None:
        name, most, _ = now
        versions = studio.adapters.list(name) if name else []
        for adapter in versions[:most]:
            card(adapter, versions)
        if len(versions) > most:
            words_older = f"Show {len(versions) - most} older"
            older = gr.Button(words_older, size="sm", elem_classes="back", scale=0, min_width=120)
            older.click(edge(lambda: (name, len(versions), state(versions))), None, shown, **QUIET)

    def card(adapter: Adapter, versions: list[Adapter]) -> None:
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
                choose = gr.Button("Make active…", size="sm", min_width=100, scale=0, visible=not adapter.active)
                run = gr.Button("Open its run", size="sm", min_width=100, scale=0, visible=bool(adapter.run))
                out = gr.Button("Export…", size="sm", min_width=80, scale=0)
                delete = gr.Button("Delete…", size="sm", min_width=80, scale=0)
            chosen = confirm(
                choose,
                f"Make {adapter.name} {version} active?",
                f"Make {version} active",
                f"Keep v{active.version}",
                False,
            )
            export.panel(studio, adapter, out)
            size = words.size(adapter.bytes)
            removed = confirm(delete, f"Delete {adapter.name} {version}?", f"Delete {version}, {size}", "Keep it")

        def activate() -> tuple[str, int, str]:
            studio.adapters.activate(adapter.ref)
            return adapter.name, FIRST, state(studio.adapters.list(adapter.name))

        def remove() -> list[Any]:
            studio.adapters.remove(adapter.ref)
            return refresh(adapter.name if len(versions) > 1 else "")

        changes = [f"The name {adapter.name} alone stands for {version} from now on.", f"v{active.version} stays."]
        choose.click(edge(lambda: consequences(changes)), None, chosen.lines, **QUIET)
        delete.click(edge(lambda: consequences(losses(adapter, versions))), None, removed.lines, **QUIET)
        chat.click(edge(lambda: go("chat", adapter.ref)), None, shell.to("chat"), **QUIET)
        run.click(edge(lambda: go("runs", adapter.run)), None, shell.to("runs"), **QUIET)
        chosen.act.click(edge(activate), None, shown, **QUIET)
        removed.act.click(edge(remove), None, outputs, **QUIET)

    return Tab(refresh, outputs)


def state(versions: list[Adapter]) -> str:
    """Return a text that changes when a card would."""
    return "".join(each.model_dump_json() for each in versions)


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
    return html(
        """<div class="c-head"><b>v{{ version }}</b>{% if active %}<em class="live">Active</em>{% endif %}
<span class="muted num">{{ origin }}</span></div>""",
        version=adapter.version,
        active=adapter.active,
        origin=" · ".join([*origin, words.size(adapter.bytes)]),
    ) + report.verdict(adapter.metrics.get("verdict") or "Not measured: no rows were held out to compare on.")


def losses(adapter: Adapter, versions: list[Adapter]) -> list[str]:
    """Return what goes when a version is deleted."""
    lines = [f"{words.size(adapter.bytes)} of weights. Its run and what was measured there stay."]
    if adapter.active:
        others = [other.version for other in versions if other.version != adapter.version]
        lines.append(
            f"It is the active version; v{max(others)} takes its place." if others else "It is the only version."
        )
    return [*lines, "This cannot be undone."]
