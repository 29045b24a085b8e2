"""The mask, token by token, and packing."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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
# Tools first, calls and results as JSON between tags, as Qwen and Hermes have them
TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"type": "function", "function": {"name": "sky", "arguments": {"hour": 9}}}
WITH_TOOLS = {
    "messages": [
        {"role": "user", "content": "What is the colour?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "blue"},
        {"role": "assistant", "content": "The sky is blue."},
    ],
    "tools": [{"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}],
}
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


def test_calls_of_tools_are_trained_and_tools_and_results_are_not():
    trained = [text for text, learned in parts(TOOLS, WITH_TOOLS) if learned]
    assert trained == [
        '<tool_call>{"name": "sky", "arguments": {"hour": 9}}</tool_call><|im_end|>',
        "The sky is blue.<|im_end|>",
    ]
    tokenizer = make_tokenizer(TOOLS)
    prompt = tokens.question(tokenizer, WITH_TOOLS)
    assert prompt.startswith('<|im_start|>system\n[{"type": "function"')
    assert prompt.endswith("<|im_start|>tool\nblue<|im_end|>\n<|im_start|>assistant\n")
    together = tokens.encode(tokenizer, [talk("a", "b"), WITH_TOOLS, talk("c", "d")])
    assert [len(row) for row in together] == [
        len(tokens.encode(tokenizer, [each])[0]) for each in (talk("a", "b"), WITH_TOOLS, talk("c", "d"))
    ]


@pytest.mark.parametrize("left", ["tools", "tool calls"])
def test_a_template_that_leaves_tools_out_is_refused(left):
    example = WITH_TOOLS if left == "tools" else {"messages": WITH_TOOLS["messages"]}
    with pytest.raises(DataError, match=f"leaves out {left}") as refused:
        parts(STARTER_TEMPLATE, example)
    assert "whose template knows tools" in refused.value.hint


def test_an_answer_without_weight_is_read_and_not_trained():
    turns = [dict(turn) for turn in TWO_TURNS["messages"]]
    turns[2]["weight"] = 0
    assert [text for text, learned in parts(STARTER_TEMPLATE, {"messages": turns}) if learned] == [
        "Tomorrow, blue sky.<|im_end|>"
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


def test_a_refused_conversation_names_its_roles():
    refusing = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(DataError, match=r"refuses a conversation of user, assistant: Roles must alternate"):
        tokens.encode(make_tokenizer(refusing), [talk("a", "b")])


METASPACE = models.Unigram([("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in string.printable)], 0)


def marked():
    """A tokenizer that marks the beginning of every text, as SentencePiece does."""
    backend = Tokenizer(METASPACE)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="|")
    tokenizer.chat_template = NO_TERMINATOR
    return tokenizer


def test_prompt_and_answer_are_tokenised_apart_only_where_that_changes_nothing():
    assert tokens.splits(make_tokenizer())
    assert not tokens.splits(marked())
    example = talk("Where?", "There.")
    (row,) = tokens.encode(marked(), [example])
    text, _ = tokens.spans(marked(), example["messages"])
    assert row.ids.tolist() == marked()(text, add_special_tokens=False)["input_ids"]


@given(st.lists(st.text(string.ascii_letters + " .,\n?", min_size=1, max_size=30), min_size=2, max_size=2))
def test_both_ways_give_the_same_tokens(said):
    question, answer = said
    tokenizer = make_tokenizer()
    text, found = tokens.spans(tokenizer, talk(question, "A" + answer)["messages"])
    ((ids, trained),) = tokens._apart(tokenizer, [text], [found])
    ((whole, wanted),) = tokens._by_offsets(tokenizer, [text], [found])
    assert (ids.tolist(), trained.tolist()) == (whole.tolist(), wanted.tolist())


def write(path, examples):
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))


def test_the_second_start_tokenises_nothing(tmp_path, monkeypatch):
    path, tokenizer, counted = tmp_path / "train.jsonl", make_tokenizer(), []
    write(path, [talk(f"Thing {i}?", "Blue.", i) for i in range(5)])
    first = tokens.tokenise(tokenizer, path, STARTER_TEMPLATE, counted.append)
    assert counted == [5]
    monkeypatch.setattr(tokens, "encode", None)
    again = tokens.tokenise(tokenizer, path, STARTER_TEMPLATE)
    assert [row.ids.tolist() for row in again] == [row.ids.tolist() for row in first]
    assert [row.source for row in again] == [0, 1, 2, 3, 4]


def test_another_file_template_or_tokenizer_is_tokenised_anew(tmp_path):
    path, tokenizer = tmp_path / "train.jsonl", make_tokenizer()
    write(path, [talk("a", "b")])
    tokens.tokenise(tokenizer, path, STARTER_TEMPLATE)
    tokens.tokenise(tokenizer, path, NO_TERMINATOR)
    tokenizer.add_tokens(["sky"])
    tokens.tokenise(tokenizer, path, STARTER_TEMPLATE)
    write(path, [talk("a", "c")])
    tokens.tokenise(tokenizer, path, STARTER_TEMPLATE)
    assert len(list((tmp_path / "tokens").iterdir())) == 4
