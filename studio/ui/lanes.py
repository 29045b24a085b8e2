"""The lanes of the chat: a conversation as one of those who answer knows it, as messages and as HTML."""

from typing import Any

from studio.domain.events import Phase
from studio.domain.records import Model
from studio.domain.words import model_name
from studio.services.chat import Done
from studio.services.progress import words as phase_words
from studio.ui.pieces import html

NO_ADAPTER = " (no adapter)"  # the end of the choice that is a base model alone; any other choice is an adapter's ref
Turn = dict[str, Any]  # {"asked": text, "answers": {choice: {"text": …, "figures": …}}, "expected": what the data says}


def bare(model: Model) -> str:
    """Return the choice that is this model alone."""
    return model_name(model.id) + NO_ADAPTER


def worn(choice: str) -> str | None:
    """Return the adapter of a choice."""
    return None if choice.endswith(NO_ADAPTER) else choice


def name_of(choice: str) -> str:
    """Return who answers, as it stands over a lane: support-desk v3."""
    return choice.replace("@", " ") if worn(choice) else choice


def spoken(choice: str, history: list[Turn], instruction: str = "") -> list[dict[str, str]]:
    """Return the conversation as this one knows it: what it was told, asked and said, and the question that is open."""
    messages = [{"role": "system", "content": instruction}] if instruction else []
    for turn in history[:-1]:
        if reply := turn["answers"].get(choice):
            messages += [
                {"role": "user", "content": turn["asked"]},
                {"role": "assistant", "content": reply["text"]},
            ]
    return [*messages, {"role": "user", "content": history[-1]["asked"]}]


def waiting_for(phase: Phase, name: str) -> str:
    """Return what goes on before the first word. The engine knows the model by its folder, the reader by its name."""
    loading = phase.words.startswith("Loading ")
    return phase_words(phase.model_copy(update={"words": f"Loading {name}"}) if loading else phase)


def figures(done: Done) -> str:
    """Return how quick an answer was: first word 0.4 s · 38 tokens/s · swap 12 ms."""
    said = []
    if done.first_token_seconds is not None:
        said.append(f"first word {done.first_token_seconds:.1f} s")
    if done.tokens_per_second:
        said.append(f"{done.tokens_per_second:.0f} tokens/s")
    if done.swap_seconds:
        said.append(f"swap {done.swap_seconds * 1000:.0f} ms")
    return " · ".join([*said, *(["stopped"] if done.stopped else [])])


def figures_of(choice: str, history: list[Turn]) -> str:
    """Return the figures of the last answer of this one."""
    return next((t["answers"][choice]["figures"] for t in reversed(history) if choice in t["answers"]), "")


def lane_head(choice: str, said: str) -> str:
    return html(
        '<div class="lane-head"><b>{{ name }}</b><span class="muted num">{{ said }}</span></div>',
        name=name_of(choice),
        said=said,
    )


def talk(choice: str, history: list[Turn], waiting: str = "") -> str:
    """Return a lane's conversation. What a model writes is text here: neither HTML nor Markdown of it is obeyed."""
    mine = [
        turn | {"place": place}
        for place, turn in enumerate(history)
        if choice in turn["answers"] or turn is history[-1]
    ]
    return html(
        """<ol class="said" aria-label="Conversation with {{ name }}">{% for turn in mine %}
<li class="user"><span class="role">You</span>
<button class="edit" data-id="{{ turn.place }}" aria-label="Edit question {{ turn.place + 1 }}">Edit</button>
<p>{{ turn.asked }}</p></li>
{% set answer = turn.answers[choice] %}{% if answer and (answer.text or answer.over) %}
<li><span class="role">{{ name }}</span><p>{{ answer.text or "It ended without a word." }}</p></li>{% endif %}
{% if turn.expected %}
<li class="expected"><span class="role">In the data</span><p>{{ turn.expected }}</p></li>{% endif %}
{% else %}
<li class="none muted">Ask something your data answers.</li>{% endfor %}
{% if waiting %}<li class="muted" role="status"><p>{{ waiting }}</p></li>{% endif %}</ol>""",
        mine=mine,
        choice=choice,
        name=name_of(choice),
        waiting=waiting,
    )
