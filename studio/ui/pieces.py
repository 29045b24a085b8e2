"""The HTML pieces: pure functions, data in, escaped HTML out. Nothing here knows Gradio but `block`."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

import gradio as gr
from jinja2 import Environment, Template
from markupsafe import Markup, escape

from studio.domain.terms import split
from studio.domain.words import said

ENV = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
CODE = re.compile("`([^`]+)`")

# One listener on the component, so rows may change under it; gr.SelectData then has .index = the row's id.
CLICK = """element.addEventListener('click', e => {
  const row = e.target.closest('[data-id]');
  if (row && element.contains(row)) trigger('select', {index: row.dataset.id, value: row.dataset.id});
});"""


def code(text: str) -> Markup:
    """Show what stands in `backticks` as code; everything else is escaped."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def explained(text: str) -> Markup:
    """Show each of the field's terms as a button that says what it means; everything else as `code` does.

    A popover is drawn above everything, opens by pointer, touch and keyboard, and needs no script.
    """
    parts = []
    for piece, term in split(str(text)):
        if not term:
            parts.append(code(piece))
            continue
        id = f"term-{crc32(f'{text}{term.name}'.encode()):x}"  # the same in each drawing of the same text
        parts.append(
            Markup(
                '<dfn><button type="button" popovertarget="{0}">{1}</button></dfn>'
                '<span popover id="{0}" role="note"><b>{2}</b> {3}</span>'
            ).format(id, piece, term.name, term.text)
        )
    return Markup("").join(parts)


ENV.filters["code"] = code
ENV.filters["explained"] = explained


@lru_cache(maxsize=64)
def _template(source: str) -> Template:
    return ENV.from_string(source)


def html(template: str, **values: Any) -> str:
    """Fill a Jinja template, escaping every value.

    Data never goes through gr.HTML's own templates: `${…}` inside a value would run as JavaScript there.
    """
    return _template(template).render(values)


def block(text: str = "", **options: Any) -> gr.HTML:
    """Make a gr.HTML without the prose style, showing exactly this HTML."""
    return gr.HTML(text, apply_default_css=False, **options)


def choices(text: str = "", more: str = "", **options: Any) -> gr.HTML:
    """Make a block of `rows` that answers to `.select`; the handler's gr.SelectData has the id in `.index`.

    `more` is JavaScript that runs once besides.
    """
    return block(text, js_on_load=CLICK + more, **options)


def head(title: str, text: str = "") -> str:
    """Return the view's heading and its one grey line."""
    return html(
        "<h1>{{ title }}</h1>{% if text %}<p class='muted'>{{ text | code }}</p>{% endif %}", title=title, text=text
    )


def section(title: str, text: str = "") -> str:
    """Return a section's heading and its one grey line."""
    return html(
        "<h2>{{ title }}</h2>{% if text %}<p class='muted'>{{ text | explained }}</p>{% endif %}",
        title=title,
        text=text,
    )


def muted(text: str) -> str:
    """Return one grey line, or nothing."""
    return html("{% if text %}<p class='muted num'>{{ text }}</p>{% endif %}", text=text)


def bar(title: str, machine: str, now: Mapping[str, Any] | None, share: float = 0, notices: str = "[]") -> str:
    """Return the strip above the tabs; `now` = {id, name, figure, left} of the active run.

    `title` is the page's, `share` how far the run is, for the page's icon, `notices` JSON of what the browser may tell.
    """
    return html(
        """<div class="bar" data-title="{{ title }}" data-notices="{{ notices }}"
 data-share="{{ '%.2f' | format(share) if share else '' }}"><b>PEFT Studio</b>
{% if now %}<button class="now" data-id="{{ now.id }}"><span class="dot"></span><span class="t">{{ now.name }}</span>
<span class="num">{{ now.figure }}</span><span class="muted wide num">{{ now.left }}</span></button>{% endif %}
<span class="grow"></span><span class="muted wide num">{{ machine }}</span></div>""",
        title=title,
        machine=machine,
        now=now,
        share=share,
        notices=notices,
    )


def facts(cells: Iterable[Mapping[str, Any]]) -> str:
    """Return a strip of cells {label, value, unit, note, tone}; one without a value is left out."""
    return html(
        """<dl class="facts">{% for it in cells %}<div class="{{ it.tone }}"><dt>{{ it.label | explained }}</dt>
<dd><span class="num">{{ it.value }}</span>{% if it.unit %} <small>{{ it.unit }}</small>{% endif %}</dd>
{% if it.note %}<dd class="remark">{{ it.note }}</dd>{% endif %}</div>{% endfor %}</dl>""",
        cells=[cell for cell in cells if cell.get("value") not in (None, "")],
    )


def rows(items: Iterable[Mapping[str, Any]], label: str, empty: str = "Nothing here yet.") -> str:
    """Return a clickable list. Item: {id, title, text, meta: up to three, state, tone, selected, percent, actions}.

    An action is a pair (id, text) and becomes a button of its own beside the row.
    """
    return html(
        """<ul class="rows" aria-label="{{ label }}">{% for it in items %}
<li><button data-id="{{ it.id }}" {% if it.selected is defined %}aria-pressed="{{ 'true' if it.selected else 'false' }}"{% endif %}>
<span class="main"><span class="title">{{ it.title }}{% if it.state %}<em class="{{ it.tone }}">{{ it.state }}</em>{% endif %}</span>
{% if it.text %}<span class="text">{{ it.text }}</span>{% endif %}</span>
<span class="meta num">{% for cell in ((it.meta or []) + ["", "", ""])[:3] %}<span>{{ cell }}</span>{% endfor %}</span>
{% if it.percent is defined %}<span class="track"><span style="width:{{ it.percent }}%"></span></span>{% endif %}
</button>{% if it.actions %}<span class="acts">{% for act, name in it.actions %}
<button data-id="{{ act }}" aria-label="{{ name }}: {{ it.title }}">{{ name }}</button>{% endfor %}</span>{% endif %}
</li>{% else %}<li class="none">{{ empty }}</li>{% endfor %}</ul>""",  # noqa: E501
        items=list(items),
        label=label,
        empty=empty,
    )


def note(
    title: str, text: str = "", *, word: str = "", tone: str = "", urgent: bool = False, act: tuple[str, str] = ("", "")
) -> str:
    """Return one message that stays. `urgent` when it asks for a decision.

    `act` = (id, words) is the button of its remedy, which a block of `choices` answers to; others stand beside it.
    """
    return html(
        """<div class="note {{ tone }}" role="{{ 'alert' if urgent else 'status' }}">
{% if word %}<strong>{{ word }}</strong>{% endif %}<div>
<b>{{ title | code }}</b> <span>{{ text | code }}</span></div>
{% if act[1] %}<button class="act" data-id="{{ act[0] }}">{{ act[1] }}</button>{% endif %}</div>""",
        title=title,
        text=text,
        word=word,
        tone=tone,
        urgent=urgent,
        act=act,
    )


def busy(words: str, done: float | None = None, total: float | None = None) -> str:
    """Return what is being done, in words, with a bar that is full only as far as it is known."""
    return html(
        """<div class="p-line" role="status"><span>{{ words }}</span></div>
<progress {% if total %}max="{{ total }}" value="{{ done or 0 }}"{% endif %} aria-label="{{ words }}"></progress>""",
        words=words,
        done=done,
        total=total,
    )


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and what they stand for; a pair without a value is left out."""
    return html(
        """<dl class='defs'>{% for a, b in pairs %}<div><dt>{{ a | explained }}</dt><dd>{{ b | explained }}</dd></div>
{% endfor %}</dl>""",
        pairs=[pair for pair in pairs if pair[1]],
    )


def example(record: Mapping[str, Any]) -> str:
    """Return one canonical example as turns, with what the model learns to write marked."""
    turns = record.get("messages") or [{"role": "text", "content": record.get("text", "")}]
    return html(
        """<div class="key"><span><mark>Trained</mark> the model learns to write this</span>
<span><b>Plain</b> read, not trained</span></div>
<ol class="turns">{% for it in turns %}<li><span class="role">{{ it.role }}</span>
<p>{% if it.role in ("assistant", "text") and it.weight != 0 %}<mark>{{ said(it) }}</mark>{% else %}{{ said(it) }}\
{% endif %}</p></li>
{% endfor %}</ol>""",
        turns=turns,
        said=said,
    )
