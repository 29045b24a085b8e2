"""Chat templates of strangers: what they may take is limited, and what they do ends in words."""

import threading
import time

import pytest

from studio.domain.errors import DataError, ModelError
from studio.engine import templates, tokens
from studio.engine.templates import render_all
from tests.engine.conftest import STARTER_TEMPLATE, make_tokenizer

TALK = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set n = namespace(x='a') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"


def test_many_conversations_are_what_transformers_makes_of_each() -> None:
    tokenizer = make_tokenizer()
    talks = [[TALK[0] | {"content": f"Where? {number} \ud800 \u2028"}, TALK[1]] for number in range(600)]
    talks.append([TALK[0], TALK[1] | {"tool_calls": None}])
    for prompt in (False, True):
        wanted = tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=prompt)
        assert render_all(tokenizer, talks, prompt) == wanted
    assert render_all(tokenizer, []) == []


def test_tools_reach_the_template() -> None:
    tokenizer = make_tokenizer("{{ tools | tojson }}{{ messages[0].content }}")
    tools = [{"type": "function", "function": {"name": "find"}}]
    wanted = tokenizer.apply_chat_template(TALK, tools=tools, tokenize=False)
    assert render_all(tokenizer, [TALK], tools=tools) == [wanted]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOP, "takes more than 2 s"),
        ("{% if messages | length > 1 %}" + LOOP + "{% endif %}", "takes more than 2 s"),  # not at its first look
        ("{{ 'a' * 5000000000 }}", "needs more than 256 MB"),
        ("{{ '%1000000000d' % 3 }}", "needs more than 256 MB"),
        (DOUBLED, "needs more than 256 MB"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "needs more than 256 MB"),
    ],
)
def test_a_template_that_takes_too_much_is_ended(template: str, said: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match=said):
        tokens.render(make_tokenizer(template), TALK)
    assert time.monotonic() - begin < 60  # some seconds, on a machine with nothing else to do
    assert "Where?" in tokens.render(make_tokenizer(), TALK)  # the next is not harmed


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% if", "unexpected"),
        ("{{ raise_exception('Roles must alternate.') }}", r"user, assistant: Roles must alternate\. "),
        ("{{ 1 // 0 }}", "by zero"),
    ],
)
def test_a_template_that_may_not_or_cannot_is_refused_in_words(template: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        tokens.render(make_tokenizer(template), TALK)


def test_rows_for_training_stop_at_such_a_template() -> None:
    with pytest.raises(ModelError, match="takes more than 2 s"):
        tokens.encode(make_tokenizer(STARTER_TEMPLATE + LOOP), [{"messages": TALK, "row": 1}] * 20)


def test_a_process_that_was_killed_is_said_and_started_again() -> None:
    tokenizer = make_tokenizer()
    render_all(tokenizer, [TALK])
    slow, failed = make_tokenizer(LOOP), []

    def ask() -> None:
        try:
            render_all(slow, [TALK])
        except ModelError as error:
            failed.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not templates._child.turn.locked():
        time.sleep(0.001)
    templates._child.process.kill()
    thread.join()
    assert "ended with code -9" in failed[0]
    assert render_all(tokenizer, [TALK])
