"""Structures: names that tell are detected with a reason, others need a map; rows become examples or problems."""

import json
import pickle
from decimal import Decimal
from typing import Any

import pytest

from studio.domain.errors import DataError, NeedsMapping
from studio.services.formats import Problem
from studio.services.structures import convert, detect, samples

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]

FUNCTION = {"name": "weather", "arguments": {"city": "Köln", "days": 2}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": FUNCTION}]}
SPELLED = FUNCTION | {"arguments": json.dumps(FUNCTION["arguments"])}
RESULT = {"role": "tool", "content": "rain"}
ANSWERED = [{"role": "user", "content": "q"}, CALL, RESULT, {"role": "assistant", "content": "a"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "required": ["city"]}}}


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
        (
            row("context", "question", "answer"),
            "question-answer",
            {"prompt": "question", "input": "context", "response": "answer"},
        ),
        (row("Frage", "Antwort"), "question-answer", {"prompt": "Frage", "response": "Antwort"}),
        (row("pregunta", "Respuesta"), "question-answer", {"prompt": "pregunta", "response": "Respuesta"}),
        (row("Question", "Réponse"), "question-answer", {"prompt": "Question", "response": "Réponse"}),
        (row("вопрос", "ответ"), "question-answer", {"prompt": "вопрос", "response": "ответ"}),
        (row("问题", "答案"), "question-answer", {"prompt": "问题", "response": "答案"}),
        (row("質問", "回答"), "question-answer", {"prompt": "質問", "response": "回答"}),
        (row("text", "category"), "classification", {"prompt": "text", "response": "category"}),
        (
            {"text": "fine", "label": 1, "label_text": "positive"},
            "classification",
            {"prompt": "text", "response": "label_text"},
        ),
        (
            row("prompt", "chosen", "rejected"),
            "preference",
            {"prompt": "prompt", "response": "chosen", "rejected": "rejected"},
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
        ({"text": "good", "label": 1}, {"prompt": "text", "response": "label"}),
        (row("ticket", "customer_text", "reply_text"), {"prompt": "customer_text", "response": "reply_text"}),
        (row("question", "answer", "response"), {"prompt": "question", "response": "answer"}),
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
        detect([row("subject", "reply")])
    again = pickle.loads(pickle.dumps(asked.value))
    assert (str(again), again.columns, again.suggestion) == (
        str(asked.value),
        ["subject", "reply"],
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
        detect([row("instruction", "output")], "sharegpt")
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
        (
            [*TURNS, {"role": "narrator", "content": "4"}],
            "has a turn with the role `narrator`, which is not known (turn 3).",
        ),
        ([*TURNS, {"role": "tool", "content": "4"}], "has the result of a tool that was not called (turn 3)."),
        ([TURNS[0], CALL, TURNS[0], TURNS[1]], "has a tool call without a result (turn 3)."),
        ([TURNS[0], CALL, RESULT, TURNS[0]], "has a question where the answer to a tool's result should be (turn 4)."),
        ([TURNS[0], CALL, RESULT], "ends without an answer."),
        (
            [TURNS[0], {"role": "assistant", "tool_calls": [{"id": "1"}]}],
            "has a tool call without a name and arguments (turn 2).",
        ),
        ([TURNS[0], TURNS[1] | {"weight": 0.5}], "has the weight 0.5, which is neither 0 nor 1 (turn 2)."),
        ([TURNS[0], TURNS[1] | {"weight": 0}], "has no answer to learn from: the weight of each is 0."),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}, TURNS[1]],
            "has a part that is no text but `image_url` (turn 1).",
        ),
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


# --- structures of other tools ------------------------------------------------------------------------------------


def examples(*rows: dict[str, Any]) -> list[Any]:
    layout = detect([*rows])
    return [convert(number, each, layout) for number, each in enumerate(rows, 1)]


@pytest.mark.parametrize(
    "first",
    [
        {"messages": ANSWERED, "tools": [TOOL]},
        {"messages": json.dumps(ANSWERED), "tools": json.dumps([TOOL])},
        {"messages": repr(ANSWERED), "tools": repr([TOOL])},
        {"messages": ANSWERED, "tools": [TOOL["function"]]},
        {
            "messages": [
                ANSWERED[0],
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": FUNCTION | {"arguments": json.dumps(FUNCTION["arguments"])}}],
                },
                RESULT | {"tool_call_id": None},
                ANSWERED[3] | {"tool_calls": None},
            ],
            "functions": [TOOL],
        },
        {
            "messages": [
                ANSWERED[0],
                {"role": "assistant", "function_call": FUNCTION},
                {"role": "function", "content": "rain"},
                ANSWERED[3],
            ],
            "tools": [TOOL],
        },
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(FUNCTION)},
                {"from": "observation", "value": "rain"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": json.dumps([TOOL["function"]]),
        },
    ],
)
def test_tools_of_every_spelling_become_the_same_example(first: dict[str, Any]) -> None:
    assert examples(first) == [{"messages": ANSWERED, "tools": [TOOL]}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"broken \ud800": 1}, "Row 1 holds bytes in a tool that are no text."),
        ({"huge": Decimal("1e999")}, "Row 1 holds a number out of range in a tool."),
        ({"raw": b"\x00"}, "Row 1 has bytes in a tool instead of text."),
    ],
)
def test_what_cannot_be_written_down_is_refused_in_tools_too(arguments: dict[str, Any], said: str) -> None:
    call = {"function": {"name": "weather", "arguments": arguments}}
    (problem,) = examples({"messages": [TURNS[0], {"role": "assistant", "tool_calls": [call]}]})
    assert problem.problem == said


def test_a_weight_of_nothing_keeps_an_answer_from_being_learned() -> None:
    turns = [*TURNS, *TURNS]
    turns[1] = turns[1] | {"weight": 0}
    turns[3] = turns[3] | {"weight": 1}
    assert examples({"messages": turns}) == [{"messages": [TURNS[0], TURNS[1] | {"weight": 0}, *TURNS]}]


def test_text_in_parts_is_put_together_and_other_keys_are_told() -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, TURNS[1] | {"reasoning_content": "hm"}]
    assert examples({"messages": turns}) == [{"messages": TURNS}]
    assert "Not used: `reasoning_content` of the turns." in detect([{"messages": turns}]).why


def test_history_comes_before_the_instruction() -> None:
    first = {"instruction": "q", "input": "", "output": "a", "history": [["q", "a"]]}
    assert examples(first, first | {"history": "[]"}) == [{"messages": [*TURNS, *TURNS]}, {"messages": TURNS}]
    (problem,) = examples(first | {"history": "earlier"})
    assert problem.problem == "Row 1 has a history in `history` that is no list of pairs of question and answer."


@pytest.mark.parametrize(
    "first",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": TURNS[1:]},
        {"prompt": "q", "chosen": TURNS, "rejected": TURNS},
        {"chosen": TURNS, "rejected": TURNS},
        {"chosen": json.dumps(TURNS), "rejected": json.dumps(TURNS)},
        {"conversations": SHARE[:1], "chosen": SHARE[1], "rejected": SHARE[1]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"chosen": "q a", "rejected": "q b"},
    ],
)
def test_preference_pairs_teach_the_better_answer_and_say_so(first: dict[str, Any]) -> None:
    layout = detect([first])
    assert layout.format == "preference"
    assert "better answers alone" in layout.notes[0]
    assert convert(1, first, layout) == {"messages": TURNS}


def test_preference_pairs_without_a_question_are_named() -> None:
    (problem,) = examples({"chosen": "yes", "rejected": "no"})
    assert problem.problem == "Row 1 has no question: `chosen` and `rejected` begin differently."


@pytest.mark.parametrize(("good", "bad"), [(True, False), ("True", "False"), (1, 0), ("1", "0")])
def test_answers_with_a_verdict_are_not_learned_when_bad(good: Any, bad: Any) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in (good, bad, None)]
    layout = detect(rows)
    assert layout.format == "feedback"
    assert "the good ones alone" in layout.notes[0]
    kept, refused, open_ = examples(*rows)
    assert kept == {"messages": TURNS}
    assert refused.problem == "Row 2 is an answer that `label` calls bad."
    assert refused.remedy == "Leave such rows out to learn from the good answers."
    assert open_.problem == "Row 3 has no verdict in `label`."


def test_labels_that_are_numbers_are_asked_about() -> None:
    with pytest.raises(NeedsMapping, match="`label` holds no names of labels"):
        detect([{"text": f"t{n}", "label": n % 3} for n in range(9)])


def test_answers_of_extractive_questions_are_read() -> None:
    first = {
        "id": "1",
        "title": "T",
        "context": "c",
        "question": "q",
        "answers": {"text": ["a", "an a"], "answer_start": [1]},
    }
    assert examples(first) == [{"messages": [{"role": "user", "content": "q\n\nc"}, TURNS[1]]}]
    (_, problem) = examples(first, first | {"answers": {"text": [], "answer_start": []}})
    assert problem.problem == "Row 2 has no `answers`."


def test_rows_that_are_turns_are_no_conversations() -> None:
    with pytest.raises(DataError, match="Each row is a turn of one conversation"):
        detect([*TURNS])


def test_how_sure_it_is_is_told() -> None:
    pairs = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(10)]
    assert detect(pairs).sure == "likely"
    assert "This is likely, by the names of the columns." in detect(pairs).why
    assert detect([{"messages": TURNS}]).sure == "certain"
    broken = detect([each | {"answer": ""} if n % 2 else each for n, each in enumerate(pairs)])
    assert broken.sure == "doubtful"
    assert "This is doubtful: 5 of the first 10 rows fit." in broken.why
    assert broken.notes == ["Only 5 of the first 10 rows fit this structure. Look at the columns."]
