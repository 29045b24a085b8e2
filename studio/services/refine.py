"""A rough quote made exact by what an engine found: the real rows, the traced step, the steps it tried."""

import math
from typing import Any

from studio.domain.config import TrainingConfig
from studio.domain.quote import Quote
from studio.services.footprint import shape_of
from studio.services.past import Past, correction
from studio.services.prepare import Resolved
from studio.services.trial import Compared, Measured, Trial

CALCULATED_MARGIN, MEASURED_MARGIN = 0.1, 0.05  # of the peak
SPREAD = 1.25  # the true time lies between the measured divided and multiplied by it
COMPARED, SWAPPED = 200, 48  # held-out rows compared at the end, and those of them with another's answer
GENERAL = 3_400  # tokens of the general set
RAMBLES = 0.7  # share of the room that a base's answers take
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
        changes |= _time(config, found, found.measured, work)
    else:
        more = work / rough.work
        changes |= {name: round(getattr(rough, name) * more, 2) for name in ("seconds", "low", "high", "train_seconds")}
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


def _time(config: TrainingConfig, found: Trial, measured: Measured, work: float) -> dict[str, Any]:
    """Steps, checks on held-out rows, base against adapter at the end."""
    train = measured.first + found.steps * measured.a_step + work / measured.speed
    load = START + measured.load + (measured.compared.load if measured.compared else 0)
    every = max(1, found.steps // 5) if config.evaluate.every == "auto" else config.evaluate.every
    checks = (1 + math.ceil(found.steps / every)) * measured.check if found.held else 0
    seconds = load + train + checks + (_compared(config, found, measured.compared) if measured.compared else 0)
    return {
        "train_seconds": round(train, 2),
        "load_seconds": round(load, 1),
        "seconds": round(seconds, 2),
        "low": round(seconds * (1 - measured.others) / SPREAD, 1),  # if the others end
        "high": round(seconds * SPREAD, 1),
        "time_basis": "measured",
    }


def _compared(config: TrainingConfig, found: Trial, one: Compared) -> float:
    """Rows and general texts are looked at twice, some rows once more with another's answer; questions are asked twice.

    A base seldom ends an answer before there is no more room.
    """
    rows = min(COMPARED, found.held)
    row = found.held_tokens / max(1, found.held)
    each = rows * row + (GENERAL if config.evaluate.general else 0)
    looked = each * one.base.look + (each + min(SWAPPED, found.held) * row) * one.adapter.look
    asked = min(config.evaluate.answers, found.held)
    if not asked:
        return looked
    room = min(512, found.answer * 1.25 + 8)
    said = one.base.answers(RAMBLES * asked * room, room) + one.adapter.answers(asked * found.answers, room)
    return looked + said
