"""Recognising structures: which columns hold what, by their names and by the shape of their first values."""

from collections.abc import Callable
from typing import Any

from studio.services.names import (
    ASIDE,
    CHOSEN,
    CONTEXTS,
    LABEL_NAMES,
    LABELS,
    PROMPTS,
    REJECTED,
    RESPONSES,
    SENTENCES,
    TEXTS,
    VERDICTS,
    key,
    named,
)
from studio.services.turns import CONTENT_KEYS, ROLE_KEYS, is_turn, turn_list

RowValue = dict[str, Any] | str
Map = dict[str, str]
Matcher = Callable[[list[str], list[RowValue]], Map]
TRUE, FALSE = {"true", "1", "1.0", "yes", "good", "desirable"}, {"false", "0", "0.0", "no", "bad", "undesirable"}
LONGEST_LABEL = 80  # characters


def values(rows: list[RowValue], column: str) -> list[Any]:
    """Return the values a column has in these rows, without the empty ones."""
    return [row[column] for row in rows if isinstance(row, dict) and row.get(column) not in (None, "")]


def verdict(value: Any) -> bool | None:
    """Return whether a label calls an answer good, or None when it does not say."""
    word = str(value).strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def _preference(columns: list[str], rows: list[RowValue]) -> Map:
    chosen, rejected = named(columns, CHOSEN), named(columns, REJECTED)
    if len(chosen) != 1 or len(rejected) != 1:
        return {}
    asked = _asked(columns) or _talk(columns, rows)
    return {**asked, "response": chosen[0], "rejected": rejected[0], **_system(columns), **_tools(columns)}


def _feedback(columns: list[str], rows: list[RowValue]) -> Map:
    labels = named(columns, VERDICTS)
    if len(labels) != 1 or not (seen := values(rows, labels[0])) or any(verdict(value) is None for value in seen):
        return {}
    found = _pair(PROMPTS)(columns, rows) or _talk(columns, rows)
    return {**found, "label": labels[0]} if found else {}


def _conversation(roles: tuple[str, ...], contents: tuple[str, ...], usual: str) -> Matcher:
    """Match the one column of turns with these keys, or the usual one of several."""

    def match(columns: list[str], rows: list[RowValue]) -> Map:
        found = []
        for column in columns:
            turns = next((turn_list(value) for value in values(rows, column)), None)
            if turns and is_turn(turns[0]) and _has(turns[0], roles) and _has(turns[0], contents):
                found.append(column)
        chosen = found if len(found) == 1 else named(found, {usual})
        return {"messages": chosen[0], **_system(columns), **_tools(columns)} if chosen else {}

    return match


def _has(turn: dict[str, Any], keys: tuple[str, ...]) -> bool:
    return any(key in turn for key in keys)


def _alpaca(columns: list[str], rows: list[RowValue]) -> Map:
    asked, responses = _asked(columns), named(columns, RESPONSES)
    if not asked or key(asked["prompt"]) != "instruction" or len(responses) != 1:
        return {}
    return {**asked, "response": responses[0], **_system(columns), **_one("history", named(columns, {"history"}))}


def _pair(prompts: set[str]) -> Matcher:
    def match(columns: list[str], rows: list[RowValue]) -> Map:
        asked, answered = _asked(columns), named(columns, RESPONSES)
        if not asked or len(answered) != 1 or key(asked["prompt"]) not in prompts:
            return {}  # two questions or two answers: the user must say which
        found = {**asked, "response": answered[0], **_system(columns), **_tools(columns)}
        return found | _one("history", named(columns, {"history"}))

    return match


def _classification(columns: list[str], rows: list[RowValue]) -> Map:
    """Match one text and one label that has few and short values; numbers without names must be asked about."""
    texts, labels, names = named(columns, SENTENCES), named(columns, LABELS), named(columns, LABEL_NAMES)
    labels = names or labels
    if len(texts) != 1 or len(labels) != 1:
        return {}
    seen = [str(value) for value in values(rows, labels[0])]
    short = all(len(value) <= LONGEST_LABEL for value in seen)
    numbers = all(value.strip().lstrip("+-").replace(".", "", 1).isdigit() for value in seen)
    few = len(set(seen)) <= max(20, len(seen) // 2)
    return {"prompt": texts[0], "response": labels[0]} if seen and short and few and not numbers else {}


def _text(columns: list[str], rows: list[RowValue]) -> Map:
    texts = named(columns, TEXTS)
    rest = [column for column in columns if column not in texts and key(column) not in ASIDE]
    return {"text": texts[0]} if len(texts) == 1 and not rest else {}


def _asked(columns: list[str]) -> Map:
    """Return the one column that asks, with what it is asked about: instruction and input, question and context."""
    asked, about = named(columns, PROMPTS), named(columns, CONTEXTS)
    instructions = named(asked, {"instruction"})
    if len(instructions) == 1:
        asked, about = instructions, [*about, *named(columns, {"input"})]
    if len(asked) != 1 or len(about) > 1:
        return {}
    return {"prompt": asked[0], **_one("input", about)}


def _talk(columns: list[str], rows: list[RowValue]) -> Map:
    """Return the column of turns that come before an answer, of whatever spelling."""
    rest = [column for column in columns if key(column) not in CHOSEN | REJECTED]
    return _conversation(ROLE_KEYS, CONTENT_KEYS, "conversations")(rest, rows)


def _system(columns: list[str]) -> Map:
    return _one("system", named(columns, {"system"}))


def _tools(columns: list[str]) -> Map:
    return _one("tools", named(columns, {"tools", "functions"}))


def _one(meaning: str, columns: list[str]) -> Map:
    return {meaning: columns[0]} if columns else {}


STRUCTURES: dict[str, Matcher] = {
    "preference": _preference,
    "feedback": _feedback,
    "messages": _conversation(("role",), ("content", "tool_calls", "function_call"), "messages"),
    "sharegpt": _conversation(ROLE_KEYS, CONTENT_KEYS, "conversations"),
    "alpaca": _alpaca,
    "prompt-completion": _pair({"prompt"}),
    "question-answer": _pair(PROMPTS - {"prompt", "instruction"}),
    "classification": _classification,
    "text": _text,
}
WHY = {
    "preference": "Preference pairs: {response} is the better answer of each row, {rejected} the worse.",
    "feedback": "Answers with a verdict: {label} says which are good.",
    "messages": "Conversations: each row has a list of turns in {messages}, with role and content.",
    "sharegpt": "Conversations: each row has a list of turns in {messages}, with from and value or the like.",
    "alpaca": "Instructions: each row has an instruction in {prompt} and the answer in {response}.",
    "prompt-completion": "Prompts and completions, one a row: {prompt} is answered by {response}.",
    "question-answer": "Questions and answers, one a row: {prompt} is answered by {response}.",
    "classification": "Texts with a label, one a row: {prompt} is to be answered by {response}.",
    "text": "Texts: each row has one in {text}.",
}
# What is worth knowing about a structure before it is trained on.
NOTES = {
    "preference": "These are preference pairs. Today the studio learns from the better answers alone; the worse are "
    "not used.",
    "feedback": "These are answers with a verdict. Today the studio learns from the good ones alone: leave the others "
    "out.",
}
