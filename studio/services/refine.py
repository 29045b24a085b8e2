"""A rough quote made exact by what an engine found: the real rows, the traced step, the steps it tried."""

from typing import Any

from studio.domain.quote import Quote
from studio.services import besides
from studio.services.besides import Held
from studio.services.footprint import least_turn, shape_of
from studio.services.past import Past, correction, slower_around
from studio.services.prepare import Resolved
from studio.services.trial import Measured, Trial

CALCULATED_MARGIN, MEASURED_MARGIN = 0.1, 0.05  # of the peak
SPREAD = 1.25  # the true time lies between the measured divided and multiplied by it
START = 6.0  # seconds until an engine is up


def refined(rough: Quote, resolved: Resolved, found: Trial, past: list[Past]) -> Quote:
    """Return the quote with what was found in it; what was not found stays rough. `past`: of runs like this one."""
    config, shape = resolved.config, shape_of(resolved.model)
    work = shape.flops(config, found.tokens, found.squares, found.labels)
    changes: dict[str, Any] = {"steps": found.steps, "tokens": found.tokens, "work": work}
    if found.traced:
        ratio = correction(past, "calculated")
        plain = sum(found.traced.parts.values())
        changes |= _memory(found.traced.parts, round(plain * ratio), rough.room_bytes, CALCULATED_MARGIN)
        basis = "measured" if ratio != 1 else "calculated"
        changes |= {"memory_basis": basis, "uncorrected_bytes": plain, "recomputed_layers": found.traced.again}
    if found.measured:
        parts = found.traced.parts if found.traced else rough.breakdown
        changes |= _memory(parts, found.measured.peak, rough.room_bytes, MEASURED_MARGIN)
        changes |= {"memory_basis": "measured", "recomputed_layers": found.measured.again}
        changes |= _time(resolved, found, found.measured, work)
    else:
        changes |= _rough(rough, resolved, found, past, work)
    quote = rough.model_copy(update=changes)
    memory, time = quote.peak_memory_bytes / rough.peak_memory_bytes, quote.seconds / rough.seconds
    for rung in quote.ladder:
        rung.peak_memory_bytes = round(rung.peak_memory_bytes * memory)
        rung.seconds = round(rung.seconds * time, 1)
        rung.fits, rung.recommended = rung.peak_memory_bytes <= quote.room_bytes, False
    quote.ladder.sort(key=lambda rung: not rung.fits)
    if quote.ladder and quote.ladder[0].fits and not quote.fits:
        quote.ladder[0].recommended = True
    return quote


def _memory(parts: dict[str, int], peak: int, room: int, margin: float) -> dict[str, Any]:
    """What the parts leave unexplained belongs to the programs: libraries, and memory they keep for later."""
    known = {name: value for name, value in parts.items() if name != "Programs"}
    if sum(known.values()) > peak:
        known = {name: round(value * peak / sum(known.values())) for name, value in known.items()}
    breakdown = known | {"Programs": peak - sum(known.values())}
    return {
        "peak_memory_bytes": peak,
        "fits": peak <= room,
        "margin_bytes": round(margin * peak),
        "breakdown": breakdown,
    }


def _held(resolved: Resolved, found: Trial) -> Held:
    asked = min(resolved.config.evaluate.answers, found.held) if resolved.dataset.kind == "chat" else 0
    return Held(found.held, found.held_tokens / max(1, found.held), found.answers, found.answer, asked)


def _rough(rough: Quote, resolved: Resolved, found: Trial, past: list[Past], work: float) -> dict[str, Any]:
    """The speed stays a guess, what there is to do is known."""
    train = rough.train_seconds * work / rough.work
    turn = least_turn(shape_of(resolved.model), rough.device != "processor")
    more = besides.rough(resolved.config, _held(resolved, found), train / found.tokens, turn, found.steps, found.tokens)
    seconds = train + (rough.load_seconds + more) * slower_around(past)
    times = {"seconds": seconds, "train_seconds": train}
    times |= {name: getattr(rough, name) * seconds / rough.seconds for name in ("low", "high")}
    return {name: round(value, 2) for name, value in times.items()}


def _time(resolved: Resolved, found: Trial, measured: Measured, work: float) -> dict[str, Any]:
    """Steps, checks on held-out rows, base against adapter at the end."""
    train = measured.first + found.steps * measured.a_step + work / measured.speed
    load = START + measured.load
    seconds = load + train
    if found.held:
        seconds += besides.checks(resolved.config, found.steps) * measured.check
    if one := measured.compared:
        seconds += one.load + besides.tried(resolved.config, _held(resolved, found), one)
    return {
        "train_seconds": round(train, 2),
        "load_seconds": round(load, 1),
        "seconds": round(seconds, 2),
        "low": round(seconds * (1 - measured.others) / SPREAD, 1),  # if the others end
        "high": round(seconds * SPREAD, 1),
        "time_basis": "measured",
    }
