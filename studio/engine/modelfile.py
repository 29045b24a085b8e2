"""An Ollama Modelfile: the chat template of the training in Go's language, found by asking the template itself.

A template is asked for conversations of marks; what stands between the marks is what it writes around each turn. The
result is played back on conversations and compared with the template, so one that does more is refused.
"""

from itertools import takewhile
from typing import Any

from studio.domain.errors import ModelError
from studio.engine import tokens

SYSTEM, FIRST, ANSWER, SECOND = "\x02system\x02", "\x02first\x02", "\x02answer\x02", "\x02second\x02"
Talk = list[dict[str, str]]


def make(tokenizer: Any, model: str) -> str:
    """Return the Modelfile for a GGUF file beside it; raise ModelError where the template cannot be told in Go."""
    parts = _parts(tokenizer)
    for talk in _conversations():
        if _played(parts, talk) != tokens.render(tokenizer, talk, prompt=True):
            raise _refused()
    said = "{{ if .System }}" + _go(parts["open"]) + "{{ .System }}" + _go(parts["close"])
    said += "{{ else }}" + _go(parts["default"]) + "{{ end }}"
    said += (
        '{{ range .Messages }}{{ if eq .Role "user" }}' + _go(parts["user"]) + "{{ .Content }}" + _go(parts["asked"])
    )
    said += '{{ else if eq .Role "assistant" }}' + _go(parts["answer"]) + "{{ .Content }}" + _go(parts["end"])
    said += "{{ end }}{{ end }}" + _go(parts["prompt"])
    if '"""' in said:
        raise _refused()
    stop = str(tokenizer.eos_token)
    return f'FROM ./{model}\nTEMPLATE """{said}"""\nPARAMETER stop "{stop}"\n'


def _parts(tokenizer: Any) -> dict[str, str]:
    """Return what the template writes around each turn."""
    try:
        bare = tokens.render(tokenizer, _talk(FIRST), prompt=True)
        whole = tokens.render(tokenizer, [_turn("system", SYSTEM), *_talk(FIRST, ANSWER, SECOND)], prompt=True)
        start, rest = bare.split(FIRST)
        opened, rest_of = whole.split(SYSTEM)
        between, rest_of = rest_of.split(FIRST)
        before_answer, rest_of = rest_of.split(ANSWER)
        turn, at_end = rest_of.split(SECOND)
    except ValueError:
        raise _refused() from None
    user = _common_end(start, _common_end(between, turn))
    asked = _common_start(before_answer, at_end)
    if rest != at_end:
        raise _refused()
    return {
        "open": opened,
        "close": between.removesuffix(user),
        "default": start.removesuffix(user),
        "user": user,
        "asked": asked,
        "answer": before_answer.removeprefix(asked),
        "end": turn.removesuffix(user),
        "prompt": at_end.removeprefix(asked),
    }


def _common_start(left: str, right: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    return "".join(mine for mine, _ in pairs)


def _common_end(left: str, right: str) -> str:
    return _common_start(left[::-1], right[::-1])[::-1]


def _played(parts: dict[str, str], talk: Talk) -> str:
    """Return what the Go template makes of a conversation."""
    system = next((turn["content"] for turn in talk if turn["role"] == "system"), "")
    text = parts["open"] + system + parts["close"] if system else parts["default"]
    for turn in talk:
        if turn["role"] == "user":
            text += parts["user"] + turn["content"] + parts["asked"]
        elif turn["role"] == "assistant":
            text += parts["answer"] + turn["content"] + parts["end"]
    return text + parts["prompt"]


def _conversations() -> list[Talk]:
    plain = _talk("Where is it?"), _talk("Hello", "Hi.", "Where is it?"), _talk("a", "b", "c", "d", "e")
    return [*plain, *([_turn("system", "Be brief."), *talk] for talk in plain)]


def _talk(*texts: str) -> Talk:
    return [_turn("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _go(text: str) -> str:
    """Write text so that Go's template language leaves it alone."""
    return text.replace("{{", '{{ "{{" }}')


def _refused() -> ModelError:
    return ModelError(
        "This model's chat template does more than Ollama's templates can say.",
        "Export as gguf: programs built on llama.cpp read the template from the file.",
    )
