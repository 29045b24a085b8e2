"""Texts of many conversations from a model's chat template, without what transformers does anew for each.

`apply_chat_template` stays the truth: it is asked for the first conversations of each call, and for all of them where
one holds more than roles and texts, where it gives another text, or where this version of transformers is another.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

compiled: Callable[[str], Any] | None = None
with suppress(ImportError):
    from transformers.utils.chat_template_utils import _compile_jinja_template as compiled

Talk = list[dict[str, Any]]
COMPARED = 10  # conversations of each call
PLAIN = {"role", "content"}


def render_all(tokenizer: Any, talks: list[Talk], prompt: bool = False) -> list[str]:
    """Return the text of each conversation; with `prompt`, up to where the assistant begins to write."""
    if not talks:
        return []
    if not compiled or not all(_plain(message) for talk in talks for message in talk):
        return _whole(tokenizer, talks, prompt)
    template = compiled(tokenizer.chat_template)
    # what `Template.render` puts together for each conversation, put together once
    seen = dict(template.globals) | tokenizer.special_tokens_map
    seen |= {"tools": None, "documents": None, "add_generation_prompt": prompt}
    environment, texts = template.environment, []
    for talk in talks:
        context = environment.context_class(environment, seen | {"messages": talk}, template.name, template.blocks)
        texts.append("".join(template.root_render_func(context)))
    same = texts[:COMPARED] == _whole(tokenizer, talks[:COMPARED], prompt)
    return texts if same else _whole(tokenizer, talks, prompt)


def _plain(message: dict[str, Any]) -> bool:
    return message.keys() == PLAIN and isinstance(message["content"], str)


def _whole(tokenizer: Any, talks: list[Talk], prompt: bool) -> list[str]:
    return list(tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=prompt))
