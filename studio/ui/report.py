"""How a comparison of base and adapter is shown: the verdict, the table, the intervals, the answers."""

from collections.abc import Mapping
from typing import Any

from studio.domain.metrics import lines
from studio.domain.words import count
from studio.ui.pieces import html

# The first words of a verdict, the longer ones before those they begin with; their tone.
VERDICTS = {"Not better": "warn", "Not measured": "", "Better": "good", "Mixed": "warn", "Worse": "bad"}

TABLE_ONLY = {"perplexity", "rouge_l", "chrf", "accuracy"}  # each close to another measure, which has a plot


def verdict(sentence: str) -> str:
    """Return the verdict, its first word in its tone."""
    word = next((word for word in VERDICTS if sentence.startswith(word)), "")
    return html(
        '<p class="verdict"><b class="{{ tone }}">{{ word }}</b>{{ rest }}</p>',
        tone=VERDICTS.get(word, ""),
        word=word,
        rest=sentence[len(word) :],
    )


def table(report: Mapping[str, Any]) -> str:
    """Return base against adapter, a metric a row, with the difference and its 95 % interval."""
    shown = [
        {
            "name": line.metric.name,
            "good": line.metric.good,
            "base": line.metric.value(line.base),
            "adapter": line.metric.value(line.adapter),
            "difference": line.difference,
            "tone": line.metric.tone(line.found),
        }
        for line in lines(report)
        if line.found
    ]
    return html(
        """{% if lines %}<div class="answers"><table><thead><tr><th>On {{ rows }} held-out rows</th><th>Base model</th>
<th>Adapter</th><th>Difference, 95 % interval</th></tr></thead><tbody>{% for it in lines %}<tr>
<td>{{ it.name }} <small class="muted">{{ it.good }}</small></td>
<td class="num muted" data-th="Base model">{{ it.base }}</td><td class="num" data-th="Adapter">{{ it.adapter }}</td>
<td class="num {{ it.tone }}" data-th="Difference, 95 % interval">{{ it.difference }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}""",
        lines=shown,
        rows=count(report.get("rows", 0)),
    )


def samples(report: Mapping[str, Any], most: int = 5) -> str:
    """Return the first held-out questions: what was expected, what each model said."""
    return html(
        """<div class="answers"><table><thead><tr><th>Question</th><th>Expected</th><th>Base model</th><th>Adapter</th>
</tr></thead><tbody>{% for it in lines %}<tr><td>{{ it.prompt }}</td>
<td class="muted" data-th="Expected">{{ it.expected }}</td>
<td class="muted" data-th="Base model">{{ it.base }}</td><td data-th="Adapter">{{ it.adapter }}</td></tr>
{% endfor %}</tbody></table></div>""",
        lines=(report.get("samples") or [])[:most],
    )


def intervals(report: Mapping[str, Any]) -> str:
    """Return a small plot a metric: a dot for the difference, a bar for its interval, a tick at zero."""
    shown = [(line.metric, line.found) for line in lines(report) if line.found and line.key not in TABLE_ONLY]
    reach = {True: 0.2, False: 0.5}  # the plot's half width, one for all shares and one for the loss
    for metric, found in shown:
        reach[metric.share] = max(reach[metric.share], 1.15 * max(abs(found["low"]), abs(found["high"])))
    drawn = []
    for metric, found in shown:
        said, span = metric.change(found)
        places = {name: round(110 + found[name] / reach[metric.share] * 100, 1) for name in ("low", "mean", "high")}
        colour = f"var(--{metric.tone(found) or 'muted'})"
        drawn.append({"name": metric.name, "good": metric.good, "said": said, "span": span, "colour": colour} | places)
    return html(
        """{% for it in lines %}<div class="iv"><span>{{ it.name }}</span>
<svg viewBox="0 0 220 18" width="220" height="18" role="img" aria-label="{{ it.said }}, {{ it.span }}; {{ it.good }}">
<line x1="10" x2="210" y1="9" y2="9" stroke="var(--line)"/>
<line x1="110" x2="110" y1="2" y2="16" stroke="var(--field)"/>
<line x1="{{ it.low }}" x2="{{ it.high }}" y1="9" y2="9" stroke="{{ it.colour }}" stroke-width="3"/>
<circle cx="{{ it.mean }}" cy="9" r="5" fill="{{ it.colour }}"/></svg>
<b class="num">{{ it.said }}</b><span class="muted num">{{ it.span }} · {{ it.good }}</span></div>{% endfor %}""",
        lines=drawn,
    )
