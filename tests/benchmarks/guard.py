"""How often the guard is wrong on healthy curves and right on sick ones: `python -m tests.benchmarks.guard`.

Curves are drawn from a seed. Healthy: an exponential decay to a floor with the schedule's share of progress,
heavy-tailed noise up to half the loss, odd batches, a step down at each new pass, runs of 10 to 10,000 steps,
log-normal gradient norms that drift, single gradients up to 200 times as long. Sick: a healthy curve of 100 to 2,000
steps that goes wrong at a random one, in the way each rule is for.
"""

import argparse
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from studio.domain.safety import GuardConfig
from studio.engine.guard import RULES, Guard
from studio.engine.history import History

PEAK = 1e-3  # learning rate


@dataclass
class Curve:
    """A run as the guard sees it. `trouble` is the step at which it goes wrong, 0 if it does not."""

    losses: list[float]
    norms: list[float]
    rates: list[float]
    held: dict[int, float]
    memory: list[float]
    trouble: int = 0


def heavy(rng: random.Random) -> float:
    """Student's t of 4 degrees of freedom, made to have variance 1."""
    return rng.gauss(0, 1) / math.sqrt(rng.gammavariate(2, 0.5)) / math.sqrt(2)


def logarithmic(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def rates(steps: int, warm: float, schedule: str) -> list[float]:
    """The schedule of the trainer."""
    rising = round(warm * steps)
    left = [1 - (step - rising) / max(1, steps - rising) for step in range(steps)]
    shares = [
        (step + 1) / (rising + 1)
        if step < rising
        else {"cosine": 0.5 - 0.5 * math.cos(math.pi * left[step]), "linear": left[step], "constant": 1.0}[schedule]
        for step in range(steps)
    ]
    return [PEAK * share for share in shares]


def healthy(rng: random.Random, shortest: int = 10, longest: int = 10_000) -> Curve:
    """A run that learns."""
    steps = round(logarithmic(rng, shortest, longest))
    schedule = rates(
        steps, rng.choice([0.0, 0.05, 0.05, 0.05, 0.2]), rng.choice(["cosine", "cosine", "linear", "constant"])
    )
    start, share = logarithmic(rng, 0.3, 8), rng.uniform(0.02, 0.95)  # of the loss that stays
    pace = logarithmic(rng, 3, max(4.0, steps / 3))  # steps at the full rate in which it falls to 1/e
    noise, odd = logarithmic(rng, 0.01, 0.5), rng.choice([0.0, 0.01, 0.03])
    a_pass, drop = max(5.0, steps / rng.choice([1, 2, 3, 5])), rng.choice([0.0, 0.05, 0.2])
    bump = rng.choice([0.0, 0.0, 0.05, 0.1])  # of the loss, while the rate is new
    size, drift, wide = logarithmic(rng, 0.05, 5), logarithmic(rng, 0.3, 3), rng.uniform(0.1, 0.6)
    curve = Curve([], [], schedule, {}, [])
    done, every = 0.0, max(1, round(steps / rng.choice([5, 5, 5, 10, 20])))
    held_share, jitter = min(0.97, share * rng.uniform(1, 1.3)), rng.uniform(0.0005, 0.004)
    used = rng.uniform(0.2, 0.86)  # of the memory
    held_start = start * math.exp(rng.gauss(0, 0.1))  # the held-out rows are others than those trained on
    with_held, creep = rng.random() < 0.9, rng.choice([0.0, 0.0, 0.005, 0.015])  # a little more at the end
    if with_held:
        curve.held[0] = held_start
    for step in range(steps):
        level = start * (share + (1 - share) * math.exp(-done / pace))
        level *= (1 - drop) ** int(step / a_pass) * (1 + bump * math.exp(-((done / pace - 1) ** 2)))
        loss = level * math.exp(min(noise * heavy(rng), 2.0)) * (rng.uniform(1.5, 5) if rng.random() < odd else 1)
        early = 1 + 2 * math.exp(-step / 5)
        norm = size * early * drift ** (step / steps) * math.exp(wide * rng.gauss(0, 1))
        curve.losses.append(loss)
        curve.norms.append(norm * (logarithmic(rng, 5, 200) if rng.random() < 0.003 else 1))
        curve.memory.append(used + rng.uniform(-0.02, 0.02))
        done += schedule[step] / PEAK
        if with_held and ((step + 1) % every == 0 or step + 1 == steps):
            level = held_start * (held_share + (1 - held_share) * math.exp(-done / pace))
            level *= 1 + creep * (step / steps) ** 2
            curve.held[step + 1] = level * (1 + jitter * rng.gauss(0, 1))
    return curve


def sick(rng: random.Random, kind: str, shortest: int = 100, longest: int = 2_000) -> Curve:
    """A run that goes wrong in the way the rule named `kind` is for."""
    curve = healthy(rng, shortest, longest)
    steps, start = len(curve.losses), statistics.median(curve.losses[:10])
    at = rng.randrange(steps // 4, steps // 2)
    curve.trouble = at + 1
    if kind == "invalid":
        which = rng.choice([curve.losses, curve.norms])
        which[at:] = [rng.choice([math.nan, math.inf])] * (steps - at)
    elif kind == "divergence":
        early = rng.random() < 0.5  # before anything was learned
        at = rng.randrange(2, 6) if early else at
        curve.trouble = at + 1
        goal, pace = start * (rng.uniform(3, 8) if early else rng.uniform(1.2, 5)), rng.uniform(2, 15)
        for step in range(at, steps):
            curve.losses[step] += goal * (1 - math.exp(-(step - at) / pace)) * math.exp(0.1 * heavy(rng))
    elif kind == "explosion":
        times = logarithmic(rng, 100, 1e6)
        for step in range(at, steps):
            curve.norms[step] *= times * math.exp(0.5 * rng.gauss(0, 1))
    elif kind == "flat":
        curve.trouble = 1
        curve.losses = [start * math.exp(0.2 * heavy(rng)) for _ in range(steps)]
        if rng.random() < 0.5:
            curve.norms = [0.0] * steps
        curve.held = {step: start * (1 + 1e-4 * rng.gauss(0, 1)) for step in _checks(steps)}
    elif kind == "overfitting":
        best, pace = start * rng.uniform(0.4, 0.9), rng.uniform(0.2, 1.0)
        fall = [start * (0.05 + 0.95 * math.exp(-3 * step / steps)) for step in range(steps)]
        curve.losses = [level * math.exp(rng.uniform(0.02, 0.3) * heavy(rng)) for level in fall]
        curve.held = {
            step: (best + (start - best) * math.exp(-step / at * 4)) * (1 + max(0, step - at) / steps * pace)
            for step in _checks(steps, 10)
        }
    elif kind == "memory":
        curve.memory[at:] = [rng.uniform(0.91, 0.99)] * (steps - at)
    return curve


def _checks(steps: int, number: int = 5) -> list[int]:
    return [round(steps * i / number) for i in range(number + 1)]


def alarms(curve: Curve, policy: GuardConfig | None = None) -> Iterator[tuple[int, str, str]]:
    """Play a curve to the guard as the trainer does; yield step, rule and action."""
    guard, history = Guard(policy or GuardConfig()), History(PEAK, 2048)
    if 0 in curve.held:
        history.check(0, curve.held[0])
    for i, (loss, norm, rate, share) in enumerate(
        zip(curve.losses, curve.norms, curve.rates, curve.memory, strict=True), 1
    ):
        history.step(i, loss, norm, rate, share)
        if i in curve.held:
            history.check(i, curve.held[i])
        if i < len(curve.losses):  # after the last step there is nothing to change
            for decision in guard.look(history):
                yield i, decision.finding.rule, decision.action


def costs(curve: Curve, step: int) -> bool:
    """Whether to end at a step loses something: a later held-out loss is 1 % below the best so far."""
    before = min(loss for at, loss in curve.held.items() if at <= step)
    return min(curve.held.values()) < 0.99 * before


def measure(seed: int, number: int, sick_number: int, longest: int = 10_000) -> dict[str, dict[str, float]]:
    """Return for each rule its false alarms, those among them that pause or act, the detected share and the delay."""
    rng = random.Random(seed)
    false: Counter[str] = Counter()
    for _ in range(number):
        curve = healthy(rng, longest=longest)
        seen: set[str] = set()
        for step, rule, action in alarms(curve):
            seen |= {rule} | ({f"{rule}, interrupts"} if action != "tell" else set())
            if rule == "overfitting" and costs(curve, step):
                seen.add("overfitting, costs")
            if action in ("pause", "back", "end"):
                break
        false.update(seen)
    table = {}
    for rule in RULES:
        delays = []
        for _ in range(sick_number):
            curve = sick(rng, rule)
            delays += [
                step - curve.trouble for step, found, _ in alarms(curve) if found == rule and step >= curve.trouble
            ][:1]
        table[rule] = {
            "false": false[rule] * 1000 / number,
            "interrupts": false[f"{rule}, interrupts"] * 1000 / number,
            "costs": false[f"{rule}, costs"] * 1000 / number,
            "detected": len(delays) / sick_number,
            "delay": statistics.median(delays) if delays else math.nan,
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=10_000)
    parser.add_argument("--sick", type=int, default=1_000, help="of each kind")
    parser.add_argument("--longest", type=int, default=10_000, help="steps of a healthy run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = measure(options.seed, options.healthy, options.sick, options.longest)
    print("| rule | false alarms in 1,000 healthy runs | that pause or act | detected | delay, steps, median |")
    print("| --- | --- | --- | --- | --- |")
    for rule, row in table.items():
        print(f"| {rule} | {row['false']:.1f} | {row['interrupts']:.1f} | {row['detected']:.1%} | {row['delay']:.0f} |")
    print(f"overfitting that ends a run which would have come 1 % lower: {table['overfitting']['costs']:.1f} in 1,000")


if __name__ == "__main__":
    main()
