"""Structures: names that tell are detected with a reason, others need a map; rows become examples or problems."""

import pickle
from typing import Any

import pytest

from studio.domain.errors import DataError, NeedsMapping
from studio.services.formats import Problem
from studio.services.structures import convert, detect, samples

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def row(*columns: str) -> dict[str, Any]:
    return {column: f"some {column}" for column in columns}


@pytest.mark.spec("U24.2")
@pytest.mark.parametrize(
    ("first", "format", "map"),
    [
        ({"messages": TURNS}, "messages", {"messages": "messages"}),
        ({"id": 1, "chat": TURNS}, "messages", {"messages": "chat"}),
        ({"messages": TURNS, "other": TURNS}, "messages", {"messages": "messages"}),
        ({"messages": '[{"role": "user", "content": "q"}]'}, "messages", {"messages": "messages"}),
        ({"conversations": SHARE}, "sharegpt", {"messages": "conversations"}),
        ({"conversations": SHARE, "system": "s"}, "sharegpt", {"messages": "conversations", "system": "system"}),
        (
            row("instruction", "input", "output", "text"),
            "alpaca",
            {"prompt": "instruction", "input": "input", "response": "output"},
        ),
        (row("Instruction", "Response"), "alpaca", {"prompt": "Instruction", "response": "Response"}),
        (row("prompt", "completion"), "prompt-completion", {"prompt": "prompt", "response": "completion"}),
        (row("prompt", "response"), "prompt-completion", {"prompt": "prompt", "response": "response"}),
        (row("id", "question", "answer"), "question-answer", {"prompt": "question", "response": "answer"}),
        (row("Q", "A"), "question-answer", {"prompt": "Q", "response": "A"}),
        (row("query", "response"), "question-answer", {"prompt": "query", "response": "response"}),
        (row("input", "output"), "question-answer", {"prompt": "input", "response": "output"}),
        (
            row("customer message", "agent-reply"),
            "question-answer",
            {"prompt": "customer message", "response": "agent-reply"},
        ),
        (
            row("system", "user", "assistant"),
            "question-answer",
            {"prompt": "user", "response": "assistant", "system": "system"},
        ),
        (row("text"), "text", {"text": "text"}),
        (row("id", "text", "url"), "text", {"text": "text"}),
    ],
)
def test_structures_are_detected_by_their_names(first: dict[str, Any], format: str, map: dict[str, str]) -> None:
    layout = detect([first])
    assert (layout.format, layout.map) == (format, map)
    assert all(f"`{column}`" in layout.why for meaning, column in map.items() if meaning not in ("system", "input"))


def test_columns_that_are_not_used_are_told() -> None:
    assert detect([row("id", "question", "answer")]).why.endswith("Not used: `id`.")


@pytest.mark.spec("U24.2")
@pytest.mark.parametrize(
    ("first", "suggestion"),
    [
        (row("text", "category"), {"prompt": "text", "response": "category"}),
        (row("ticket", "customer_text", "reply_text"), {"prompt": "customer_text", "response": "reply_text"}),
        (row("question", "answer", "response"), {"prompt": "question", "response": "answer"}),
        ({"prompt": "p", "chosen": TURNS, "rejected": TURNS}, {"prompt": "prompt", "response": "chosen"}),
        (row("id", "review"), {"prompt": "review", "response": "id"}),
        (row("review"), {"text": "review"}),
    ],
)
def test_other_columns_are_never_guessed(first: dict[str, Any], suggestion: dict[str, str]) -> None:
    with pytest.raises(NeedsMapping) as asked:
        detect([first])
    assert asked.value.columns == list(first)
    assert asked.value.suggestion == suggestion
    assert set(asked.value.samples) == set(first)
    for meaning, column in suggestion.items():
        assert f"--map {meaning}={column}" in asked.value.hint


def test_the_question_for_a_map_survives_another_process() -> None:
    with pytest.raises(NeedsMapping) as asked:
        detect([row("text", "category")])
    again = pickle.loads(pickle.dumps(asked.value))
    assert (str(again), again.columns, again.suggestion) == (
        str(asked.value),
        ["text", "category"],
        asked.value.suggestion,
    )


def test_a_map_has_the_last_word() -> None:
    first = row("question", "answer", "better answer", "mood")
    layout = detect([first], map={"prompt": "question", "response": "better answer", "system": "mood"})
    assert layout.format == "question-answer"
    assert convert(1, first, layout) == {
        "messages": [
            {"role": "system", "content": "some mood"},
            {"role": "user", "content": "some question"},
            {"role": "assistant", "content": "some better answer"},
        ]
    }
    assert convert(1, first, detect([first], map={"text": "mood"})) == {"text": "some mood"}
    chosen = {"prompt": "p", "chosen": TURNS, "rejected": TURNS}
    assert convert(1, chosen, detect([chosen], map={"messages": "chosen"})) == {"messages": TURNS}


@pytest.mark.parametrize(
    ("map", "said"),
    [
        ({"prompt": "nothing", "response": "answer"}, "no column `nothing`. The columns are `question` and `answer`."),
        ({"answer": "answer"}, "`answer` is no meaning"),
        ({"prompt": "question"}, "A map of prompt is not a structure"),
        ({"text": "question", "prompt": "answer"}, "A map of text and prompt"),
    ],
)
def test_a_wrong_map_is_refused_with_what_is_there(map: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as refused:
        detect([row("question", "answer")], map=map)
    assert said in str(refused.value)


def test_a_structure_may_be_demanded() -> None:
    both = row("instruction", "input", "output") | {"messages": TURNS}
    assert detect([both]).format == "messages"
    assert detect([both], "alpaca").format == "alpaca"
    with pytest.raises(NeedsMapping, match="do not look like sharegpt"):
        detect([both], "sharegpt")
    with pytest.raises(DataError, match="no structure `csv`"):
        detect([both], "csv")


def test_plain_rows_are_texts() -> None:
    layout = detect(["a", "b"])
    assert (layout.format, layout.kind, layout.map) == ("text", "text", {})
    assert convert(1, "One\r\ntwo", layout) == {"text": "One\ntwo"}
    with pytest.raises(DataError, match="without columns"):
        detect(["a"], map={"text": "text"})


def test_alpaca_puts_the_input_under_the_instruction() -> None:
    first = {"instruction": "Translate.", "input": "Hallo", "output": "Hello", "system": "Be brief."}
    layout = detect([first])
    assert convert(1, first, layout) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Translate.\n\nHallo"},
            {"role": "assistant", "content": "Hello"},
        ]
    }
    assert convert(2, first | {"input": "", "system": None}, layout) == {
        "messages": [{"role": "user", "content": "Translate."}, {"role": "assistant", "content": "Hello"}]
    }


def test_roles_of_other_formats_become_the_usual_ones() -> None:
    turns = [{"from": "system", "value": "s"}, *SHARE, *SHARE]
    assert convert(1, {"conversations": turns}, detect([{"conversations": turns}])) == {
        "messages": [{"role": "system", "content": "s"}, *TURNS, *TURNS]
    }


@pytest.mark.spec("U24.4")
@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "has no turns in `messages`."),
        (None, "has no turns in `messages`."),
        ("not a list", "has no turns in `messages`."),
        ("[broken", "has no turns in `messages`."),
        (["hello"], "has a turn without role and content (turn 1)."),
        (TURNS[:1], "ends without an answer."),
        ([{"role": "system", "content": "s"}], "ends without an answer."),
        (TURNS[1:], "has an answer without a question (turn 1)."),
        ([*TURNS, TURNS[1]], "has an answer without a question (turn 3)."),
        ([TURNS[0], *TURNS], "has a second question (turn 2)."),
        ([TURNS[0], {"role": "assistant", "content": " "}], "has an empty answer (turn 2)."),
        ([{"role": "user", "content": None}, TURNS[1]], "has an empty question (turn 1)."),
        ([*TURNS, {"role": "tool", "content": "4"}], "has a turn with the role `tool`, which is not known (turn 3)."),
        ([*TURNS, {"role": "system", "content": "s"}], "has a system text in the middle (turn 3)."),
        ([TURNS[0], {"role": "assistant", "content": [1]}], "has a list or object in turn 2 instead of text."),
    ],
)
def test_a_bad_conversation_is_named(turns: Any, said: str) -> None:
    problem = convert(7, {"messages": turns}, detect([{"messages": TURNS}]))
    assert isinstance(problem, Problem)
    assert problem.problem == f"Row 7 {said}"
    assert problem.remedy.endswith("leave the row out.")


@pytest.mark.spec("U24.4")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "has no `agent_reply`."),
        (" \n ", "has no `agent_reply`."),
        (None, "has no `agent_reply`."),
        ({"a": 1}, "has a list or object in `agent_reply` instead of text."),
        (b"\x00\x01", "has bytes in `agent_reply` instead of text."),
        (float("nan"), "holds nan in `agent_reply`, which is no number."),
        ("a\0b", "holds a NUL character in `agent_reply`."),
        ("a\udce9b", "holds bytes in `agent_reply` that are no text."),
        ("x" * (16 * 2**20 + 1), "has over 16 MB in `agent_reply`."),
    ],
)
def test_a_bad_value_is_named(value: Any, said: str) -> None:
    layout = detect([row("customer_message", "agent_reply")])
    problem = convert(41, {"customer_message": "q", "agent_reply": value}, layout)
    assert isinstance(problem, Problem)
    assert problem.problem == f"Row 41 {said}"
    assert "row out" in problem.remedy


def test_a_missing_column_is_a_missing_value() -> None:
    problem = convert(41, {"customer_message": "q"}, detect([row("customer_message", "agent_reply")]))
    assert problem == Problem(
        row=41, problem="Row 41 has no `agent_reply`.", remedy="Map another column or leave the row out."
    )


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (1.5, "1.5"), (True, "true"), ("  x\r\ny\r", "  x\ny\n")])
def test_plain_values_become_text(value: Any, text: str) -> None:
    example = convert(1, {"question": "q", "answer": value}, detect([row("question", "answer")]))
    assert isinstance(example, dict)
    assert example["messages"][-1]["content"] == text


def test_samples_are_the_first_filled_values_shortened() -> None:
    found = samples([{"a": "", "b": None}, {"a": "x" * 300, "b": [1], "c": 0}, {"a": "y", "c": "z"}])
    assert found == {"a": "x" * 119 + "…", "b": "[1]", "c": "0"}
