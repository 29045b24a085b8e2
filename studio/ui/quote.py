"""What a run will need, drawn: memory by part against the room there is, time, cost, and the changes that need less."""

from typing import Any

from studio.domain import words
from studio.domain.quote import Quote
from studio.domain.records import Run, Status
from studio.ui.pieces import html, section

BASES = {
    "rough": "rough: nothing like it was trained here yet",
    "calculated": "calculated from the run's rows",
    "measured": "by what was measured here",
}


def cells(quote: Quote) -> list[dict[str, Any]]:
    """Return memory, time and cost as cells of `facts`."""
    size, unit = words.size(quote.peak_memory_bytes).split(" ")
    span = words.interval(quote.low, quote.high)
    energy = f"{quote.energy_kwh:.2g} kWh" if quote.energy_kwh else ""
    return [
        {
            "label": "Memory",
            "value": size,
            "unit": f"{unit} of {words.size(quote.room_bytes)}",
            "note": BASES[quote.memory_basis] if quote.fits else "more than there is",
            "tone": "" if quote.fits else "bad",
        },
        {"label": "Time", "value": span, "note": BASES[quote.time_basis]},
        {"label": "Electricity", "value": words.price(quote.cost, quote.currency) or energy, "note": energy},
    ]


def memory(quote: Quote) -> str:
    """Return a bar of the peak by parts, as long as the room there is, with its parts in words."""
    whole = max(quote.room_bytes, quote.peak_memory_bytes)
    parts = [(name, value, 100 * value / whole) for name, value in quote.breakdown.items()]
    return html(
        """<div class="quote"><div class="parts{{ '' if fits else ' over' }}" role="img" aria-label="{{ said }}">
{% for name, size, share in parts %}<span style="width:{{ '%.2f' | format(share) }}%" title="{{ name }}, {{ size }}">
</span>{% endfor %}</div><ul>{% for name, size, share in parts %}<li><i></i>{{ name }}
<span class="num">{{ size }}</span></li>{% endfor %}</ul></div>""",
        parts=[(name, words.size(value), share) for name, value, share in parts],
        said=f"{words.size(quote.peak_memory_bytes)} of {words.size(quote.room_bytes)}",
        fits=quote.fits,
    )


def ladder(quote: Quote) -> str:
    """Return the changes that need less, each with a button whose id is its place; nothing where it fits."""
    if quote.fits or not quote.ladder:
        return ""
    rows = [
        {
            "id": place,
            "words": rung.words,
            "effect": rung.effect,
            "memory": words.size(rung.peak_memory_bytes),
            "time": words.duration(rung.seconds),
            "state": "Recommended" if rung.recommended else "Fits" if rung.fits else "Not enough",
            "tone": "good" if rung.fits else "warn",
        }
        for place, rung in enumerate(quote.ladder)
    ]
    return section("Make it fit", "One of these is enough where it says so.") + html(
        """<ul class="ladder" aria-label="Changes">{% for it in rows %}<li><div><b>{{ it.words }}</b>
<em class="{{ it.tone }}">{{ it.state }}</em><p>{{ it.effect }}</p></div><span class="num">{{ it.memory }}</span>
<span class="num">{{ it.time }}</span><button class="act" data-id="{{ it.id }}">Use it</button></li>
{% endfor %}</ul>""",
        rows=rows,
    )


def against(quote: Quote | None, run: Run) -> str:
    """Return what was said of a run beside what it took."""
    peak = run.result.get("peak_memory_bytes")
    if quote is None:
        return ""
    said = f"Quoted {words.size(quote.peak_memory_bytes)} and {words.interval(quote.low, quote.high)}"
    if run.status is not Status.FINISHED or not peak:
        cost = words.price(quote.cost, quote.currency)
        return f"{said}{', ' + cost if cost else ''}."
    took = f"took {words.size(peak)} and {words.duration(run.seconds)}"
    cost = words.price(quote.spent(run.seconds).cost, quote.currency)
    return f"{said}; {took}{', ' + cost if cost else ''}."
