"""A chat template told in Go's words says what the template says, or is refused."""

import re

import pytest

from studio.domain.errors import ModelError
from studio.engine import modelfile, tokens
from tests.engine.conftest import STARTER_TEMPLATE, make_tokenizer

PLAIN_TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set s = '<<SYS>>' + messages[0].content + '<</SYS>>' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {% if loop.first %}{{ s }}{% endif %}{{ m.content }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
TRIMS = PLAIN_TURNS.replace("m.content", "m.content | upper")
COUNTS = "{% for m in messages %}{{ loop.index }}<{{ m.role }}>{{ m.content }}{% endfor %}"
TEMPLATES = {
    "the starter's": STARTER_TEMPLATE,
    "plain turns": PLAIN_TURNS,
    "without a template": tokens.PLAIN_TEMPLATE,
    "Llama 2's": LLAMA_2,
    "braces": PLAIN_TURNS.replace("</s>", "{{ '{{' }}"),
}


def go(text, talk):
    """Play the few constructs of Go's templates that are used."""
    system = next((turn["content"] for turn in talk if turn["role"] == "system"), "")
    given, default, rest, prompt = re.fullmatch(
        r"\{\{ if \.System \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)",
        text,
        re.S,
    ).groups()
    user, answer = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*?)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}', rest, re.S
    ).groups()

    def put(part, mark, value):
        return part.replace(mark, "\0").replace('{{ "{{" }}', "{{").replace("\0", value)

    said = put(given, "{{ .System }}", system) if system else put(default, "\1", "")
    for turn in talk:
        if turn["role"] != "system":
            said += put(user if turn["role"] == "user" else answer, "{{ .Content }}", turn["content"])
    return said + put(prompt, "\1", "")


@pytest.mark.parametrize("name", TEMPLATES)
def test_go_says_what_the_template_says(name):
    tokenizer = make_tokenizer(TEMPLATES[name])
    made = modelfile.make(tokenizer, "model.gguf")
    text = re.search(r'TEMPLATE """(.*)"""', made, re.S)[1]
    system = {"role": "system", "content": "You are brief."}
    talk = [("user", "Hello {{ you }}"), ("assistant", "Hi."), ("user", "Where is it?")]
    turns = [{"role": role, "content": content} for role, content in talk]
    for messages in (turns, turns[:1], [system, *turns]):
        assert go(text, messages) == tokens.render(tokenizer, messages, prompt=True)
    assert 'PARAMETER stop "<|im_end|>"' in made


@pytest.mark.parametrize(
    "template", [TRIMS, COUNTS, PLAIN_TURNS.replace("</s>", '"""')], ids=["changes", "counts", "quotes"]
)
def test_a_template_that_does_more_is_refused(template):
    with pytest.raises(ModelError, match="more than Ollama's templates can say"):
        modelfile.make(make_tokenizer(template), "model.gguf")
