"""The lanes: what each is sent, and that a model's words stay words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.events import Phase
from studio.domain.records import Model
from studio.services.chat import Done
from studio.ui import lanes

BASE = lanes.bare(Model(id="starter", path="/m", source="package"))


def turn(asked: str, **answers: str) -> lanes.Turn:
    by = {"base": BASE, "desk": "desk@v1"}
    said: dict[str, Any] = {by[who]: {"text": text, "figures": "", "over": True} for who, text in answers.items()}
    return {"asked": asked, "answers": said}


def test_a_choice_is_a_base_or_an_adapter() -> None:
    assert (BASE, lanes.worn(BASE), lanes.worn("desk@v1")) == ("SmolLM2-135M-Instruct (no adapter)", None, "desk@v1")
    assert lanes.name_of("desk@v1") == "desk v1"


def test_each_is_sent_its_own_side_of_the_conversation() -> None:
    history = [turn("one", base="b1", desk="d1"), turn("two", base="b2"), turn("three")]
    assert lanes.spoken("desk@v1", history, "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "d1"},
        {"role": "user", "content": "three"},
    ]
    assert [message["content"] for message in lanes.spoken(BASE, history)] == ["one", "b1", "two", "b2", "three"]


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "<script>1</script>", "${7*7} {{7*7}}", "![x](http://a.b/c)"]
)
def test_what_a_model_writes_is_text(text: str) -> None:
    shown = lanes.talk("desk@v1", [turn(text, desk=text)])
    for tag in ("<img", "<script", "<a "):
        assert tag not in shown
    assert "49" not in shown


@given(st.text())
def test_no_text_breaks_out_of_its_paragraph(text: str) -> None:
    plain, shown = (lanes.talk("desk@v1", [turn("a", desk=said)]) for said in ("b", text))
    assert (shown.count("<"), shown.count(">")) == (plain.count("<"), plain.count(">"))


def test_an_answer_without_a_word_says_so() -> None:
    assert "It ended without a word." in lanes.talk("desk@v1", [turn("a", desk="")])


def test_loading_names_the_model_not_its_folder() -> None:
    phase = Phase(words="Loading 0f3a", done=2.1e9, total=8e9, unit="bytes")
    assert lanes.waiting_for(phase, "Qwen3-4B") == "Loading Qwen3-4B, 2.1 GB of 8.0 GB"
    assert lanes.waiting_for(Phase(words="Waiting for the answer before this one"), "x").startswith("Waiting")


def test_the_figures_of_an_answer() -> None:
    done = Done(tokens=40, tokens_per_second=38.2, first_token_seconds=0.41, swap_seconds=0.0124, stopped=True)
    assert lanes.figures(done) == "first word 0.4 s · 38 tokens/s · swap 12 ms · stopped"
    assert lanes.figures(Done()) == ""
