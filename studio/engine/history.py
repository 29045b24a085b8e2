"""The metrics of a run so far: what the guard's rules look at."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field

from studio.domain.events import Evaluated, Event, Started, Step

WINDOW = 50  # steps that say what is usual
RECENT = 10  # steps that say how it is now


def median(values: list[float]) -> float:
    """Return the middle of a list that is not empty (much faster than statistics.median)."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass
class History:
    """The metrics of a run so far. A step is added in time that does not grow with the run.

    `learning_rate` and `batch_tokens` are the settings in force, `patience` is `evaluate.early_stopping`. Steps whose
    loss or gradient is no number are not kept with the others: `broken` names the last one.
    """

    learning_rate: float
    batch_tokens: int
    patience: int = 3
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # of the gradient, before it is shortened
    rates: list[float] = field(default_factory=list)
    checks: list[tuple[int, float]] = field(default_factory=list)  # step and held-out loss; step 0 is the base
    lows: list[float] = field(default_factory=list)  # lowest level of the loss so far
    warm: int = 0  # steps of the warm-up, in which the rate rises
    last: int = 0
    broken: int = 0
    memory: float = 0.0  # share in use

    def step(self, step: int, loss: float, norm: float, rate: float, memory: float = 0.0) -> None:
        """Add a step."""
        self.last, self.memory = step, memory
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.broken = step
            return
        if self.warm == len(self.steps) and (not self.rates or rate > self.rates[-1]):
            self.warm += 1
        self.steps.append(step)
        self.losses.append(loss)
        self.norms.append(norm)
        self.rates.append(rate)
        level = median(self.losses[-WINDOW:]) if len(self.losses) >= RECENT else math.inf
        self.lows.append(min(self.lows[-1], level) if self.lows else level)

    def check(self, step: int, loss: float) -> None:
        """Add a held-out loss."""
        self.checks.append((step, loss))

    def back(self, step: int) -> None:
        """Forget what came after a step, because the run goes on from there."""
        kept = bisect_right(self.steps, step)
        for values in (self.steps, self.losses, self.norms, self.rates, self.lows):
            del values[kept:]
        self.checks = [check for check in self.checks if check[0] <= step]
        self.warm, self.last, self.broken, self.memory = min(self.warm, kept), step, 0, 0.0

    def follow(self, event: Event) -> None:
        """Add what an event tells, so that a resumed run's history comes back from its events."""
        match event:
            case Step():
                self.step(event.step, event.loss, event.grad_norm, event.learning_rate)
            case Evaluated(final=None):
                self.check(event.step, event.loss)
            case Started(resumed_from=int(step)):
                self.back(step)
