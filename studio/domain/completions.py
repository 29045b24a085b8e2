"""OpenAI's chat completions as far as the studio speaks them: what may be asked, and the documents that answer."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from studio.domain.errors import StudioError

Document = dict[str, Any]
Finish = Literal["stop", "length"]
UNBOUNDED = 1_000_000  # tokens; the context ends an answer long before
COLDEST = 0.01  # temperatures below are as good as 0, and divide by nearly nothing
# They change who pays, what is kept or how it is routed, never an answer.
IGNORED = {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
IGNORED |= {"prompt_cache_retention", "parallel_tool_calls", "reasoning_effort", "verbosity", "prediction"}
# Known and not offered here: only the values that ask for nothing are taken.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
IGNORED_OF_A_MESSAGE = {"name"}
NEUTRAL_OF_A_MESSAGE: dict[str, tuple[Any, ...]] = {"annotations": ([],), "tool_calls": ([],)}


class Refused(StudioError):
    """A request that is not answered; `param` is what is wrong with it, `code` OpenAI's word, `status` HTTP's."""

    def __init__(
        self, message: str, hint: str = "", param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message, hint)
        self.param, self.code, self.status = param, code, status


class Part(BaseModel):
    """A piece of a message's content; pictures, sounds and files are none that the models here read."""

    type: Literal["text"]
    text: str


def _part(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _alone(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], Field(min_length=1), BeforeValidator(_part)]

    def plain(self) -> dict[str, str]:
        """Return the message as chat templates know it; `developer` is OpenAI's newer word for `system`."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "".join(part.text for part in self.content)}


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16), BeforeValidator(_alone)] | None = (
        None
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the request in a body; refuse what is wrong or not offered by its name."""
        try:
            asked = cls.model_validate_json(body)
        except ValidationError as error:
            raise _refused(error) from None
        _refuse_extras(asked.model_extra or {}, IGNORED, NEUTRAL)
        for number, message in enumerate(asked.messages):
            _refuse_extras(
                message.model_extra or {}, IGNORED_OF_A_MESSAGE, NEUTRAL_OF_A_MESSAGE, f"messages[{number}]."
            )
        return asked

    def talk(self) -> list[dict[str, str]]:
        return [message.plain() for message in self.messages]

    def sampling(self) -> Document:
        """Return the options of the chat service; what was not asked for is left to it."""
        heat = self.temperature if self.temperature is None or self.temperature >= COLDEST else 0.0
        chosen = {
            "temperature": heat,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens or UNBOUNDED,
        }
        return {name: value for name, value in chosen.items() if value is not None}


def _refused(error: ValidationError) -> Refused:
    """Return the first thing that is wrong, named as OpenAI names it: messages[0].content."""
    first = min(error.errors(), key=lambda each: len(each["loc"]))
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if not param:
        return Refused("The body is not a JSON object.", "Send what OpenAI's chat completions take.")
    if first["type"] == "missing":
        return Refused(f"{param} is missing.", param=param)
    given = json.dumps(first["input"], ensure_ascii=False, default=str)
    given = given if len(given) <= 80 else given[:79] + "…"
    return Refused(f"{param} cannot be {given}.", f"{first['msg']}.", param)


def _refuse_extras(extras: Document, ignored: set[str], neutral: dict[str, tuple[Any, ...]], place: str = "") -> None:
    for name, value in extras.items():
        if value is None or name in ignored or value in neutral.get(name, ()):
            continue
        if name in neutral:
            raise Refused(f"{place}{name} is not offered here.", "Leave it out.", f"{place}{name}")
        raise Refused(f"{place}{name} is not known here.", "Leave it out.", f"{place}{name}", "unknown_parameter")


def usage(prompt: int, answer: int) -> Document:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def completion(id: str, made: int, model: str, text: str, finish: str, used: Document) -> Document:
    """Return a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {
        "id": id,
        "object": "chat.completion",
        "created": made,
        "model": model,
        "choices": [choice],
        "usage": used,
    }


def chunk(id: str, made: int, model: str, delta: Document | None, finish: str | None = None, **more: Any) -> Document:
    """Return a piece of an answer; without a `delta` the one that says only what was used."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": id,
        "object": "chat.completion.chunk",
        "created": made,
        "model": model,
        "choices": [] if delta is None else [choice],
        **more,
    }


def failure(message: str, status: int, param: str | None = None, code: str | None = None) -> Document:
    """Return an error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
