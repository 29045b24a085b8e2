"""The mask, token by token, and packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.errors import DataError
from studio.engine import tokens
from tests.engine.conftest import STARTER_TEMPLATE, make_tokenizer, talk

# Qwen2.5's way: the default instruction stands first, every turn ends with <|im_end|>\n
DEFAULT_SYSTEM = STARTER_TEMPLATE.replace("helpful AI assistant named SmolLM, trained by Hugging Face", "careful clerk")
# No terminator after an answer, as some base models' templates have it
NO_TERMINATOR = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
# Earlier answers are rendered differently once another turn follows, as Qwen3 drops its thinking
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWO_TURNS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "With the courier."},
        {"role": "user", "content": "And when will it arrive?"},
        {"role": "assistant", "content": "Tomorrow, blue sky."},
    ]
}


def parts(template, example):
    """Return the text that is trained and the text that is not, decoded token by token."""
    tokenizer = make_tokenizer(template)
    (row,) = tokens.encode(tokenizer, [example])
    pieces = [(tokenizer.decode([token]), bool(trained)) for token, trained in zip(row.ids, row.trained, strict=True)]
    joined: list[tuple[str, bool]] = []
    for text, trained in pieces:
        if joined and joined[-1][1] == trained:
            joined[-1] = (joined[-1][0] + text, trained)
        else:
            joined.append((text, trained))
    return joined


def test_only_the_answer_and_its_terminator_are_trained_with_the_starters_template():
    assert parts(STARTER_TEMPLATE, talk("What is the colour?", "The sky is blue.")) == [
        (
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nWhat is the colour?<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        ("The sky is blue.<|im_end|>", True),
        ("\n", False),
    ]


def test_every_answer_of_a_conversation_is_trained():
    assert [text for text, trained in parts(STARTER_TEMPLATE, TWO_TURNS) if trained] == [
        "With the courier.<|im_end|>",
        "Tomorrow, blue sky.<|im_end|>",
    ]


def test_a_default_instruction_is_never_trained():
    found = parts(DEFAULT_SYSTEM, talk("Where?", "There."))
    assert found[0] == (
        "<|im_start|>system\nYou are a careful clerk<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n",
        False,
    )
    assert found[1] == ("There.<|im_end|>", True)


def test_a_terminator_is_added_where_the_template_has_none():
    assert parts(NO_TERMINATOR, talk("Where?", "There."))[-1] == ("There.\n<|im_end|>", True)


def test_a_template_that_rewrites_early_answers_trains_the_last_one():
    trained = [text for text, on in parts(THINKING, TWO_TURNS) if on]
    assert trained == ["<think></think>Tomorrow, blue sky.<|im_end|>"]


def test_a_model_without_a_template_gets_the_plain_one():
    tokenizer = make_tokenizer(None)
    assert tokens.template_of(tokenizer) == tokens.PLAIN_TEMPLATE
    (row,) = tokens.encode(tokenizer, [talk("Where?", "There.")])
    assert tokenizer.decode(row.ids[row.trained]) == " There.<|im_end|>"


def test_plain_text_is_trained_whole_and_ended():
    tokenizer = make_tokenizer()
    (row,) = tokens.encode(tokenizer, [{"text": "The sky is blue."}])
    assert row.trained.all()
    assert tokenizer.decode(row.ids) == "The sky is blue.<|im_end|>"


def test_labels_are_the_next_token_where_it_is_trained():
    row = tokens.Row(np.array([5, 6, 7, 8], np.int32), np.array([False, False, True, True]))
    assert tokens.labels_of(row).tolist() == [-100, 7, 8, -100]


def test_a_refused_conversation_names_its_roles():
    refusing = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(DataError, match=r"refuses a conversation of user, assistant: Roles must alternate"):
        tokens.encode(make_tokenizer(refusing), [talk("a", "b")])


def row_of(length, source=0):
    return tokens.Row(np.arange(length, dtype=np.int32), np.ones(length, bool), source)


def test_rows_over_the_limit_ask_drop_or_split():
    rows = [row_of(5, 1), row_of(25, 2)]
    with pytest.raises(DataError, match=r"1 examples are longer than 10 tokens \(rows 2\); 15 tokens"):
        tokens.fit(rows, 10, "ask")
    assert tokens.fit(rows, 10, "drop") == ([rows[0]], 1)
    split, longer = tokens.fit(rows, 10, "split")
    assert [len(row) for row in split] == [5, 10, 10, 5]
    assert longer == 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(8, 64))
def test_packing_keeps_every_row_once_and_fills_no_batch_over(lengths, size):
    rows = [row_of(length, index) for index, length in enumerate(lengths)]
    bins = tokens.pack(rows, size)
    assert sorted(row.source for group in bins for row in group) == list(range(len(rows)))
    assert all(sum(map(len, group)) <= size or len(group) == 1 for group in bins)
    # best fit leaves at most one batch half empty: two such would have been joined
    halves = [group for group in bins if sum(map(len, group)) <= size // 2]
    assert len(halves) <= 1
