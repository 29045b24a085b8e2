"""Repairs: what is done to a row, or which rows are left out, once the user chose so. The file itself stays as it is.

A repair is named by the finding it mends, some with a bound: `encoding`, `over-length:8192`, `languages:en`. Each does
nothing to a row that does not have the finding, and nothing the second time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from studio.domain.errors import DataError
from studio.domain.records import Finding
from studio.services import damage, private
from studio.services.formats import Problem
from studio.services.languages import language
from studio.services.near import Near
from studio.services.readers import too_deep
from studio.services.recognise import RowValue
from studio.services.seen import ENCODE, Seen, mark_of
from studio.services.structures import Layout, convert
from studio.services.turns import role_of, turn_list

Example = dict[str, Any]

# Repairs that change a text; what they leave as it is does not have the finding.
TEXTS: dict[str, Callable[[str], str]] = {
    "secrets": private.hide_secrets,
    "template-marks": damage.remove_marks,
    "encoding": damage.mend_encoding,
    "personal-data": private.hide_personal,
}
# What stands for an answer where there is none; words that may be a label, as none or unknown, are not among them.
BLANKS = {"n/a", "#n/a", "null", "nan", "undefined", "todo", "tbd", "...", "…", "-", "--", "[deleted]", "[removed]"}


def answers(example: Example) -> list[str]:
    """Return what the model would learn to write."""
    if "text" in example:
        return [example["text"]]
    return [turn["content"] for turn in example["messages"] if turn["role"] == "assistant"]


def texts(example: Example) -> list[str]:
    """Return every text of an example."""
    return [example["text"]] if "text" in example else [turn["content"] for turn in example["messages"]]


def tokens(example: Example) -> int:
    """Estimate how many tokens an example takes: about four bytes each, and a few for each turn."""
    each = texts(example)
    return sum(len(text) if text.isascii() else len(text.encode()) for text in each) // 4 + 5 * len(each)


def is_blank(example: Example) -> bool:
    return any(answer.strip().lower() in BLANKS for answer in answers(example))


def loses_characters(example: Example) -> bool:
    return any("\ufffd" in text for text in texts(example))


def is_looping(example: Example) -> bool:
    return any(damage.loops(answer) for answer in answers(example))


def characters(example: Example) -> int:
    return sum(len(text) for text in texts(example))


# Repairs that leave a row out for what it holds.
ROWS: dict[str, Callable[[Example], bool]] = {
    "empty-answer": is_blank,
    "looping-answer": is_looping,
    "lost-characters": loses_characters,
}
# The same, with the bound the check found.
BOUNDED: dict[str, Callable[[Example, str], bool]] = {
    "over-length": lambda example, bound: tokens(example) > int(bound),
    "length-outliers": lambda example, bound: characters(example) > int(bound),
    "languages": lambda example, bound: language("\n".join(answers(example))) not in ("", bound),
}
NEED_BOUND = (*BOUNDED, "label-imbalance")
NAMES = [*TEXTS, "role-order", *ROWS, "duplicates", "near-duplicates", "leakage", *NEED_BOUND]


def settle(kinds: Sequence[str], findings: Sequence[Finding]) -> list[str]:
    """Return the repairs of these kinds with the bounds the check found; one that needs a bound and has none is left.

    Raises DataError for a kind that no repair has.
    """
    found = {finding.kind: finding.repair for finding in findings}
    _must_be_known(kind for kind in kinds if not found.get(kind))
    return [found.get(kind) or kind for kind in kinds if found.get(kind) or kind not in (*NEED_BOUND, "leakage")]


def _must_be_known(names: Iterable[str]) -> None:
    for name in names:
        kind, _, bound = name.partition(":")
        if kind not in NAMES:
            raise DataError(f"There is no repair `{name}`.", f"Choose of {', '.join(NAMES)}.")
        if bound and kind != "languages" and not (kind in NEED_BOUND and bound.isdecimal()):
            raise DataError(
                f"`{name}` is no repair.", f"Write {kind}:NUMBER." if kind in NEED_BOUND else f"Write {kind}."
            )


class Repairs:
    """The repairs the user chose, for one reading of the file; `held` are the rows of a held-out file."""

    def __init__(
        self, names: Sequence[str], layout: Layout, first: Sequence[Example] = (), held: Near | None = None
    ) -> None:
        _must_be_known(names)
        bounds = dict(name.partition(":")[::2] for name in names)
        self.layout = layout
        self.changed: Counter[str] = Counter()  # rows, by repair
        self.left_out: Counter[str] = Counter()
        self._orders_turns = "role-order" in bounds
        self._texts = {kind: mend for kind, mend in TEXTS.items() if kind in bounds}
        self._leaves = {kind: test for kind, test in ROWS.items() if kind in bounds}
        self._bounds = {kind: bound for kind, bound in bounds.items() if kind in BOUNDED}
        self._most = int(bounds.get("label-imbalance") or 0)
        self._labels: Counter[str] = Counter()
        self._near = Near(first) if "near-duplicates" in bounds else None
        self._held = held if "leakage" in bounds else None
        self._seen = Seen() if "duplicates" in bounds else None

    def read(self, number: int, row: RowValue) -> tuple[RowValue, Example | Problem | str]:
        """Return the mended row, and its example, why it cannot be used, or the repair it is left out by."""
        for kind, mend in self._texts.items():
            after = mended(row, self.layout, mend)
            self.changed[kind] += after is not row
            row = after
        found = convert(number, row, self.layout)
        if isinstance(found, Problem) and self._orders_turns:
            after, found = in_order(number, row, self.layout, found)
            self.changed["role-order"] += after is not row
            row = after
        if isinstance(found, Problem):
            why = "empty-answer" if "empty-answer" in self._leaves and lacks_answer(row, self.layout) else ""
        else:
            why = self._leaving_out(number, found)
        if why:
            self.left_out[why] += 1
        return row, why or found

    def _leaving_out(self, number: int, example: Example) -> str:
        for kind, test in self._leaves.items():
            if test(example):
                return kind
        for kind, bound in self._bounds.items():
            if BOUNDED[kind](example, bound):
                return kind
        if self._held and self._held.find(example):
            return "leakage"
        if self._seen and not self._seen.add(mark_of(ENCODE(example))):
            return "duplicates"
        if self._near and self._near.add(example, number):
            return "near-duplicates"
        if self._most:  # last: what is left out for another reason does not count
            label = "\n".join(answers(example))
            self._labels[label] += 1
            return "label-imbalance" if self._labels[label] > self._most else ""
        return ""


def mended(row: RowValue, layout: Layout, mend: Callable[[str], str]) -> RowValue:
    """Return the row with each text that is learned from mended; the same object when there is nothing to mend."""
    if isinstance(row, str):
        return mend(row)
    changed = {}
    for column in layout.map.values():
        value = row.get(column)
        after = _mended(value, mend)
        if after != value:
            changed[column] = after
    return row | changed if changed else row


def _mended(value: Any, mend: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        if value.lstrip().startswith(("[{", "{")):  # turns, which a table holds as JSON text
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                return mend(value)
            after = inner if too_deep(inner) else _mended(inner, mend)
            return value if after == inner else ENCODE(after)
        return mend(value)
    if isinstance(value, list):
        return [_mended(each, mend) for each in value]
    if isinstance(value, dict):
        return {name: _mended(each, mend) for name, each in value.items()}
    return value


def lacks_answer(row: RowValue, layout: Layout) -> bool:
    """Tell whether a row that cannot be used has nothing where its answer should be."""
    if isinstance(row, str):
        return False
    if "response" in layout.map:
        value = row.get(layout.map["response"])
        return value is None or (isinstance(value, str) and not value.strip())
    turns = turn_list(row.get(layout.map.get("messages", ""))) or []
    return any(
        isinstance(turn, dict) and role_of(turn) == "assistant" and not str(turn.get(_place(turn)) or "").strip()
        for turn in turns
    )


def in_order(number: int, row: RowValue, layout: Layout, problem: Problem) -> tuple[RowValue, Example | Problem]:
    """Return the row with its turns in the usual order and its example, or as it is when that does not help.

    Neighbours of one role become one turn, an answer before the first question and a question after the last answer
    are left out, and instructions come first.
    """
    column = layout.map.get("messages", "")
    turns = turn_list(row.get(column)) if isinstance(row, dict) else None
    if isinstance(row, str) or not turns or not all(isinstance(turn, dict) and _is_said(turn) for turn in turns):
        return row, problem
    ordered: list[dict[str, Any]] = []
    for turn in sorted(turns, key=lambda turn: role_of(turn) != "system"):
        place = _place(turn)
        if not isinstance(turn.get(place), str) or not turn[place].strip():
            continue
        if ordered and role_of(ordered[-1]) == role_of(turn):
            ordered[-1] = ordered[-1] | {place: f"{ordered[-1][_place(ordered[-1])]}\n\n{turn[place]}"}
        elif role_of(turn) != "assistant" or (ordered and role_of(ordered[-1]) == "user"):
            ordered.append(turn)
    while ordered and role_of(ordered[-1]) != "assistant":
        ordered.pop()
    after = row | {column: ENCODE(ordered) if isinstance(row[column], str) else ordered}
    example = convert(number, after, layout)
    return (row, problem) if isinstance(example, Problem) else (after, example)


def _is_said(turn: dict[str, Any]) -> bool:
    """Tell whether somebody says something; calls of tools and their answers cannot be joined or moved."""
    return role_of(turn) in ("system", "user", "assistant") and not turn.keys() & {"tool_calls", "function_call"}


def _place(turn: dict[str, Any]) -> str:
    return "content" if "content" in turn else "value"
