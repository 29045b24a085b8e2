"""One run in words and figures: state line, notes, facts, result. Pure functions of the run's record and its curve."""

import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from studio.domain import words
from studio.domain.events import Warned
from studio.domain.methods import METHODS
from studio.domain.records import Run, Status
from studio.domain.safety import GuardConfig
from studio.services.curve import Curve, Point
from studio.services.runs import resumable
from studio.services.usage import Usage
from studio.ui import knobs, report
from studio.ui.chart import norm
from studio.ui.pieces import facts, head, html, note, section

PROCESSOR = "processor"  # the device that Started names when there is no card
CLOSING = "closing"  # the note that says what a run came to
TABLE = 12  # rows of the charts as a table


def heading(run: Run) -> str:
    """Return the run's name, and what is trained on what."""
    made = f" · became {run.adapter.replace('@', ' ')}" if run.adapter else ""
    line = f"{words.model_name(run.model)} · {METHODS[run.method].title} · {run.dataset}{made}"
    return html('<div data-run="{{ id }}">', id=run.id) + head(words.run_title(run.id), line) + "</div>"


def state_line(run: Run, curve: Curve, now: datetime | None = None) -> str:
    """Return the run's state in one line, with a bar while it is at work or may go on."""
    left, done = "", ""
    paused = run.status is Status.PAUSED
    if run.seconds_left:
        stands = paused or run.status is Status.QUEUED
        left = f"{words.interval(*run.seconds_left)} {'to go' if stands else 'left'}"
        ready = (now or datetime.now()) + timedelta(seconds=sum(run.seconds_left) / 2)
        done = "" if stands else f"done about {ready.hour}:{ready:%M}"
    return html(
        """<div class="p-line"><b>{{ state }}</b><span class="num">{{ at }}</span><span class="grow"></span>
<b class="num">{{ left }}</b><span class="num muted">{{ done }}</span></div>
{% if active %}<progress {% if steps %}max="{{ steps }}" value="{{ step }}"{% endif %}
 aria-label="Progress of the run"></progress>{% endif %}""",
        state=f"Paused at step {words.count(run.step)}." if paused and run.step else run.status.capitalize(),
        at=_held(run, curve) if paused else _where(run),
        left=left,
        done=done,
        active=run.status.active or paused,
        step=run.step,
        steps=run.steps,
    )


def _held(run: Run, curve: Curve) -> str:
    """Say what a paused run holds, which is nothing, and what it took."""
    held = curve.paused.memory_bytes if curve.paused else 0
    free = f"Memory is free: it held {words.size(held)}." if held else "Memory is free."
    return f"{free} {words.duration(run.seconds)} so far." if run.step else free


def _where(run: Run) -> str:
    step = f"step {words.count(run.step)} of {words.count(run.steps)}"
    after = words.duration(run.seconds)
    match run.status:
        case Status.TRAINING if run.step:
            return f"{step}, {after} so far"
        case Status.QUEUED:
            return run.phase or f"waiting to {'go on' if waits_to_go_on(run) else 'start'}"
        case Status.FINISHED:
            return f"took {after}, {words.plural(run.step, 'step')}"
        case status if status.active:
            return run.phase or ("measuring the base model" if run.steps else "the engine comes up")
        case _:
            return f"at {step}, after {after}" if run.step else f"before the first step, after {after}"


def waits_to_go_on(run: Run) -> bool:
    """Whether a run waits in the queue that an engine has worked on before: it can be what it was again."""
    return run.status is Status.QUEUED and run.started is not None


def resume_words(run: Run) -> str:
    """Return what the button says that lets the run go on."""
    return "Resume" if run.status is Status.PAUSED else f"Resume from step {words.count(run.checkpoint or 0)}"


def notes(run: Run, curve: Curve) -> str:
    """Return why a run ended, if not well, and what the engine warned of, each with the button that helps."""
    shown = ""
    said = run.status is Status.PAUSED and any(it.did == "paused" and it.step == run.step for it in curve.warnings)
    if run.error and not said:
        word, tone = {
            Status.FAILED: ("Failed", "bad"),
            Status.INTERRUPTED: ("Interrupted", "warn"),
            Status.STOPPED: ("Stopped", "warn"),
            Status.PAUSED: ("Paused", "warn"),
        }.get(run.status, ("No adapter", "bad"))
        shown = note(run.error, run.hint, word=word, tone=tone, urgent=True)
    newest = {warned.rule or warned.words: number for number, warned in enumerate(curve.warnings)}
    shown += "".join(_warning(run, number, curve.warnings[number]) for number in newest.values())
    return shown + _closing(run)


def _closing(run: Run) -> str:
    """Return what the run came to and what to do next, with the button that does it."""
    end = run.result.get("closing")
    if not end:
        return ""
    edit = end["edit"]
    advice = f"{end['advice']} Change: {changes(edit)}." if edit else end["advice"]
    act = (CLOSING, "New run with this change") if edit else ("", "")
    return note(end["words"], advice, word="Score", act=act)


def _warning(run: Run, number: int, warned: Warned) -> str:
    rule = GuardConfig.model_fields.get(warned.rule)
    act = ("", "")
    if warned.edit and warned.did != "acted":  # then the change was made already
        act = (str(number), "Resume with this change" if resumable(run, warned.edit) else "New run with this change")
    return note(
        warned.words,
        " ".join(filter(None, [warned.hint, f"Change: {changes(warned.edit)}." if act[1] else ""])),
        word=(rule.title if rule else None) or "Note",
        tone="warn",
        urgent=warned.did == "paused" and run.status is Status.PAUSED,
        act=act,
    )


def changes(edit: dict[str, Any]) -> str:
    """Return a change of settings in words, each setting under the name it has in the form."""
    fields = knobs.fields()
    titles = {key: fields[key]["title"] if key in fields else key for key in edit}
    return ", ".join(f"{titles[key]} {knobs.label(key, value)}" for key, value in edit.items())


def figures(run: Run, curve: Curve, memory: int, usage: Usage | None = None) -> str:
    """Return the strip of live numbers; `memory` is all that the machine or its card has, in bytes."""
    on_card = curve.started is not None and curve.started.device != PROCESSOR
    used = run.result.get("peak_memory_bytes") or run.memory_bytes
    if usage and not used:  # before the first step
        used = usage.gpu_memory_bytes if on_card else usage.memory_bytes
    size, unit = words.size(used).split(" ") if used else ("", "")
    speed = run.result.get("tokens_per_second") or run.tokens_per_second
    down, tone = trend(curve.losses.recent) if run.status.active else ("", "")
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
            "note": f"{words.short(run.tokens)} tokens {'in all' if run.status is Status.FINISHED else 'so far'}",
        },
        {
            "label": "Graphics memory" if on_card else "Memory",
            "value": size,
            "unit": f"{unit} of {words.size(memory)}" if memory else unit,
            "note": "peak" if "peak_memory_bytes" in run.result else "" if run.status.active else "at the last step",
        },
        *busy(usage),
        {
            "label": "Learning rate",
            "value": words.rate(run.learning_rate or 0) if run.status.active else "",
            "note": direction(curve.rates.recent),
        },
    ]
    return facts(cells) if run.step or usage else ""


def busy(usage: Usage | None) -> Iterable[dict[str, Any]]:
    """Return the cells of processor and card: how much of each is at work, and how warm it is."""
    usage = usage or Usage()
    warm = "" if usage.processor_celsius is None else f"{usage.processor_celsius:.0f} °C"
    yield {"label": "Processor", **_share(usage.processor_share), "note": warm}
    warm = "" if usage.gpu_celsius is None else f"{usage.gpu_celsius:.0f} °C"
    power = "" if usage.gpu_watts is None else f"{usage.gpu_watts:.0f} W"
    yield {"label": "Graphics card", **_share(usage.gpu_share), "note": ", ".join(filter(None, [warm, power]))}


def _share(share: float | None) -> dict[str, str]:
    return {} if share is None else {"value": f"{share * 100:.0f}", "unit": "%"}


def _three(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def trend(losses: Sequence[Point]) -> tuple[str, str]:
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


def direction(rates: Sequence[Point]) -> str:
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


def asked(samples: dict[int, list[dict[str, str]]], step: int) -> str:
    """Return what the model answered to the fixed questions after this step, beside the base model."""
    base = samples.get(0, [])
    lines = [
        answer | {"base": base[row]["text"] if row < len(base) else ""} for row, answer in enumerate(samples[step])
    ]
    return html(
        """<div class="answers"><table><thead><tr><th>Question</th>{% if base %}<th>Base model</th>{% endif %}
{% if step %}<th>Step {{ at }}</th>{% endif %}</tr></thead><tbody>{% for it in lines %}<tr>
<td>{{ it.prompt }}{% if it.expected %} <small class="muted">Expected: {{ it.expected }}</small>{% endif %}</td>
{% if base %}<td class="muted" data-th="Base model">{{ it.base }}</td>{% endif %}
{% if step %}<td data-th="Step {{ at }}">{{ it.text }}</td>{% endif %}</tr>{% endfor %}</tbody></table></div>""",
        lines=lines,
        base=base,
        step=step,
        at=words.count(step),
    )


def table(curve: Curve) -> str:
    """Return the charts as a table: some steps evenly spread, and those the held-out loss was measured at."""
    lines = [dict(series.means) for series in (curve.losses, curve.rates, curve.norms)]
    steps = sorted(lines[0])
    spread = {steps[(len(steps) - 1) * i // (TABLE - 1)] for i in range(TABLE)} if steps else set()
    checks = sorted(curve.checks)[-TABLE:]
    cells = [
        (
            words.count(step),
            _three(lines[0].get(step)),
            _three(curve.checks.get(int(step))) if step == int(step) else "",
            words.rate(lines[1][step]) if step in lines[1] else "",
            norm(lines[2][step]) if step in lines[2] else "",
        )
        for step in sorted(spread.union(checks))
    ]
    return html(
        """<div class="numbers"><table><thead><tr>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td class="num">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>""",
        names=("Step", "Training loss", "Held-out loss", "Learning rate", "Gradient norm"),
        rows=cells,
    )
