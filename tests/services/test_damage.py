"""Damage of texts: what is mended, what is left alone, and that mending twice is mending once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.services.damage import loops, mend_encoding, remove_marks

PARTS = st.lists(
    st.text(max_size=8)
    | st.sampled_from(["<|im_start|>", "user", "<|im_", "end|>", "<s>", "</s>", "[INST]", "[/INST]", "[IN", "ST]"])
    | st.sampled_from(["Ã©", "â€™", "é", "Ã", "Â£", "\u00a0", "<<SYS>>", "<start_of_turn>", "model"]),
    max_size=8,
).map("".join)


@pytest.mark.parametrize(
    ("broken", "meant"),
    [("cafÃ©", "café"), ("itâ€™s", "it’s"), ("Â£5 zurÃ¼ck", "£5 zurück"), ("naÃƒÂ¯ve", "naïve")],
)
def test_a_wrong_encoding_is_undone(broken: str, meant: str) -> None:
    assert mend_encoding(broken) == meant


@pytest.mark.parametrize("text", ["café", "it’s £5", "São Tomé", "日本語", "Ärger über Öl", "naïve 1€ ½", "Привет"])
def test_honest_accents_stay(text: str) -> None:
    assert mend_encoding(text) is text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<|im_start|>user\nHello<|im_end|>", "Hello"),
        ("<s>[INST] <<SYS>>Be brief.<</SYS>> Hi [/INST] Hello</s>", " Be brief. Hi  Hello"),
        ("<start_of_turn>model\nHello<end_of_turn>", "Hello"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>", "Hello"),
        ("done<|im_<|im_end|>end|>", "done"),
    ],
)
def test_marks_of_templates_are_taken_out(text: str, plain: str) -> None:
    assert remove_marks(text) == plain


@pytest.mark.parametrize(
    "text", ["a <| b |> c", "old <s>price</s> new", "x[INST", "if a<b and c>d", "Use the user and model tags."]
)
def test_what_only_looks_like_a_mark_stays(text: str) -> None:
    assert remove_marks(text) == text


@given(PARTS)
def test_mending_twice_is_mending_once(text: str) -> None:
    for mend in (mend_encoding, remove_marks):
        assert mend(mend(text)) == mend(text)


@pytest.mark.parametrize(
    "text",
    [
        "I am sorry. " * 12,
        "The capital is Paris. " + "It is the capital of France and " * 8,
        "word " * 40,
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "谢谢你" * 30,
    ],
)
def test_a_loop_is_seen(text: str) -> None:
    assert loops(text)


@pytest.mark.parametrize(
    "text",
    [
        "No, no, no, no!",
        "| a | b |\n| --- | --- |\n" + "| 1 | 2 |\n" * 20,
        "-" * 200,
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "He bought 3 apples and 3 pears, then 3 more apples and 3 more pears, so he has 6 apples and 6 pears in all.",
        " ".join(f"step {n}: add {n} and {n + 1}." for n in range(60)),
    ],
)
def test_a_table_or_a_list_is_no_loop(text: str) -> None:
    assert not loops(text)
