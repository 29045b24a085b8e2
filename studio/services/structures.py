"""Structures: what the columns of a file mean, and how a row becomes a chat example or a text."""

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.domain.errors import DataError, NeedsMapping
from studio.services.formats import Problem, readable
from studio.services.readers import LONGEST, Refused
from studio.services.sniff import BROKEN

MEANINGS = ("prompt", "input", "response", "system", "text", "messages")
PROMPTS = {"prompt", "question", "q", "query", "input", "user", "human", "instruction"}
PROMPTS |= {"customer_message", "user_message"}
RESPONSES = {"completion", "response", "answer", "a", "output", "reply", "assistant"}
RESPONSES |= {"agent_reply", "assistant_message"}
CONTEXTS = {"input", "context"}  # of an Alpaca instruction
TEXTS = {"text", "content", "document", "body", "passage"}
# Columns that may stand beside a text without saying anything about what is to be learned from it.
ASIDE = {"id", "idx", "index", "uuid", "url", "source", "date", "timestamp", "created", "meta", "metadata", "language"}
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
REMAP = "Map another column or leave the row out."
HOW = "on the page under Columns, on the command line with"

RowValue = dict[str, Any] | str


@dataclass(frozen=True)
class Layout:
    """How rows are laid out: the structure, why in plain words, the column of each meaning, a first value of each."""

    format: str
    why: str
    columns: list[str] = field(default_factory=list)
    map: dict[str, str] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)

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
    if map:
        return _mapped(columns, map, samples(rows))
    if format != "auto" and format not in STRUCTURES:
        raise DataError(f"There is no structure `{format}`.", f"Choose one of auto, {', '.join(STRUCTURES)}.")
    found = {}
    for name, matcher in STRUCTURES.items():
        if format in ("auto", name) and (found := matcher(columns, rows)):
            unused = [column for column in columns if column not in found.values()]
            why = WHY[name].format(**{meaning: f"`{column}`" for meaning, column in found.items()})
            why += f" Not used: {quoted(unused)}." if unused else ""
            return Layout(name, why, columns, found, samples(rows))
    suggestion = suggest(columns, rows)
    example = " ".join(f"--map {shlex.quote(f'{meaning}={column}')}" for meaning, column in suggestion.items())
    looked = "do not say what they mean" if format == "auto" else f"do not look like {format}"
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
    if set(map) == {"text"}:
        structure = "text"
    elif set(map) - {"system"} == {"messages"}:
        structure = "messages"
    elif {"prompt", "response"} <= set(map) <= {"prompt", "input", "response", "system"}:
        structure = "question-answer"
    else:
        raise DataError(
            f"A map of {' and '.join(map)} is not a structure.",
            "Map prompt and response (with system if there is one), or text alone, or messages alone.",
        )
    why = ", ".join(f"`{column}` is the {meaning}" for meaning, column in map.items())
    return Layout(structure, f"As mapped: {why}.", columns, dict(map), samples)


def _key(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _named(columns: list[str], names: Iterable[str]) -> list[str]:
    return [column for column in columns if _key(column) in names]


def _conversation(role: str, content: str, usual: str) -> "Matcher":
    """Match the one column of turns with these keys, or the usual one of several."""

    def match(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
        found = []
        for column in columns:
            turns = next((turn_list(row[column]) for row in rows if isinstance(row, dict) and row.get(column)), None)
            if turns and isinstance(turns[0], dict) and role in turns[0] and content in turns[0]:
                found.append(column)
        chosen = found if len(found) == 1 else _named(found, {usual})
        return {"messages": chosen[0], **_one("system", _named(columns, {"system"}))} if chosen else {}

    return match


def _alpaca(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
    prompts, responses = _named(columns, {"instruction"}), _named(columns, RESPONSES)
    contexts = _named(columns, CONTEXTS)
    if len(prompts) != 1 or len(responses) != 1 or len(contexts) > 1:
        return {}
    return {
        "prompt": prompts[0],
        **_one("input", contexts),
        "response": responses[0],
        **_one("system", _named(columns, {"system"})),
    }


def _pair(prompts: set[str]) -> "Matcher":
    def match(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
        asked, answered = _named(columns, PROMPTS), _named(columns, RESPONSES)
        if len(asked) != 1 or len(answered) != 1 or _key(asked[0]) not in prompts:
            return {}  # two questions or two answers: the user must say which
        return {"prompt": asked[0], "response": answered[0], **_one("system", _named(columns, {"system"}))}

    return match


def _text(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
    texts = _named(columns, TEXTS)
    rest = [column for column in columns if column not in texts and _key(column) not in ASIDE]
    return {"text": texts[0]} if len(texts) == 1 and not rest else {}


def _one(meaning: str, columns: list[str]) -> dict[str, str]:
    return {meaning: columns[0]} if columns else {}


Matcher = Callable[[list[str], list[RowValue]], dict[str, str]]
STRUCTURES: dict[str, Matcher] = {
    "messages": _conversation("role", "content", "messages"),
    "sharegpt": _conversation("from", "value", "conversations"),
    "alpaca": _alpaca,
    "prompt-completion": _pair({"prompt"}),
    "question-answer": _pair(PROMPTS - {"prompt", "instruction"}),
    "text": _text,
}
WHY = {
    "messages": "Conversations: each row has a list of turns in {messages}, with role and content.",
    "sharegpt": "Conversations: each row has a list of turns in {messages}, with from and value.",
    "alpaca": "Instructions: each row has an instruction in {prompt} and the answer in {response}.",
    "prompt-completion": "Prompts and completions, one a row: {prompt} is answered by {response}.",
    "question-answer": "Questions and answers, one a row: {prompt} is answered by {response}.",
    "text": "Texts: each row has one in {text}.",
}


def suggest(columns: list[str], rows: list[RowValue]) -> dict[str, str]:
    """Return a map to begin with: a likely prompt and response, or the only column as text."""
    if len(columns) == 1:
        return {"text": columns[0]}
    wordy = [c for c in columns if _key(c) not in ASIDE and any(_words(row, c) for row in rows)]
    likely = [*wordy, *(c for c in columns if c not in wordy)]
    asking = re.compile("prompt|quest|query|message|text|input|instruct")
    asked = next((c for c in likely if asking.search(_key(c))), likely[0])
    rest = [c for c in likely if c != asked]
    telling = re.compile("answer|reply|respon|output|complet|label|categ|intent|target|summary")
    return {"prompt": asked, "response": next((c for c in rest if telling.search(_key(c))), rest[0])}


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
        return {"messages": _messages(row, layout.map)}
    except Refused as refused:
        return Problem(row=number, problem=f"Row {number} {refused.what}", remedy=refused.remedy)


def _read_text(row: RowValue, column: str) -> str:
    if isinstance(row, str) != (not column):
        raise Refused("is laid out differently from the rows before it.")
    text = clean(row, "its text") if isinstance(row, str) else clean(row.get(column), f"`{column}`")
    if not text:
        raise Refused(f"has no `{column}`." if column else "has no text.", REMAP if column else "Leave the row out.")
    return text


def _messages(row: dict[str, Any], map: dict[str, str]) -> list[dict[str, str]]:
    system = clean(row.get(map["system"]), f"`{map['system']}`") if "system" in map else ""
    if "messages" in map:
        messages = _conversation_of(row, map["messages"])
        if system and messages[0]["role"] == "system":
            raise Refused(f"has a system text twice, in `{map['system']}` and in the conversation.")
    else:
        prompt, response = (clean(row.get(map[meaning]), f"`{map[meaning]}`") for meaning in ("prompt", "response"))
        for meaning, text in (("prompt", prompt), ("response", response)):
            if not text:
                raise Refused(f"has no `{map[meaning]}`.", REMAP)
        more = clean(row.get(map["input"]), f"`{map['input']}`") if "input" in map else ""
        prompt = f"{prompt}\n\n{more}" if more else prompt
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return [{"role": "system", "content": system}, *messages] if system else messages


def _conversation_of(row: dict[str, Any], column: str) -> list[dict[str, str]]:
    """Return the turns in the usual roles: perhaps a system text, then user and assistant in turn, an answer last."""
    turns = turn_list(row.get(column))
    if not turns:
        raise Refused(f"has no turns in `{column}`.", REMAP)
    messages: list[dict[str, str]] = []
    for place, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Refused(f"has a turn without role and content (turn {place}).")
        name = turn.get("role", turn.get("from"))
        role = ROLES.get(str(name).strip().lower())
        if role is None:
            raise Refused(
                f"has a turn with the role `{readable(str(name)[:40])}`, which is not known (turn {place}).",
                "Use system, user and assistant (or human and gpt), or leave the row out.",
            )
        content = clean(turn.get("content", turn.get("value")), f"turn {place}")
        if role == "system":
            if place > 1:
                raise Refused(f"has a system text in the middle (turn {place}).", "Put it first or leave the row out.")
            if not content:
                continue
        elif not content:
            raise Refused(f"has an empty {'answer' if role == 'assistant' else 'question'} (turn {place}).")
        elif role != ("assistant" if messages and messages[-1]["role"] == "user" else "user"):
            what = "a second question" if role == "user" else "an answer without a question"
            raise Refused(f"has {what} (turn {place}).", "Let question and answer alternate, or leave the row out.")
        messages.append({"role": role, "content": content})
    if not messages or messages[-1]["role"] != "assistant":
        raise Refused("ends without an answer.", "Add the answer or leave the row out.")
    return messages


def turn_list(value: Any) -> list[Any] | None:
    """Return the list of turns, which a table holds as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def clean(value: Any, place: str) -> str:
    """Return the value as text with plain line ends, empty when there is none; refuse what is no text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple | bytes):
        what = "bytes" if isinstance(value, bytes) else "a list or object"
        raise Refused(f"has {what} in {place} instead of text.", REMAP)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"holds {value} in {place}, which is no number.")
    text = str(value)
    if len(text) > LONGEST:
        raise Refused(f"has over 16 MB in {place}.", "Split it or leave the row out.")
    if "\0" in text:
        raise Refused(f"holds a NUL character in {place}.")
    if not text.isascii() and BROKEN.search(text):
        raise Refused(f"holds bytes in {place} that are no text.", "Save the file as UTF-8, or leave the row out.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.strip() else ""
