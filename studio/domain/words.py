"""Numbers, sizes, times and names, said the same way in the page, the command line and the docs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

THIN = "\u202f"  # narrow no-break space between a number and its suffix


def count(value: float) -> str:
    """Return a count: exact to 9,999,999, above that two significant digits."""
    if abs(value) < 10_000_000:
        return f"{round(value):,}"
    return short(value)


def short(value: float) -> str:
    """Return parameters or tokens as k, M or B."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            scaled = value / limit
            return f"{scaled:.1f}{THIN}{suffix}" if scaled < 10 else f"{scaled:,.0f}{THIN}{suffix}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Return bytes in GB or MB (powers of ten)."""
    if value >= 99.95e9:
        return f"{value / 1e9:,.0f} GB"
    if value >= 0.9995e9:
        return f"{value / 1e9:.1f} GB"
    if value >= 99.95e6:
        return f"{value / 1e6:.0f} MB"
    if value >= 0.05e6:
        return f"{value / 1e6:.1f} MB"
    return f"{max(value / 1e3, 0):.1f} kB"


def duration(seconds: float) -> str:
    """Return a duration: seconds under 90 s, minutes under 90 min, then hours and minutes."""
    if seconds < 89.5:
        return f"{max(round(seconds), 0)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def interval(low: float, high: float) -> str:
    """Return an estimated duration as an interval in one unit, as in 23–29 min."""
    if high < 89.5:
        a, b = f"{max(round(low), 0)}", f"{max(round(high), 0)} s"
    elif high < 90 * 60:
        a, b = f"{round(low / 60)}" if low >= 45 else f"{round(low)} s", f"{round(high / 60)} min"
    else:
        a, b = duration(low), duration(high)
    return b if b.split(" ")[0] == a or a == b else f"{a}–{b}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{share * 100:.{digits}f}{THIN}%"


def rate(value: float) -> str:
    """Return a learning rate with two significant digits, as in 1.6e-4."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def signed(value: float, digits: int = 0) -> str:
    """Return a difference with its sign, the minus being a true minus."""
    text = f"{abs(value):,.{digits}f}"
    if not float(text.replace(",", "")):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def price(cost: float | None, currency: str) -> str:
    """Return an amount of money; under a hundredth it is said to be less."""
    if cost is None:
        return ""
    amount = "under 0.01" if cost < 0.01 else f"{cost:,.2f}"
    return f"{amount} {currency}".strip()


def when(iso: str, now: datetime | None = None) -> str:
    """Return a stored UTC time in local words: today 14:35, yesterday 9:05, 21 Nov, 21 Nov 2025."""
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    here = (now or datetime.now(UTC)).astimezone()
    moment = moment.astimezone(here.tzinfo)
    days = (here.date() - moment.date()).days
    if days in (0, 1):
        return f"{'today' if days == 0 else 'yesterday'} {moment.hour}:{moment:%M}"
    return f"{moment.day} {moment:%b}" + ("" if moment.year == here.year else f" {moment.year}")


def run_title(run_id: str) -> str:
    """Return a run's shown name: support-desk-3 is support-desk, run 3."""
    name, dash, number = run_id.rpartition("-")
    return f"{name}, run {number}" if dash and number.isdigit() else run_id


def model_name(id: str) -> str:
    """Return how a model is called: the starter by its own name, a folder or file by its last part, a Hub id as is."""
    if id == "starter":
        return "SmolLM2-135M-Instruct"
    return PurePath(id).name if PurePath(id).is_absolute() else id


def plural(number: int, one: str, many: str = "") -> str:
    """Return a count with its noun: 1 row, 4,812 rows."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def said(turn: Mapping[str, Any]) -> str:
    """Return what a turn says and which tools it calls, for people."""
    calls = [call["function"] for call in turn.get("tool_calls", ())]
    told = [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls]
    return "\n".join(filter(None, [turn["content"], *told]))
