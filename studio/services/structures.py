"""Structures: what the columns of a file mean, and how a row becomes a chat example or a text."""

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.domain.errors import DataError, NeedsMapping
from studio.services.formats import Problem, readable
from studio.services.names import ASIDE, LABELS, SENTENCES, key, named
from studio.services.readers import Refused
from studio.services.recognise import NOTES, STRUCTURES, WHY, RowValue, values, verdict
from studio.services.sniff import BROKEN
from studio.services.turns import conversation, is_turn, tools_of, transcript, turn_list, unused_keys
from studio.services.values import REMAP, clean, unfolded

MEANINGS = (
    "prompt",
    "input",
    "response",
    "system",
    "text",
    "messages",
    "history",
    "tools",
    "rejected",
    "label",
)
HOW = "on the page under Columns, on the command line with"
FIT = 0.8  # share of the first rows that have to make examples for a structure to be believed

Sure = Literal["certain", "likely", "doubtful"]


@dataclass(frozen=True)
class Layout:
    """How rows are laid out: the structure, why in plain words, the column of each meaning, a first value of each.

    `sure` says how far to trust it, `notes` what is worth knowing before it is trained on.
    """

    format: str
    why: str
    columns: list[str] = field(default_factory=list)
    map: dict[str, str] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    sure: Sure = "certain"
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Literal["chat", "text"]:
        return "text" if self.format == "text" else "chat"


# --- detection ----------------------------------------------------------------------------------------------------


def detect(rows: list[RowValue], format: str = "auto", map: dict[str, str] | None = None) -> Layout:
    """Return the layout of the file these are the first rows of; raise NeedsMapping when the columns do not tell."""
    columns = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    for column in columns:
        if BROKEN.search(column):
            raise DataError(f"The column name `{readable(column)}` is not valid text.", "Save the file as UTF-8.")
    if not columns:
        if map or format not in ("auto", "text"):
            raise DataError("The rows are plain text without columns.", "Use them as text, without a map.")
        return Layout("text", "Plain text: each paragraph or line of text is one example.")
    if {key(column) for column in columns} <= {"role", "content", "from", "value", "name"} and is_turn(rows[0]):
        raise DataError(
            "Each row is a turn of one conversation.", "Write a conversation a row: a list of its turns as `messages`."
        )
    if map:
        return _believed(_mapped(columns, map, samples(rows)), rows)
    if format != "auto" and format not in STRUCTURES:
        raise DataError(f"There is no structure `{format}`.", f"Choose one of auto, {', '.join(STRUCTURES)}.")
    found = {}
    for name, matcher in STRUCTURES.items():
        if format in ("auto", name) and (found := matcher(columns, rows)):
            why = WHY[name].format(**{meaning: f"`{column}`" for meaning, column in found.items()})
            more = [f"`{column}` is the {meaning}" for meaning, column in found.items() if f"`{column}`" not in why]
            why += f" {', '.join(more)}." if more else ""
            notes = [NOTES[name]] if name in NOTES else []
            return _believed(Layout(name, why, columns, found, samples(rows), "likely", notes), rows)
    suggestion = suggest(columns, rows)
    example = " ".join(f"--map {shlex.quote(f'{meaning}={column}')}" for meaning, column in suggestion.items())
    looked = "do not say what they mean" if format == "auto" else f"do not look like {format}"
    if labels := named(columns, LABELS) if named(columns, SENTENCES) else []:
        looked += f", for `{labels[0]}` holds no names of labels (the model would learn to answer as it stands there)"
    raise NeedsMapping(
        f"The columns {quoted(columns)} {looked}.",
        f"Say which holds the prompt and which the response, or which the text: {HOW} {example}",
        columns,
        suggestion,
        samples(rows),
    )


def _mapped(columns: list[str], map: dict[str, str], samples: dict[str, str]) -> Layout:
    for meaning, column in map.items():
        if meaning not in MEANINGS:
            raise DataError(f"`{meaning}` is no meaning a column can have.", f"Use {', '.join(MEANINGS)}.")
        if column not in columns:
            raise DataError(f"There is no column `{column}`.", f"The columns are {quoted(columns)}.")
    given, answered = set(map), "messages" in map or {"prompt", "response"} <= set(map)
    if given == {"text"}:
        structure = "text"
    elif "text" not in given and "rejected" in given and "response" in given:
        structure = "preference"
    elif "text" not in given and answered:
        structure = "feedback" if "label" in given else "messages" if "messages" in given else "question-answer"
    else:
        raise DataError(
            f"A map of {' and '.join(map)} is not a structure.",
            "Map prompt and response (with system if there is one), or text alone, or messages alone.",
        )
    why = ", ".join(f"`{column}` is the {meaning}" for meaning, column in map.items())
    notes = [NOTES[structure]] if structure in NOTES else []
    return Layout(structure, f"As mapped: {why}.", columns, dict(map), samples, "certain", notes)


def _believed(layout: Layout, rows: list[RowValue]) -> Layout:
    """Return the layout with how sure it is, and with what of the rows it does not use."""
    fits = [not isinstance(convert(0, row, layout), Problem) for row in rows if not _left_aside(row, layout)]
    shaped = "messages" in layout.map or any(isinstance(unfolded(v), list) for v in _of(rows, layout, "response"))
    sure: Sure = "certain" if shaped else layout.sure
    reason = "by the shape of the values" if shaped else "by the names of the columns"
    why = layout.why if layout.why.startswith("As mapped") else f"{layout.why} This is {sure}, {reason}."
    if fits and sum(fits) < FIT * len(fits):
        sure = "doubtful"
        why = f"{layout.why} This is doubtful: {sum(fits)} of the first {len(fits)} rows fit."
    unused = [column for column in layout.columns if column not in layout.map.values()]
    turns = [turn for value in _of(rows, layout, "messages") for turn in turn_list(value) or []]
    beside = [f"`{name}` of the turns" for name in unused_keys(turns)]
    if beside or (unused and not layout.why.startswith("As mapped")):
        why += f" Not used: {', '.join(filter(None, [quoted(unused), *beside]))}."
    notes = [*layout.notes]
    if sure == "doubtful":
        notes.append(f"Only {sum(fits)} of the first {len(fits)} rows fit this structure. Look at the columns.")
    return Layout(layout.format, why, layout.columns, layout.map, layout.samples, sure, notes)


def _of(rows: list[RowValue], layout: Layout, meaning: str) -> list[Any]:
    return values(rows, layout.map[meaning]) if meaning in layout.map else []


def _left_aside(row: RowValue, layout: Layout) -> bool:
    """Tell whether a row has a verdict against it, which says nothing about the structure."""
    return isinstance(row, dict) and "label" in layout.map and verdict(row.get(layout.map["label"])) is False


def suggest(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
    """Return a map to begin with: a likely prompt and response, or the only column as text."""
    if len(columns) == 1:
        return {"text": columns[0]}
    wordy = [c for c in columns if key(c) not in ASIDE and any(_words(row, c) for row in rows)]
    likely = [*wordy, *(c for c in columns if c not in wordy)]
    asking = re.compile("prompt|quest|query|message|text|input|instruct")
    asked = next((c for c in likely if asking.search(key(c))), likely[0])
    rest = [c for c in likely if c != asked]
    telling = re.compile("answer|reply|respon|output|complet|label|categ|intent|target|summary")
    return {"prompt": asked, "response": next((c for c in rest if telling.search(key(c))), rest[0])}


def _words(row: RowValue, column: str) -> bool:
    value = row.get(column) if isinstance(row, dict) else None
    return isinstance(value, str) and re.search(r"[^\W\d]", value) is not None


def samples(rows: list[RowValue], length: int = 120) -> dict[str, str]:
    """Return the first value of each column that has one, shortened."""
    found: dict[str, str] = {}
    for row in rows:
        for column, value in row.items() if isinstance(row, dict) else ():
            if column not in found and value not in (None, ""):
                text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
                found[column] = readable(text if len(text) <= length else text[: length - 1] + "…")
    return found


def quoted(columns: list[str], most: int = 12) -> str:
    """Return the names for a sentence: `a`, `b` and `c`."""
    names = [f"`{column}`" for column in columns]
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# --- rows to examples ---------------------------------------------------------------------------------------------


def convert(number: int, row: RowValue, layout: Layout) -> dict[str, Any] | Problem:
    """Return the row as {"messages": […]} or {"text": …}, or why it cannot be used."""
    try:
        if layout.kind == "text":
            return {"text": _read_text(row, layout.map.get("text", ""))}
        if isinstance(row, str):
            raise Refused("is plain text, not an object with named values.")
        return _example(row, layout.map)
    except Refused as refused:
        return Problem(row=number, problem=f"Row {number} {refused.what}", remedy=refused.remedy)


def _read_text(row: RowValue, column: str) -> str:
    if isinstance(row, str) != (not column):
        raise Refused("is laid out differently from the rows before it.")
    text = clean(row, "its text") if isinstance(row, str) else clean(row.get(column), f"`{column}`")
    if not text:
        raise Refused(f"has no `{column}`." if column else "has no text.", REMAP if column else "Leave the row out.")
    return text


def _example(row: dict[str, Any], map: dict[str, str]) -> dict[str, Any]:
    if "label" in map:
        _must_be_good(row.get(map["label"]), map["label"])
    tools = tools_of(row.get(map["tools"]), map["tools"]) if "tools" in map else []
    return {"messages": _messages(row, map), **({"tools": tools} if tools else {})}


def _must_be_good(value: Any, column: str) -> None:
    good = verdict(value)
    if good is None:
        raise Refused(f"has no verdict in `{column}`.", "Write true or false, or leave the row out.")
    if not good:
        raise Refused(f"is an answer that `{column}` calls bad.", "Leave such rows out to learn from the good answers.")


def _messages(row: dict[str, Any], map: dict[str, str]) -> list[dict[str, Any]]:
    system = clean(row.get(map["system"]), f"`{map['system']}`") if "system" in map else ""
    turns: list[Any] = []
    if "history" in map:
        turns += _history(row.get(map["history"]), map["history"])
    if "messages" in map:
        before = turn_list(row.get(map["messages"]))
        if not before:
            raise Refused(f"has no turns in `{map['messages']}`.", REMAP)
        turns += before
    if "prompt" in map:
        turns += _asked(row, map)
    if "response" in map:
        turns = _answered(turns, row, map)
    messages = turns if _is_pair(turns, row, map) else conversation(turns)
    if system and messages[0]["role"] == "system":
        raise Refused(f"has a system text twice, in `{map['system']}` and in the conversation.")
    return [{"role": "system", "content": system}, *messages] if system else messages


def _is_words(value: Any) -> bool:
    """Tell a text from one that may hold a list or object."""
    return isinstance(value, str) and value[:1] not in ("[", "{") and not value[:1].isspace()


def _is_pair(turns: list[Any], row: dict[str, Any], map: dict[str, str]) -> bool:
    """Tell whether the turns are a question and an answer made here of two texts, as most are: in order and clean."""
    return len(turns) == 2 and all(_is_words(row.get(map.get(meaning, ""))) for meaning in ("prompt", "response"))


def _asked(row: dict[str, Any], map: dict[str, str]) -> list[Any]:
    """Return the turns that ask: those of a list, or one of the prompt with what it is about under it."""
    value = row.get(map["prompt"])
    if not _is_words(value) and (turns := turn_list(value)) and is_turn(turns[0]):
        return turns
    prompt = clean(value, f"`{map['prompt']}`")
    if not prompt:
        raise Refused(f"has no `{map['prompt']}`.", REMAP)
    more = clean(row.get(map["input"]), f"`{map['input']}`") if "input" in map else ""
    return [{"role": "user", "content": f"{prompt}\n\n{more}" if more else prompt}]


def _answered(turns: list[Any], row: dict[str, Any], map: dict[str, str]) -> list[Any]:
    """Return the turns with the answer, which may be a text, a turn, or a list that holds the question too."""
    value = row.get(map["response"])
    value = value if _is_words(value) else unfolded(value)
    if is_turn(value):
        return [*turns, value]
    if isinstance(value, list) and value and is_turn(value[0]):
        begins = [turn for turn in value if is_turn(turn)][: len(turns)]
        return value if not turns or begins == turns or _texts(begins) == _texts(turns) else [*turns, *value]
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # of extractive questions: several wordings
        value = next(iter(value["text"]), None)
    elif isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = value[0]
    else:
        value = row.get(map["response"])
    answer = clean(value, f"`{map['response']}`")
    if not answer:
        raise Refused(f"has no `{map['response']}`.", REMAP)
    if not turns and "rejected" in map:
        return _common(answer, clean(row.get(map["rejected"]), f"`{map['rejected']}`"), map)
    return [*turns, {"role": "assistant", "content": answer}]


def _common(chosen: str, rejected: str, map: dict[str, str]) -> list[Any]:
    """Return the turns of an answer that holds its question: a transcript, or what both answers begin with."""
    if turns := transcript(chosen):
        return turns
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
    shared = chosen[:same]
    prompt = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1].strip()
    answer = chosen[shared.rfind(prompt) + len(prompt) :].strip() if prompt else ""
    if not prompt or not answer:
        raise Refused(f"has no question: `{map['response']}` and `{map['rejected']}` begin differently.", REMAP)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _history(value: Any, column: str) -> list[Any]:
    """Return the turns of pairs of question and answer that came before."""
    pairs = unfolded(value)
    if pairs in (None, ""):
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise Refused(f"has a history in `{column}` that is no list of pairs of question and answer.")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def _texts(turns: list[Any]) -> list[Any]:
    return [clean(turn.get("content", turn.get("value")), "a turn") for turn in turns]
