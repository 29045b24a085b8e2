"""Texts of conversations from a model's chat template, which runs in a child process with limits (`rendering`)."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from studio.domain.errors import DataError, ModelError

ROWS, SIZE = 250, 1 << 20  # conversations, and characters of them, in a request: the limits hold for each request
Talk = list[dict[str, Any]]
# A tokenizer needs no torch, whose import would be most of the child's start.
CHILD = "import sys; sys.modules['torch'] = None; from studio.engine.rendering import main; main()"


class RefusedError(DataError):
    """The template does not take a conversation, or fails on it."""


class _Child:
    """The process, started when it is first needed and again when it was ended. Threads take turns."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        atexit.register(self.end)

    def start(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        return self.process

    def ask(self, request: str) -> dict[str, Any]:
        """Return the answer to a request; with `over`, the limit it went over."""
        with self.turn:
            process = self.start()
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:  # it has gone
                line = ""
            if line:
                return dict(json.loads(line))
            code, self.process = process.wait(), None
        if code == -signal.SIGXCPU:
            return {"over": "time"}
        raise ModelError(
            f"The process that runs chat templates ended with code {code}.", "Try again, or run `peft-studio doctor`."
        )

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()


_child = _Child()
warm = _child.start


def render_all(
    tokenizer: PreTrainedTokenizerBase, talks: list[Talk], prompt: bool = False, tools: list[Any] | None = None
) -> list[str]:
    """Return the text of each conversation; with `prompt`, up to where the assistant begins to write."""
    if not talks:  # plain text needs no template, and its tokenizer may have none
        return []
    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:  # no template, its code
        return list(tokenizer.apply_chat_template(talks, tools=tools, tokenize=False, add_generation_prompt=prompt))
    common: dict[str, Any] = {"words": tokenizer.special_tokens_map, "tools": tools, "prompt": prompt}
    common["template"] = tokenizer.get_chat_template(None, tools)
    texts: list[str] = []
    for part in _parts(talks):
        answer = _child.ask(f'{json.dumps(common)[:-1]}, "talks": [{", ".join(part)}]}}')
        if over := answer.get("over"):
            what = {"time": "takes more than 2 s", "memory": "needs more than 256 MB"}[over]
            raise ModelError(
                f"The model's chat template {what} for a few conversations, so it was ended.",
                "Choose another model, or put a plain chat template into its folder.",
            )
        if "error" in answer:
            raise RefusedError(answer["error"])
        texts += answer["texts"]
    return texts


def _parts(talks: list[Talk]) -> Iterator[list[str]]:
    """Yield the conversations as JSON, some at a time. As in transformers, what is None is not there."""
    part, size = [], 0
    for talk in talks:
        part.append(json.dumps([{key: value for key, value in turn.items() if value is not None} for turn in talk]))
        size += len(part[-1])
        if len(part) == ROWS or size > SIZE:
            yield part
            part, size = [], 0
    if part:
        yield part
