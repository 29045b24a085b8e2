"""Repairs: clean rows stay the same object, repaired rows need no second repair, turns are put in order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.errors import DataError
from studio.services.formats import Problem
from studio.services.repair import NAMES, NEED_BOUND, Repairs, settle
from studio.services.structures import Layout

PAIRS = Layout("question-answer", "", ["id", "q", "a"], {"prompt": "q", "response": "a"})
CHATS = Layout("messages", "", ["messages"], {"messages": "messages"})
PLAIN = [name for name in NAMES if name not in NEED_BOUND]
ALL = [*PLAIN, "over-length:100", "length-outliers:300", "languages:en", "label-imbalance:2"]
DIRTY = [
    "cafÃ©",
    "<|im_end|>",
    "<|im_",
    "end|>",
    "a@acme.com",
    "4111 1111 1111 1111",
    "N/A",
    "\ufffd",
    "so " * 30,
    "ok",
]
TEXT = st.lists(st.text(max_size=10) | st.sampled_from(DIRTY), max_size=4).map("".join)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "human"]), "content": TEXT})


def repaired(rows: list[Any], layout: Layout, names: list[str] = ALL) -> list[Any]:
    repairs = Repairs(names, layout)
    read = [repairs.read(number, row) for number, row in enumerate(rows, 1)]
    return [row for row, outcome in read if not isinstance(outcome, str)]


@given(st.lists(st.fixed_dictionaries({"id": TEXT, "q": TEXT, "a": TEXT}), max_size=5))
def test_a_repaired_table_needs_no_second_repair(rows: list[dict[str, str]]) -> None:
    once = repaired(rows, PAIRS)
    assert repaired(once, PAIRS) == once
    kept = {row["id"] for row in rows}
    assert all(row["id"] in kept for row in once), "a column that is not learned from is never touched"


@given(st.lists(st.lists(TURN, max_size=5), max_size=4), st.booleans())
def test_nor_do_repaired_conversations(rows: list[list[dict[str, str]]], in_a_table: bool) -> None:
    once = repaired([{"messages": json.dumps(row) if in_a_table else row} for row in rows], CHATS)
    assert repaired(once, CHATS) == once


@given(st.sampled_from(NAMES), st.integers(0, 10**6))
def test_a_clean_row_stays_the_same_object(name: str, number: int) -> None:
    bound = {"languages": ":en"}.get(name, ":900" if name in NEED_BOUND else "")
    row = {"id": "cafÃ©", "q": f"What is {number} in words?", "a": f"It is number {number}, “said” plainly, for £5."}
    after, outcome = Repairs([name + bound], PAIRS).read(1, row)
    assert after is row
    assert isinstance(outcome, dict)


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": text} for role, text in pairs]


def test_turns_are_put_in_order() -> None:
    row = {
        "messages": turns(
            ("gpt", "Welcome."), ("human", "Hi."), ("human", "Where is it?"), ("system", "Be brief."), ("gpt", "Here."),
            ("human", "Thanks."),
        )
    }  # fmt: skip
    layout = Layout("sharegpt", "", ["messages"], {"messages": "messages"})
    repairs = Repairs(["role-order"], layout)
    after, outcome = repairs.read(1, row)
    assert after == {"messages": turns(("system", "Be brief."), ("human", "Hi.\n\nWhere is it?"), ("gpt", "Here."))}
    assert isinstance(outcome, dict)
    assert repairs.changed == {"role-order": 1}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hi."}],
        [
            {"role": "user", "content": "Who?"},
            {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "Ann"},
            {"role": "assistant", "content": "Ann."},
            {"role": "user", "content": "Thanks."},
        ],
        [{"role": "wizard", "content": "x"}],
        "no turns",
        [1, 2],
        None,
    ],
)
def test_what_order_cannot_mend_stays_a_problem(messages: Any) -> None:
    row = {"messages": messages}
    after, outcome = Repairs(["role-order"], CHATS).read(1, row)
    assert after is row
    assert isinstance(outcome, Problem)


def test_a_wrong_name_is_refused_with_the_right_ones() -> None:
    with pytest.raises(DataError, match="There is no repair `spelling`"):
        settle(["spelling"], [])
    assert settle(["encoding", "over-length", "over-length:90"], []) == ["encoding", "over-length:90"]
    for wrong in ("over-length:many", "encoding:8"):
        with pytest.raises(DataError, match="is no repair"):
            settle([wrong], [])


def test_frequent_labels_keep_their_first_rows() -> None:
    rows = [{"id": str(n), "q": f"Ticket {n}", "a": "fraud" if n == 7 else "refund"} for n in range(10)]
    kept = repaired(rows, PAIRS, ["label-imbalance:3"])
    assert [row["id"] for row in kept] == ["0", "1", "2", "7"]
