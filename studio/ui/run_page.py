"""One run in words and figures: state line, notes, facts, result. Pure functions of the run's record and its curve."""

import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from studio.domain import words
from studio.domain.methods import METHODS
from studio.domain.records import Run, Status
from studio.ui import chart, report
from studio.ui.pieces import facts, head, html, note, section
from studio.ui.watch import Curve

PROCESSOR = "processor"  # the device that Started names when there is no card


def heading(run: Run) -> str:
    """Return the run's name, and what is trained on what."""
    made = f" · became {run.adapter.replace('@', ' ')}" if run.adapter else ""
    line = f"{words.model_name(run.model)} · {METHODS[run.method].title} · {run.dataset}{made}"
    return html('<div data-run="{{ id }}">', id=run.id) + head(words.run_title(run.id), line) + "</div>"


def state_line(run: Run, now: datetime | None = None) -> str:
    """Return the run's state in one line, with a bar while it is at work."""
    left, done = "", ""
    if run.seconds_left:
        left = f"{words.interval(*run.seconds_left)} left"
        ready = (now or datetime.now()) + timedelta(seconds=sum(run.seconds_left) / 2)
        done = f"done about {ready.hour}:{ready:%M}"
    return html(
        """<div class="p-line"><b>{{ state }}</b><span class="num">{{ at }}</span><span class="grow"></span>
<b class="num">{{ left }}</b><span class="num muted">{{ done }}</span></div>
{% if active %}<progress {% if steps %}max="{{ steps }}" value="{{ step }}"{% endif %}
 aria-label="Progress of the run"></progress>{% endif %}""",
        state=run.status.capitalize(),
        at=_where(run),
        left=left,
        done=done,
        active=run.status.active,
        step=run.step,
        steps=run.steps,
    )


def _where(run: Run) -> str:
    step = f"step {words.count(run.step)} of {words.count(run.steps)}"
    after = words.duration(run.seconds)
    match run.status:
        case Status.TRAINING if run.step:
            return step
        case Status.QUEUED:
            return run.phase or "waiting to start"
        case Status.FINISHED:
            return f"took {after}, {words.plural(run.step, 'step')}"
        case status if status.active:
            return run.phase or ("measuring the base model" if run.steps else "the engine comes up")
        case _:
            return f"at {step}, after {after}" if run.step else f"before the first step, after {after}"


def notes(run: Run, curve: Curve) -> str:
    """Return why a run ended, if not well, and what the engine warned of."""
    shown = ""
    if run.error:
        word, tone = {
            Status.FAILED: ("Failed", "bad"),
            Status.INTERRUPTED: ("Interrupted", "warn"),
            Status.STOPPED: ("Stopped", "warn"),
        }.get(run.status, ("No adapter", "bad"))
        shown = note(run.error, run.hint, word=word, tone=tone, urgent=True)
    return shown + "".join(note(warned.words, warned.hint, word="Note", tone="warn") for warned in curve.warnings)


def figures(run: Run, curve: Curve, memory: int) -> str:
    """Return the strip of live numbers; `memory` is all that the machine or its card has, in bytes."""
    on_card = curve.started is not None and curve.started.device != PROCESSOR
    used = run.result.get("peak_memory_bytes") or run.memory_bytes
    size, unit = words.size(used).split(" ") if used else ("", "")
    speed = run.result.get("tokens_per_second") or run.tokens_per_second
    down, tone = trend(curve.losses) if run.status.active else ("", "")
    held, held_tone = against(curve.held)
    cells: list[dict[str, Any]] = [
        {"label": "Training loss", "value": _three(run.loss), "note": down, "tone": tone},
        {
            "label": "Held-out loss",
            "value": _three(curve.held[-1][1] if curve.held[1:] else None),
            "note": held,
            "tone": held_tone,
        },
        {
            "label": "Speed",
            "value": words.count(speed) if speed else "",
            "unit": "tokens/s",
            "note": f"{words.short(run.tokens)} tokens {'so far' if run.status.active else 'in all'}",
        },
        {
            "label": "Graphics memory" if on_card else "Memory",
            "value": size,
            "unit": f"{unit} of {words.size(memory)}" if memory else unit,
            "note": "peak" if "peak_memory_bytes" in run.result else "",
        },
        {
            "label": "Learning rate",
            "value": words.rate(run.learning_rate or 0) if run.status.active else "",
            "note": direction(curve.rates),
        },
    ]
    return facts(cells) if run.step else ""


def _three(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def trend(losses: Sequence[chart.Point]) -> tuple[str, str]:
    """Say how the training loss moved over the last 100 steps, or half of a shorter run; nothing before 10 steps."""
    back = min(100, len(losses) // 2)
    if back < 5:
        return "", ""
    some = min(15, back)
    values = [loss for _, loss in losses]
    change = statistics.fmean(values[-some:]) - statistics.fmean(values[-some - back : -back])
    if abs(change) < 0.005:
        return f"steady for {back} steps", ""
    return (
        (f"down {-change:.2f} in {back} steps", "good") if change < 0 else (f"up {change:.2f} in {back} steps", "warn")
    )


def against(checks: Sequence[tuple[int, float]]) -> tuple[str, str]:
    """Say where the held-out loss stands: above its lowest check, else against the base model's."""
    if len(checks) < 2:
        return "", ""
    last = checks[-1][1]
    best_step, best = min(checks, key=lambda check: check[1])
    if best_step and last - best >= 0.005:
        return f"up {last - best:.2f} since step {words.count(best_step)}", "warn"
    first_step, first = checks[0]
    if first_step:
        return "", ""
    return (f"base model {first:.3f}", "good" if last < first else "bad")


def direction(rates: Sequence[chart.Point]) -> str:
    """Say whether the learning rate rises or falls."""
    if len(rates) < 2 or rates[-1][1] == rates[-2][1]:
        return ""
    return "rising" if rates[-1][1] > rates[-2][1] else "falling"


def result(run: Run) -> str:
    """Return whether it got better, in a sentence and a table, once the run is over."""
    if not run.result:
        return ""
    measured = run.result.get("eval")
    if not measured:
        return report.verdict("Not measured: no rows were held out to compare on.")
    return section("Did it get better?") + report.verdict(measured["verdict"]) + report.table(measured)


def answers(run: Run) -> str:
    """Return some held-out questions with the answers of both."""
    measured = run.result.get("eval") or {}
    if not measured.get("samples"):
        return ""
    return section("Answers to held-out questions", "Neither the questions nor the answers were trained on.") + (
        report.samples(measured)
    )
