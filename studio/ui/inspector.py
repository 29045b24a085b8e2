"""What a model learns of an example, on the Data tab: its exact text with marks, figures, a limit to try, findings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.document import from_document
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.domain.records import Model
from studio.domain.supervision import LEVELS, READS, Supervision
from studio.services import apart, sample
from studio.services.models import STARTER
from studio.services.sample import Subject
from studio.studio import Studio
from studio.ui.common import QUIET, phases, problem
from studio.ui.findings import listed
from studio.ui.pieces import block, busy, facts, html, section

FEWEST = 32  # tokens; the smallest limit a run may have
SHOWN = 4_000  # characters of a span, half of them from its end
TONES = {"must": "bad", "should": "warn", "note": ""}
EXPLAINED = "A model reads an example in the form of its own chat template. Choose one to see it exactly."
TRYING = "For looking only: a run's limit is set in Train."

Update = dict[Any, Any]


@dataclass(frozen=True)
class Inspector:
    """The section: what it draws on, and what empties it when another file or data set is opened."""

    outputs: list[Any]
    reset: Callable[[bool], Update]


def build(studio: Studio, item: gr.State, file: gr.State, found: gr.State, number: gr.Slider) -> Inspector:
    """Build the section for what is open: the file in `file` with its first examples in `found`, else a data set."""
    at = gr.State()  # what is looked at: {model, subject, max_length}
    with gr.Column() as whole:
        with gr.Row(elem_classes="inline"):
            model = gr.Dropdown(label="For which model", info=EXPLAINED, interactive=True, min_width=240)
            press = gr.Button("Show what it learns", size="md", scale=0, min_width=180)
        said = block()
        with gr.Column(visible=False) as result:
            text, figures = block(), block()
            length = gr.Slider(
                FEWEST,
                FEWEST + 1,
                step=1,
                label="Longest example, tokens",
                info=TRYING,
                buttons=[],
                interactive=True,
                elem_classes="narrow",
            )
            judged = block()
    outputs = [whole, model, press, said, result, text, figures, length, judged, at]

    def reset(any_example: bool) -> Update:
        choices = models(studio)
        return {
            whole: gr.update(visible=any_example),
            model: gr.Dropdown(choices, value=choices[0][1]),
            press: gr.Button(interactive=True),
            said: "",
            result: gr.update(visible=False),
            at: None,
        }

    def show(chosen: str, opened: str, file: dict[str, Any] | None, found: list[Any], place: float) -> Iterator[Update]:
        """Draw a sample, get the model if it is not here, and look."""
        yield {press: gr.Button(interactive=False), said: busy("Drawing a sample of the examples")}
        try:
            subject = None
            for answer in subject_of(studio, opened, file, found, int(place) - 1):
                if isinstance(answer, Phase):
                    yield {said: busy(answer.words, answer.done, answer.total)}
                else:
                    subject = answer
            base = studio.models.find(chosen)
            for fetched in phases(lambda report: base or studio.models.resolve(chosen, "", report)):
                if isinstance(fetched, Phase):
                    yield {said: busy(fetched.words, fetched.done, fetched.total)}
                elif subject:
                    yield from looked({"model": fetched.model_dump(), "subject": subject, "max_length": "auto"})
        except StudioError as error:
            yield {said: problem(error, "Not shown"), press: gr.Button(interactive=True)}

    def looked(now: dict[str, Any]) -> Iterator[Update]:
        """Show what the engine says of `now`."""
        base, subject = Model.model_validate(now["model"]), Subject.model_validate(now["subject"])
        data = {"path": subject.path, "max_length": now["max_length"]}
        for answer in studio.inspect.look(base, subject, from_document({"model": {"id": base.id}, "data": data})):
            if isinstance(answer, Phase):
                yield {said: busy(answer.words)}
                continue
            trying = now["max_length"] != "auto"
            most = max(answer.sample.longest, FEWEST + 1)
            yield {
                press: gr.Button(interactive=True),
                said: "",
                result: gr.update(visible=True),
                text: drawn(answer),
                figures: facts(cells(answer)),
                length: gr.skip() if trying else gr.Slider(maximum=most, value=min(answer.limit, most)),
                judged: judgement(answer),
                at: now | {"subject": subject.model_dump()},
            }

    def again(now: dict[str, Any] | None, **change: Any) -> Iterator[Update]:
        """Look once more with something changed; without a look before, nothing is shown yet."""
        if not now:
            return
        try:
            yield from looked(now | change)
        except StudioError as error:
            yield {said: problem(error, "Not shown")}

    def turn(now: dict[str, Any] | None, opened: str, found: list[Any], place: float) -> Iterator[Update]:
        if now:
            example = example_at(studio, opened, found, int(place) - 1)
            yield from again(now, subject=now["subject"] | {"example": example})

    def try_length(now: dict[str, Any] | None, most: float) -> Iterator[Update]:
        yield from again(now, max_length=int(most))

    press.click(show, [model, item, file, found, number], outputs, **QUIET)
    number.input(turn, [at, item, found, number], outputs, trigger_mode="always_last", **QUIET)
    length.input(try_length, [at, length], outputs, trigger_mode="always_last", **QUIET)
    return Inspector(outputs, reset)


def models(studio: Studio) -> list[tuple[str, str]]:
    """Return the models to choose from, as (what is shown, id): the starter first, here or not, then those here."""
    ids = dict.fromkeys([STARTER, *(each.id for each in studio.models.list())])
    return [(words.model_name(id), id) for id in ids]


def subject_of(
    studio: Studio, opened: str, file: dict[str, Any] | None, found: list[Any], index: int
) -> Iterator[Phase | Subject]:
    """Yield phases, then the example that is shown with a sample of those around it."""
    example = example_at(studio, opened, found if file else [], index)
    if file:
        yield from apart.sample(studio.home, file["path"], map=file["map"], row=example["row"])
    else:
        yield sample.of_dataset(studio.home, studio.datasets.get(opened), example)


def example_at(studio: Studio, opened: str, found: list[Any], index: int) -> dict[str, Any]:
    """Return the example that is shown: of the first of a file, else of a data set."""
    return found[min(index, len(found) - 1)] if found else studio.datasets.example(opened, index)


def drawn(seen: Supervision) -> str:
    """Return the exact text: what is learned marked, what ends an answer as a chip, what is cut off struck out."""
    spans = [(_short(span.text.removesuffix(span.end)), span) for span in seen.spans]
    return html(
        """<p class="reads">{{ reads }}</p>
<div class="key"><span><mark>Trained</mark> the model learns to write this</span>
<span><b>Plain</b> read, not trained</span>
<span><mark><b class="stop">End</b></mark> where it learns to stop</span>
{% if cut %}<span><s>Cut</s> beyond the limit</span>{% endif %}</div>
<div class="exact" tabindex="0" role="region" aria-label="Row {{ row }} as the model reads it">
{%- for text, span in spans -%}
{%- if span.trained %}<mark>{{ text }}{% if span.end %}<b class="stop">{{ span.end }}</b>{% endif %}</mark>
{%- elif span.cut %}<s>{{ text }}{% if span.end %}<b class="stop">{{ span.end }}</b>{% endif %}</s>
{%- else %}{{ text }}{{ span.end }}{% endif -%}
{%- endfor -%}</div>""",
        reads=READS,
        spans=spans,
        row=seen.row,
        cut=seen.truncated_tokens,
    )


def cells(seen: Supervision) -> list[dict[str, Any]]:
    """Return the figures of a look."""
    sampled, stops = seen.sample, seen.terminator.trained
    counted = f"counted in {sampled.words}" if sampled.of == sampled.rows else f"estimated from {sampled.words}"
    return [
        {"label": "Trained", "value": f"{seen.trained_tokens:,} of {seen.tokens:,}", "unit": "tokens"},
        {
            "label": "End of the answer",
            "value": "Trained" if stops else "Not trained",
            "note": seen.terminator.text,
            "tone": "good" if stops else "bad",
        },
        {"label": "Cut off", "value": words.count(seen.truncated_tokens), "unit": "tokens"},
        {
            "label": f"Answers beyond {words.count(seen.limit)} tokens",
            "value": words.percent(sampled.lost),
            "note": counted,
            "tone": "warn" if sampled.lost_tokens else "",
        },
    ]


def judgement(seen: Supervision) -> str:
    """Return what is wrong, each with its remedy, or that nothing is."""
    items = [
        {"word": LEVELS[each.level], "tone": TONES[each.level], "title": each.title, "lines": [each.why, each.remedy]}
        for each in seen.findings
    ]
    if not items:
        return html("<p class='muted'>Nothing is wrong with how this model would learn it.</p>")
    return section("What to look at") + listed(items)


def _short(text: str) -> str:
    """Leave out the middle of a very long text: a page that holds a book answers no more."""
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]}\n[… {words.count(len(text) - SHOWN)} characters not shown …]\n{text[-half:]}"
