"""Every field of a TrainingConfig has its control, made from the field alone."""

from typing import Any

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.methods import METHODS
from studio.ui import knobs

SCHEMA = knobs.fields()
TOP = {"name", "profile"}  # in no group
LEAST = {"model": {"id": "starter"}, "data": {"path": "x"}}


def every_field() -> set[str]:
    groups = {name: field.annotation for name, field in TrainingConfig.model_fields.items() if name not in TOP}
    return {f"{group}.{name}" for group, kind in groups.items() for name in kind.model_fields}


@pytest.fixture
def made() -> dict[str, knobs.Knob]:
    with gr.Blocks():
        return knobs.form(SCHEMA)[0]


def test_no_field_is_forgotten(made: dict[str, knobs.Knob]) -> None:
    assert set(made) | knobs.ELSEWHERE == every_field()


@pytest.mark.spec("U21.3")
def test_each_control_says_what_the_field_says(made: dict[str, knobs.Knob]) -> None:
    for key, knob in made.items():
        group, name = key.split(".")
        field = TrainingConfig.model_fields[group].annotation.model_fields[name]
        assert knob.control.label == field.title
        assert knob.control.info == field.description
        assert knob.control.interactive


def test_kinds_of_controls(made: dict[str, knobs.Knob]) -> None:
    assert isinstance(made["train.learning_rate"].control, gr.Number)
    method = made["method.name"].control
    assert [value for _, value in method.choices] == list(METHODS)
    assert [title for title, _ in method.choices] == [method.title for method in METHODS.values()]
    assert made["method.targets"].control.allow_custom_value


values: dict[str, st.SearchStrategy[Any]] = {
    "train.epochs": st.just("auto") | st.floats(0.1, 100),
    "train.seed": st.integers(0, 2**31 - 1),
    "train.recompute": st.sampled_from(["auto", "on", "off"]),
    "train.schedule": st.sampled_from(["cosine", "linear", "constant"]),
    "train.precision": st.sampled_from(["auto", "bf16", "fp32"]),
    "method.name": st.sampled_from([name for name in METHODS if name != "qlora" and "targets" in METHODS[name].knobs]),
    "method.targets": st.sampled_from(["all-linear", "attention", ["q_proj", "v_proj"], ["lm_head"]]),
    "evaluate.early_stopping": st.integers(0, 100),
}


@given(st.fixed_dictionaries({}, optional=values))
def test_a_document_survives_the_form(chosen: dict[str, Any]) -> None:
    defaults = {key: knobs.shown(field["default"], field) for key, field in SCHEMA.items()}
    filled = defaults | {key: knobs.shown(value, SCHEMA[key]) for key, value in chosen.items()}
    document = knobs.document(SCHEMA, {"shown": defaults, "changed": []}, filled)
    merged = TrainingConfig.model_validate({**LEAST, **document, "model": LEAST["model"], "data": LEAST["data"]})
    for key, value in chosen.items():
        group, name = key.split(".")
        assert getattr(getattr(merged, group), name) == value
    said = {f"{group}.{name}" for group, its in document.items() for name in its}
    assert said <= set(chosen), "only what the user set is in it"


def test_what_was_changed_before_stays_the_users() -> None:
    memory = {"shown": {"method.rank": 32}, "changed": ["method.rank"]}
    assert knobs.document(SCHEMA, memory, {"method.rank": 32}) == {"method": {"rank": 32}}
    assert knobs.document(SCHEMA, memory | {"changed": []}, {"method.rank": 32}) == {}


def test_the_title_of_a_closed_group_holds_its_values(made: dict[str, knobs.Knob]) -> None:
    flat = {key: field["default"] for key, field in SCHEMA.items()} | {"method.alpha": 32}
    assert knobs.group_title("method", made, flat) == "The adapter: alpha 32, dropout 0, layers all-linear"


def test_a_value_the_user_set_is_marked_and_can_be_taken_back() -> None:
    marked = knobs.why("method.rank", "You set this. Recommended: 8.", "8")
    assert "changed" in marked
    assert '<button class="instead" data-id="method.rank">Use 8</button>' in marked
    assert "<button" not in knobs.why("method.rank", "180 examples are few.")
