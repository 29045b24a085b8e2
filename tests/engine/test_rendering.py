"""Conversations rendered at once are what the template makes of each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.engine import rendering
from studio.engine.tokens import PLAIN_TEMPLATE
from tests.engine.conftest import make_tokenizer

TEMPLATES = {
    "plain": PLAIN_TEMPLATE,
    "loops and names": (
        "{% set last = namespace(at=0) %}{% for message in messages %}{% if message.role == 'user' %}"
        "{% set last.at = loop.index0 %}{% endif %}{% endfor %}{{ bos_token }}{% set opened = true %}"
        "{% for message in messages %}{% if not loop.last %}|{{ message.content | trim }}{% else %}"
        "[{{ last.at }}{{ opened }}]{{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{% if tools %}T{% endif %}>{% endif %}"
    ),
    "a macro": (
        "{% macro say(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}"
    ),
}
TOKENIZER = make_tokenizer(None)
ROLE = st.sampled_from(["system", "user", "assistant"])
TALK = st.lists(st.fixed_dictionaries({"role": ROLE, "content": st.text(max_size=8)}), min_size=1, max_size=4)


def render(talks, prompt=False):
    """Render as the child process does, here."""
    return rendering.render_all(TOKENIZER.chat_template, TOKENIZER.special_tokens_map, talks, None, prompt)


@pytest.mark.parametrize("name", TEMPLATES)
@given(talks=st.lists(TALK, max_size=14), prompt=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_texts_are_the_templates(name, talks, prompt):
    TOKENIZER.chat_template = TEMPLATES[name]
    one_by_one = [TOKENIZER.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt) for talk in talks]
    assert render(talks, prompt) == one_by_one


@pytest.mark.parametrize("kind", ["no such function", "another text", "more than text"])
def test_the_template_is_asked_for_each_where_it_must(monkeypatch, kind):
    TOKENIZER.chat_template = PLAIN_TEMPLATE
    talk = [{"role": "user", "content": "Hello"}]
    if kind == "no such function":
        monkeypatch.setattr(rendering, "compiled", None)
    if kind == "another text":
        compiled = rendering.compiled
        monkeypatch.setattr(rendering, "compiled", lambda template: compiled("wrong"))
    if kind == "more than text":
        talk[0]["reasoning_content"] = "Hm."
        TOKENIZER.chat_template = "{{ messages[0].thinking }}"  # another name for it, which transformers knows
    right = TOKENIZER.apply_chat_template(talk, tokenize=False)
    assert right
    assert render([talk]) == [right]
