"""The guard: rules over the metric history that see a run go wrong, say so in plain words and name the remedy.

A rule is a pure function of the history. What it compares are ratios, so it decides the same whatever unit the loss
or the gradient comes in; medians and MADs keep one odd batch from deciding. How often it errs is measured on drawn
curves: one false alarm in 8,000 healthy ones, one miss in 7,800 sick ones (docs/developer-guide/guard.md).
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from studio.domain.events import Warned
from studio.domain.safety import GuardConfig
from studio.domain.words import percent
from studio.engine.history import RECENT, WINDOW, History, median

FEWEST = 20  # steps before a level, a usual gradient and a flat held-out loss are known
CLIMB, NOISE = 0.25, 5.0  # divergence: share of the loss at the start, and deviations of a step's loss
LATE, MOST = 5, 3  # explosion: so many of the latest steps
FAR, DEVIATIONS = 10.0, 6.0  # explosion: times the usual norm, and deviations of its logarithm
STILL = 0.002  # flat: share of the base's held-out loss it stays within
ZEROS = 5  # flat: steps without any gradient
RISE, WORSE = 0.05, 0.02  # overfitting: shares of the best held-out loss
FULL = 0.9  # share of the memory
REST = 50  # steps a finding must have been gone before it is told again
BACKS = 3  # times it goes back by itself before it waits for the user
BRISK = 1e-3  # a learning rate above which too small a one is not what keeps the loss where it is


def deviation(values: list[float]) -> float:
    """Return the standard deviation as the MAD tells it, were the values normal."""
    centre = median(values)
    return 1.4826 * median([abs(value - centre) for value in values])


@dataclass(frozen=True)
class Finding:
    """What a rule saw. `since` is the last step that was still good, `edit` the change of settings that helps."""

    rule: str
    words: str
    hint: str
    edit: dict[str, Any]
    since: int


Rule = Callable[[History], Finding | None]


def invalid(history: History) -> Finding | None:
    """The last step's loss or gradient is NaN or infinite."""
    if not history.broken or history.broken != history.last:
        return None
    good = history.steps[-1] if history.steps else 0
    return Finding(
        "invalid",
        f"The loss is no number any more at step {history.last}.",
        "Go back to the last good checkpoint with a third of the learning rate.",
        slower(history),
        good,
    )


def divergence(history: History) -> Finding | None:
    """The loss has climbed far above its lowest level, or above where it began.

    Above its lowest level: the median of the last 10 steps − that level > 25 % of the start's, and > 5 deviations, from
    step 20 on. The level is the median of 50 steps, its lowest the least of them up to 10 steps ago. A step's deviation
    is that of the differences of neighbours, which a slow rise or fall does not widen.
    Above where it began: the median of the last 10 steps > 2 times the largest of the first two losses and the base's
    held-out loss (3 times without one). It sees a run that goes wrong before it has a level.
    """
    losses = history.losses
    if len(losses) < RECENT or history.broken == history.last:
        return None
    now, base = median(losses[-RECENT:]), [loss for step, loss in history.checks[:1] if step == 0]
    began, times = max(losses[:2] + base), 2 if base else 3
    low = began if now > times * began else _climbed(history, now)
    if low is None:
        return None
    known = zip(reversed(history.steps), reversed(losses), strict=True)
    good = next((step for step, loss in known if loss <= low), 0)
    return Finding(
        "divergence",
        f"The loss rose from {_number(low)} to {_number(now)} in the last {history.last - good} steps.",
        "Learning overshoots. Go back to the last good checkpoint with a third of the learning rate.",
        slower(history),
        good,
    )


def _climbed(history: History, now: float) -> float | None:
    """Return the lowest level of the loss if it is far below what it is now."""
    losses = history.losses
    if len(losses) < FEWEST:
        return None
    low = history.lows[-RECENT - 1]
    if now - low <= CLIMB * median(losses[:RECENT]):
        return None
    changes = [after - value for value, after in pairwise(losses[-RECENT - WINDOW : -RECENT])]
    return low if now - low > NOISE * deviation(changes) / math.sqrt(2) else None


def explosion(history: History) -> Finding | None:
    """Three of the last 5 gradient norms are over 10 times the usual one, and 6 deviations of its logarithm.

    The usual norm is the median of the 50 steps before, or of the first 20 steps where that is larger: near the end
    of a run norms may be tiny, and one of a normal size is no explosion. One long gradient alone is none either: it is
    shortened to `train.max_grad_norm`. The warm-up and the 20 steps after it are not judged.
    """
    norms = history.norms
    if len(norms) < history.warm + FEWEST or history.broken == history.last:
        return None
    first = median(norms[:FEWEST])
    if sum(norm > FAR * first for norm in norms[-LATE:]) < MOST:
        return None
    before = norms[-LATE - WINDOW : -LATE]
    usual = max(first, median(before))
    logs = [math.log(norm) for norm in before if norm > 0]
    if not logs:
        return None
    limit = usual * max(FAR, math.exp(min(DEVIATIONS * deviation(logs), 700)))
    if sum(norm > limit for norm in norms[-LATE:]) < MOST:
        return None
    return Finding(
        "explosion",
        f"The gradients grew to {_number(max(norms[-LATE:]))}; usual in this run is {_number(usual)}.",
        "They are shortened already. Go back to the last good checkpoint with a third of the learning rate.",
        slower(history),
        history.steps[-LATE - 1],
    )


def flat(history: History) -> Finding | None:
    """Nothing is learned: no gradient in the first 5 steps and the last 5, or a held-out loss that stays the base's.

    The held-out loss stays when two checks in a row, both after the warm-up and step 20, lie within 0.2 % of the
    base's. Without held-out rows only the missing gradient is seen: the loss of single batches is too unlike.
    """
    norms = history.norms
    if len(norms) >= ZEROS and not any(norms[:ZEROS] + norms[-ZEROS:]):
        return Finding(
            "flat",
            f"Nothing is learned: the gradient was 0 in all of the last {ZEROS} steps.",
            "Look whether the layers take an adapter (method.targets) and the examples have answers.",
            {},
            0,
        )
    if len(history.checks) < 3 or history.checks[0][0] != 0:
        return None
    (_, base), earlier, (step, now) = history.checks[0], history.checks[-2], history.checks[-1]
    if earlier[0] < max(FEWEST, history.warm) or any(abs(loss - base) > STILL * base for loss in (earlier[1], now)):
        return None
    timid = history.learning_rate < BRISK
    return Finding(
        "flat",
        f"Nothing is learned: the held-out loss is {_number(now)} after {step} steps, {_number(base)} before.",
        "Try ten times the learning rate." if timid else "Look whether the answers follow from the questions.",
        {"train.learning_rate": _round(min(10 * history.learning_rate, BRISK))} if timid else {},
        step,
    )


def overfitting(history: History) -> Finding | None:
    """The held-out loss gets worse: it rises while the training loss falls, or stays worse for `patience` checks.

    It rises when at least two checks come after the best one, the last is above the one before and 5 % above the best,
    and the median of the last 10 training losses is below that of the 10 steps up to the best check. It stays worse
    when each of the last `patience` checks is 2 % above the best. A held-out loss that stands still is neither: the
    falling rate may yet lower it, and the best step is kept in any case.
    """
    if len(history.checks) < 3 or not history.losses:
        return None
    place = min(range(len(history.checks)), key=lambda i: history.checks[i][1])
    (best_step, best), (step, now) = history.checks[place], history.checks[-1]
    since = [loss for _, loss in history.checks[place + 1 :]]
    upto = max(bisect_right(history.steps, best_step), RECENT)
    learned, then = median(history.losses[-RECENT:]), median(history.losses[max(0, upto - RECENT) : upto])
    rises = len(since) >= 2 and since[-2] < now > (1 + RISE) * best and learned < then
    worse = 0 < history.patience <= len(since) and min(since[-history.patience :]) > (1 + WORSE) * best
    if not rises and not worse:
        return None
    if rises:
        seen = (
            f"The held-out loss rose from {_number(best)} at step {best_step} to {_number(now)} at step {step}, "
            f"while the training loss fell from {_number(then)} to {_number(learned)}: it memorises."
        )
    else:
        seen = f"The held-out loss was {_number(best)} at step {best_step} and is {_number(now)} now: it gets worse."
    return Finding(
        "overfitting",
        seen,
        f"The adapter of step {best_step} is the best." if best_step else "Train again with a third of the rate.",
        {"train.max_steps": best_step} if best_step else slower(history),
        best_step,
    )


def memory(history: History) -> Finding | None:
    """More than 90 % of the memory is in use."""
    if history.memory <= FULL:
        return None
    half = history.batch_tokens // 2
    return Finding(
        "memory",
        f"{percent(history.memory)} of the memory is in use.",
        "Half the tokens at once need less, with the same result." if half >= 32 else "Take a shorter longest example.",
        {"train.batch_tokens": half} if half >= 32 else {},
        history.last,
    )


Action = Literal["tell", "pause", "back", "end", "shrink"]
# in the order they are asked, and what `act` means for each
RULES: dict[str, tuple[Rule, Action]] = {
    "invalid": (invalid, "back"),
    "divergence": (divergence, "back"),
    "explosion": (explosion, "back"),
    "overfitting": (overfitting, "end"),
    "memory": (memory, "shrink"),
    "flat": (flat, "pause"),
}


@dataclass(frozen=True)
class Decision:
    """A finding and what is to be done.

    back: return to the newest checkpoint not after `finding.since`, with the edit. end: finish now, keep the best step.
    shrink: go on with the edit. pause: save and wait for the user.
    """

    finding: Finding
    action: Action


class Guard:
    """Asks the rules after each step and says a thing once, until it was gone for 50 steps or asks for another edit."""

    def __init__(self, policy: GuardConfig) -> None:
        self.policy = policy
        self.backs = 0
        self.told: dict[str, tuple[Finding, int]] = {}  # by rule: what was told, and the step it was last true

    def heard(self, warned: Warned) -> None:
        """Take over what an earlier engine of the run has told, so that it is not told again at once."""
        if warned.rule in RULES and warned.step is not None:
            self.told[warned.rule] = (Finding(warned.rule, "", "", warned.edit, warned.step), warned.step)
            self.backs += warned.did == "acted" and RULES[warned.rule][1] == "back"

    def look(self, history: History) -> list[Decision]:
        """Return what is new. At most one decision interrupts the training; it is the last of the list."""
        decisions = []
        for name, (rule, act) in RULES.items():
            finding = rule(history)
            if not finding:
                continue
            known = self.told.get(name)
            self.told[name] = (finding, history.last)
            # after the first halving the memory may stay full for reasons that are not this run's
            same = known and (name == "memory" or known[0].edit == finding.edit)
            if known and same and abs(history.last - known[1]) <= REST:
                continue
            decision = Decision(finding, self._action(name, act, finding, history))
            decisions.append(decision)
            if decision.action in ("pause", "back", "end"):
                break
        return decisions

    def _action(self, name: str, act: Action, finding: Finding, history: History) -> Action:
        policy = getattr(self.policy, name)
        if policy != "act":
            return policy
        if name == "overfitting" and not history.patience:
            return "tell"  # early stopping is off
        if act == "shrink" and not finding.edit:
            return "tell"
        if act == "back":
            self.backs += 1
            return "back" if self.backs <= BACKS else "pause"
        return act


def slower(history: History) -> dict[str, Any]:
    """Return the edit to a third of the learning rate."""
    return {"train.learning_rate": _round(history.learning_rate / 3)}


def _round(rate: float) -> float:
    return float(f"{rate:.1e}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
