"""The form of a TrainingConfig: a control for each field, made from the field, with its reason beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr

from studio.domain.config import TrainingConfig
from studio.domain.methods import METHODS
from studio.ui.pieces import choices, html

# Said elsewhere: on the page itself, or when the data was added.
ELSEWHERE = {"model.id", "model.revision", "data.path", "data.format", "data.map", "data.eval_fraction"} | {
    "data.skip_bad_rows",
    "data.repairs",
}
ESSENTIAL = ("method.name", "train.epochs", "train.learning_rate", "method.rank", "data.max_length")
AUTO, EMPTY = "auto", "Chosen at the start"
IN_TITLE = 3  # values named in the title of a closed group


@dataclass(frozen=True)
class Knob:
    """One field: `key` is group.field, `control` its component, `reason` the text beside it."""

    key: str
    title: str
    control: Any
    reason: gr.HTML


@cache
def groups() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each group of the document."""
    schema = TrainingConfig.model_json_schema()
    places = {name: field["$ref"].split("/")[-1] for name, field in schema["properties"].items() if "$ref" in field}
    return {name: schema["$defs"][place] for name, place in places.items()}


def fields() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every field that has a control, by key, in the order of the document."""
    found = {f"{group}.{name}": field for group, its in groups().items() for name, field in its["properties"].items()}
    return {key: field for key, field in found.items() if key not in ELSEWHERE}


def knob(key: str, field: Mapping[str, Any]) -> Knob:
    """Make the control of a field, its label and help left, the reason of its value right."""
    with gr.Row(elem_classes="knob"):
        control = _control(key, field)
        reason = choices(scale=1)
    return Knob(key, field["title"], control, reason)


def _control(key: str, field: Mapping[str, Any]) -> Any:
    said = {"label": field["title"], "info": field["description"], "interactive": True}
    if number := _number(field):
        whole = 0 if number == "integer" else None  # bounds are checked with the document, which words the error
        return gr.Number(shown(field["default"], field), precision=whole, placeholder=EMPTY, **said)
    if options := _options(field):
        named = [(label(key, value), value) for value in options]
        own = any("items" in kind for kind in _kinds(field))
        return gr.Dropdown(named, value=field["default"], allow_custom_value=own, **said)
    lines = 3 if field.get("type") == "array" else 1
    return gr.Textbox(shown(field["default"], field), lines=lines, **said)


def label(key: str, value: Any) -> str:
    """Return how a value is written on the page."""
    if key == "method.name":
        return METHODS[value].title
    if isinstance(value, float):
        return f"{value:.2g}"
    if isinstance(value, list):
        return ", ".join(value)
    return {AUTO: "automatic", "nf4": "NF4"}.get(value, str(value))


def shown(value: Any, field: Mapping[str, Any]) -> Any:
    """Return a document's value as its control shows it: an automatic number is empty, a list its entries."""
    if value == AUTO and _number(field):
        return None
    return _between(field).join(value) if isinstance(value, list) else value


def meant(value: Any, field: Mapping[str, Any]) -> Any:
    """Return what a control's value means in the document; the inverse of `shown`."""
    if value is None and AUTO in _options(field):
        return AUTO
    if any("items" in kind for kind in _kinds(field)) and value not in _options(field):
        return [part.strip() for part in str(value).split(_between(field).strip(" ")) if part.strip()]
    return value


def _between(field: Mapping[str, Any]) -> str:
    """Return what parts the entries of a list: names stand in one line, whole sentences in one each."""
    return "\n" if field.get("type") == "array" else ", "


def _kinds(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives of a field; most have one."""
    return field.get("anyOf", [field])


def _options(field: Mapping[str, Any]) -> list[Any]:
    return [value for kind in _kinds(field) for value in kind.get("enum", [kind["const"]] if "const" in kind else [])]


def _number(field: Mapping[str, Any]) -> str:
    """Return integer, number or nothing."""
    return next((kind["type"] for kind in _kinds(field) if kind.get("type") in ("integer", "number")), "")


def form(schema: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Knob], dict[str, gr.Accordion]]:
    """Lay out all controls: the essential ones open, the others in a closed group each."""
    with gr.Column(elem_classes="list"):
        made = {key: knob(key, schema[key]) for key in ESSENTIAL}
    closed = {}
    for group, its in groups().items():
        rest = [key for key in schema if key.startswith(f"{group}.") and key not in made]
        if rest:
            with gr.Accordion(its["description"], open=False) as closed[group], gr.Column(elem_classes="list"):
                made |= {key: knob(key, schema[key]) for key in rest}
    return made, closed


def document(
    schema: Mapping[str, Mapping[str, Any]], memory: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the user's own values as a document. `memory` = what was shown last, and what was changed before."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key in memory["changed"] or value != memory["shown"].get(key, value):
            group, name = key.split(".")
            result.setdefault(group, {})[name] = meant(value, schema[key])
    return result


def group_title(group: str, made: Mapping[str, Knob], values: Mapping[str, Any]) -> str:
    """Return the title of a closed group: what it is about, and its first values."""
    inside = [knob for key, knob in made.items() if key.startswith(f"{group}.") and key not in ESSENTIAL]
    named = {knob.title.split(",")[0]: label(knob.key, values[knob.key]) for knob in inside[:IN_TITLE]}
    said = [f"{title[0].lower()}{title[1:]} {value}" for title, value in named.items()]
    return f"{groups()[group]['description'].rstrip('.')}: {', '.join(said)}"


def why(key: str, reason: str, offer: str = "") -> str:
    """Return the text beside a control; one the user changed is marked, with a button that takes up the offer."""
    return html(
        """<p class="reason {{ 'changed' if offer }}">{{ reason | explained }}</p>
{% if offer %}<button class="instead" data-id="{{ key }}">Use {{ offer }}</button>{% endif %}""",
        key=key,
        reason=reason,
        offer=offer,
    )
