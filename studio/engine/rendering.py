"""`python -m studio.engine.rendering`: the child process in which chat templates run, with little time and memory.

A template is a program of strangers. Jinja's sandbox keeps it from files and code, not from a loop without end or a
text of gigabytes; what keeps it from those is the kernel's limits on this process, which does nothing else.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from transformers.utils import chat_template_utils

compiled: Callable[[str], Any] | None = getattr(chat_template_utils, "_compile_jinja_template", None)
Talk = list[dict[str, Any]]
SECONDS, MEMORY = 2, 256 << 20  # of a processor, and bytes more than at the start, for one request
COMPARED = 10  # conversations of each request
PLAIN = {"role", "content"}


def main() -> None:
    """Answer requests, a JSON line each, until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not garble the protocol
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # not every system limits it
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY,) * 2)
    for line in sys.stdin:
        # the kernel ends the process, whatever it is at
        whole = math.ceil(time.process_time()) + SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (whole, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            answer: dict[str, Any] = {"texts": render_all(**json.loads(line))}
        except (MemoryError, RecursionError):
            answer = {"over": "memory"}
        except Exception as error:  # noqa: BLE001 - whatever the template does
            answer = {"error": str(error) or type(error).__name__}
        line = ""
        print(json.dumps(answer), file=out)


def render_all(template: str, words: dict[str, str], talks: list[Talk], tools: Any, prompt: bool) -> list[str]:
    """Return the text of each conversation; with `prompt`, up to where the assistant begins to write.

    transformers' own function stays the truth: it is asked for the first of them, and for all where one holds more
    than roles and texts, where it gives another text, or where this version of transformers is another.
    """
    if tools or not compiled or not all(_plain(message) for talk in talks for message in talk):
        return _whole(template, words, talks, tools, prompt)
    program = compiled(template)
    # what `Template.render` puts together for each conversation, put together once
    seen = dict(program.globals) | words
    seen |= {"tools": None, "documents": None, "add_generation_prompt": prompt}
    environment, texts = program.environment, []
    for talk in talks:
        context = environment.context_class(environment, seen | {"messages": talk}, program.name, program.blocks)
        texts.append("".join(program.root_render_func(context)))
    same = texts[:COMPARED] == _whole(template, words, talks[:COMPARED], None, prompt)
    return texts if same else _whole(template, words, talks, None, prompt)


def _plain(message: dict[str, Any]) -> bool:
    return message.keys() == PLAIN and isinstance(message["content"], str)


def _whole(template: str, words: dict[str, str], talks: list[Talk], tools: Any, prompt: bool) -> list[str]:
    options: dict[str, Any] = {"chat_template": template, "add_generation_prompt": prompt, **words}
    return list(chat_template_utils.render_jinja_template(talks, tools, **options)[0])


if __name__ == "__main__":
    main()
