"""Train, the first step: what the model is for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.profiles import PROFILES, Profile
from studio.domain.quote import Quote
from studio.studio import Studio
from studio.ui import knobs
from studio.ui.pieces import block, choices, definitions, rows, section
from studio.ui.train_plan import SCHEMA, Plan, Update, takes


@dataclass(frozen=True)
class Purpose:
    """The step's components."""

    listed: gr.HTML
    about: gr.HTML
    onward: gr.Button

    @property
    def outputs(self) -> list[Any]:
        return [self.listed, self.about]

    def draw(self, plan: Plan, studio: Studio) -> Update:
        needs = takes(studio, plan)
        suggested = plan.suggestion.profile if plan.suggestion else ""
        items = [
            {
                "id": each.name,
                "title": each.title,
                "state": "Suggested" if each.name == suggested else "",
                "tone": "live",
                "text": each.text,
                "meta": needed(needs[each.name]) if each.name in needs else [],
                "selected": each is plan.profile,
            }
            for each in PROFILES.values()
        ]
        return {self.listed: rows(items, "Purposes"), self.about: about(plan)}


def build() -> Purpose:
    """Lay out the step."""
    block(section("What should the model do?", "The settings follow from it. All of them can be changed later."))
    listed = choices()
    with gr.Row(elem_classes="actions nav"):
        onward = gr.Button("Continue", variant="primary", size="md")
    shown = block()
    return Purpose(listed, shown, onward)


def needed(quote: Quote) -> list[str]:
    """Say the time and the memory a purpose would take with the data that is chosen."""
    memory = words.size(quote.peak_memory_bytes)
    return [words.interval(quote.low, quote.high), memory if quote.fits else f"{memory}, too much here"]


def about(plan: Plan) -> str:
    """Say what the chosen purpose needs, an example of its data, and what it sets for which reason."""
    profile = plan.profile
    example = f"“{profile.asks}” → “{profile.answers}”" if profile.asks else f"“{profile.answers}”"
    what = [("Data it needs", profile.needs), ("For example", example)]
    if plan.suggestion and plan.suggestion.profile == profile.name:
        what.append(("Suggested", plan.suggestion.why))
    own = list(sets(profile))
    more = section("What it changes", "Everything else is as usual.") + definitions(own) if own else ""
    return section(profile.title) + definitions(what) + more


def sets(profile: Profile) -> Iterable[tuple[str, str]]:
    """Yield each setting a purpose changes: its title; its value and the reason."""
    for key, (value, why) in profile.settings.items():
        yield SCHEMA[key]["title"], f"{knobs.label(key, value)}. {why}"
    for key, (factor, why) in profile.times.items():
        yield SCHEMA[key]["title"], f"{factor:g} times the usual: {why}"
