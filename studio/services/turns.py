"""Conversations: turns of any usual spelling become messages in the usual roles, tool calls among them."""

import re
from typing import Any

from studio.services.formats import readable
from studio.services.readers import Refused
from studio.services.values import clean, plain, unfolded

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
ROLE_KEYS = ("role", "from", "speaker", "sender")
CONTENT_KEYS = ("content", "value", "text", "message")
USED_KEYS = {*ROLE_KEYS, *CONTENT_KEYS, "name", "tool_calls", "tool_call_id", "function_call", "weight"}
Message = dict[str, Any]


def turn_list(value: Any) -> list[Any] | None:
    """Return the list of turns, which a table holds as text."""
    value = unfolded(value)
    return value if isinstance(value, list) else None


def is_turn(value: Any) -> bool:
    return isinstance(value, dict) and bool(_first(value, ROLE_KEYS)) and _has_content(value)


def role_of(turn: dict[str, Any]) -> str:
    """Return the usual name of a turn's role, or nothing when it is not known."""
    return ROLES.get(str(_first(turn, ROLE_KEYS)).strip().lower(), "")


def conversation(turns: list[Any]) -> list[Message]:
    """Return the messages: perhaps a system text, then user and assistant in turn, an answer last; or Refused."""
    messages: list[Message] = []
    for place, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Refused(f"has a turn without role and content (turn {place}).")
        message = _message(turn, place)
        role, empty = message["role"], not message["content"] and "tool_calls" not in message
        if role == "system":
            if place > 1:
                raise Refused(f"has a system text in the middle (turn {place}).", "Put it first or leave the row out.")
            if empty:
                continue
        elif empty and role != "tool":  # a tool may well have nothing to say
            raise Refused(f"has an empty {'answer' if role == 'assistant' else 'question'} (turn {place}).")
        else:
            _must_follow(messages[-1] if messages else None, role, place)
        messages.append(message)
    if not messages or messages[-1]["role"] != "assistant":
        raise Refused("ends without an answer.", "Add the answer or leave the row out.")
    if all(message.get("weight") == 0 for message in messages if message["role"] == "assistant"):
        raise Refused("has no answer to learn from: the weight of each is 0.", "Change it or leave the row out.")
    return messages


def tools_of(value: Any, column: str) -> list[dict[str, Any]]:
    """Return the tools of a row as JSON schemas, none when there are none."""
    tools = unfolded(value)
    if tools is None or tools == "":
        return []
    tools = plain(tools)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Refused(f"has tools in `{column}` that are no list of objects.")
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    if not all(isinstance(tool["function"], dict) and tool["function"].get("name") for tool in whole):
        raise Refused(f"has a tool without a name in `{column}`.", "Name it or leave the row out.")
    return whole


def transcript(text: str) -> list[Message]:
    """Return the turns of a text that tells them by "Human:" and "Assistant:" at the beginnings of lines."""
    parts = re.split(r"(?:^|\n\n)(Human|Assistant): ?", text)
    if len(parts) < 3 or parts[0].strip():
        return []
    return [
        {"role": ROLES["human" if who == "Human" else "assistant"], "content": said.strip()}
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def unused_keys(turns: list[Any]) -> list[str]:
    """Return what turns hold beside what is read of them."""
    keys = dict.fromkeys(str(key) for turn in turns if isinstance(turn, dict) for key in turn if key not in USED_KEYS)
    return [readable(key[:40]) for key in keys]


def _first(turn: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _has_content(turn: dict[str, Any]) -> bool:
    return any(key in turn for key in (*CONTENT_KEYS, "tool_calls", "function_call"))


def _message(turn: dict[str, Any], place: int) -> Message:
    name, role = _first(turn, ROLE_KEYS), role_of(turn)
    if not role:
        raise Refused(
            f"has a turn with the role `{readable(str(name)[:40])}`, which is not known (turn {place}).",
            "Use system, user, assistant and tool (or human and gpt), or leave the row out.",
        )
    content = _first(turn, CONTENT_KEYS)
    if str(name).strip().lower() == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls(unfolded(content), place)}
    message: Message = {"role": role, "content": _text(content, place)}
    if calls := unfolded(turn.get("tool_calls")) or unfolded(turn.get("function_call")):
        message["tool_calls"] = _calls(calls, place)
    if role == "tool":
        message |= {key: clean(turn[key], key) for key in ("name", "tool_call_id") if turn.get(key)}
    if role == "assistant" and turn.get("weight") is not None:
        weight = clean(turn["weight"], f"the weight of turn {place}")
        if weight not in ("0", "1", "0.0", "1.0"):
            raise Refused(f"has the weight {weight[:20]}, which is neither 0 nor 1 (turn {place}).")
        message |= {"weight": 0} if float(weight) == 0 else {}
    return message


def _text(content: Any, place: int) -> str:
    """Return the text of a turn, which may be a list of parts."""
    if isinstance(content, list) and content and all(isinstance(part, dict) and "type" in part for part in content):
        other = next((part["type"] for part in content if part["type"] != "text"), None)
        if other:
            raise Refused(f"has a part that is no text but `{readable(str(other)[:40])}` (turn {place}).")
        return clean("".join(clean(part.get("text"), f"turn {place}") for part in content), f"turn {place}")
    return clean(content, f"turn {place}")


def _calls(calls: Any, place: int) -> list[dict[str, Any]]:
    """Return tool calls with their arguments as objects, which is what chat templates take."""
    found = []
    for call in calls if isinstance(calls, list) else [calls]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        arguments = unfolded(inner.get("arguments")) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not inner.get("name") or not isinstance(arguments or {}, dict):
            raise Refused(f"has a tool call without a name and arguments (turn {place}).")
        function = {"name": clean(inner["name"], f"turn {place}"), "arguments": plain(arguments or {})}
        id = {"id": clean(call["id"], f"turn {place}")} if call.get("id") else {}
        found.append({**id, "type": "function", "function": function})
    return found


def _must_follow(before: Message | None, role: str, place: int) -> None:
    """Refuse a turn out of order: questions and answers alternate, tools speak after calls."""
    last = before["role"] if before else ""
    if role == "user" and last in ("user", "tool"):
        what = "a second question" if last == "user" else "a question where the answer to a tool's result should be"
    elif role == "assistant" and last not in ("user", "tool"):
        what = "an answer without a question"
    elif role == "tool" and not (last == "tool" or (before and "tool_calls" in before)):
        what = "the result of a tool that was not called"
    elif role in ("user", "assistant") and before and "tool_calls" in before:
        what = "a tool call without a result"
    else:
        return
    raise Refused(f"has {what} (turn {place}).", "Let question and answer alternate, or leave the row out.")
