"""What a run does besides its steps: checks on held-out rows, and base against adapter at its end."""

import math
from dataclasses import dataclass

from studio.domain.config import TrainingConfig
from studio.services.trial import Compared

COMPARED, SWAPPED = 200, 48  # held-out rows compared at the end, and those of them with another's answer
GENERAL = 3_400  # tokens of the general set
RAMBLES = 0.7  # share of the room that a base's answers take
FORWARD = 0.45  # of the time to train on a token that looking at it takes
CHECKED, FEWEST, MOST = 0.3, 16, 100  # tokens held out that a run looks at, of those it trains on; rows of a check
# Tokens trained in the time of: a token of all answers, each of these besides, the fixed questions of a check.
TURN, WORD, SAMPLED = 21, 0.4, 500


@dataclass(frozen=True)
class Held:
    """What is held out: rows, the tokens of a mean one, and of its answer and the longest; how many are asked."""

    rows: int
    mean: float
    answer: float
    longest: float
    asked: int

    @property
    def room(self) -> float:
        """Tokens an answer may have at the end."""
        return min(512, self.longest * 1.25 + 8)

    def looked(self, config: TrainingConfig) -> float:
        """Tokens each side looks at in the comparison."""
        return min(COMPARED, self.rows) * self.mean + (GENERAL if config.evaluate.general else 0)

    @property
    def swapped(self) -> float:
        """And those that the adapter looks at once more, after others' questions."""
        return min(SWAPPED, self.rows) * self.mean


def checks(config: TrainingConfig, steps: int) -> int:
    """How often the held-out rows are looked at, the beginning included."""
    every = max(1, steps // 5) if config.evaluate.every == "auto" else config.evaluate.every
    return 1 + math.ceil(steps / every)


def rough(config: TrainingConfig, held: Held, second: float, turn: float, steps: int, trained: float) -> float:
    """Return seconds if a token takes `second` to train, and one of all answers `turn` at least."""
    if not held.rows:
        return 0.0
    number = checks(config, steps)
    each = min(held.rows, MOST, max(CHECKED * trained / number / held.mean, FEWEST))
    looked = number * each * held.mean + 2 * held.looked(config)
    if not held.asked:
        return second * FORWARD * looked
    looked += held.swapped + 2 * held.asked * (held.mean - held.answer)
    said = 2 * held.room * max(TURN * second, turn)
    said += held.asked * (RAMBLES * held.room + held.answer) * WORD * second
    samples = number * SAMPLED * second if config.evaluate.samples else 0
    return second * FORWARD * looked + said + samples


def tried(config: TrainingConfig, held: Held, one: Compared) -> float:
    """Return the seconds of the comparison of which a little was done.

    Rows and general texts are looked at by both sides, some rows once more by the adapter. A base seldom ends an answer
    before there is no more room.
    """
    looked = held.looked(config)
    seconds = looked * one.base.look + (looked + held.swapped) * one.adapter.look
    if not held.asked:
        return seconds
    base = one.base.answers(RAMBLES * held.asked * held.room, held.room)
    return seconds + base + one.adapter.answers(held.asked * held.answer, held.room)
