"""The guard's rules: quiet on runs that learn, sure of runs that do not, and each thing is told once."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.domain.events import Warned
from studio.domain.safety import GuardConfig
from studio.engine import guard
from studio.engine.guard import BACKS, FEWEST, RULES, Guard
from studio.engine.history import History
from tests.benchmarks.guard import Curve, alarms, measure, rates

RATE = 1e-3
LOSSES = st.lists(st.floats(0.1, 10), min_size=1, max_size=80)


def fed(losses, norms=None, checks=(), memory=0.0, patience=3, rate=RATE):
    """A history of these losses; `checks` are (step, held-out loss)."""
    history = History(rate, 2048, patience)
    held = dict(checks)
    if 0 in held:
        history.check(0, held[0])
    for number, loss in enumerate(losses, 1):
        history.step(number, loss, (norms or [1.0] * len(losses))[number - 1], rate, memory)
        if number in held:
            history.check(number, held[number])
    return history


def falling(steps, start=3.0, floor=1.0):
    return [floor + (start - floor) * math.exp(-step / 20) + 0.05 * math.sin(step * 1.7) for step in range(steps)]


def found(history):
    return [name for name, (rule, _) in RULES.items() if rule(history)]


def test_a_run_that_learns_is_left_alone():
    for steps in (5, 30, 200):
        assert found(fed(falling(steps), checks=[(0, 3.0), (10, 2.0), (20, 1.6), (30, 1.4)])) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_found_at_once(value):
    for history in (fed([value]), fed([*falling(30), value]), fed(falling(31), [*[1.0] * 30, value])):
        finding = guard.invalid(history)
        assert f"no number any more at step {history.last}" in finding.words
        assert finding.edit == {"train.learning_rate": 3.3e-4}
        assert finding.since == history.last - 1


def test_a_loss_that_climbs_is_named_with_where_it_was_good():
    finding = guard.divergence(fed([*falling(100), *(1.0 + 0.2 * step for step in range(20))]))
    assert finding.rule == "divergence"
    assert "The loss rose from" in finding.words
    assert 90 <= finding.since <= 105
    assert finding.edit["train.learning_rate"] == pytest.approx(RATE / 3, rel=0.02)


def test_one_long_gradient_is_no_explosion_and_three_are():
    losses = falling(64)
    assert guard.explosion(fed(losses, [1.0] * 60 + [500.0] + [1.0] * 3)) is None
    finding = guard.explosion(fed(losses, [1.0] * 60 + [500.0] * 4))
    assert "grew to 500; usual in this run is 1" in finding.words
    assert finding.since <= 60


def test_without_a_gradient_or_with_a_held_out_loss_that_stands_nothing_is_learned():
    assert "gradient was 0" in guard.flat(fed([2.0] * 6, [0.0] * 6)).words
    finding = guard.flat(fed([2.0] * 60, checks=[(0, 2.0), (30, 2.001), (60, 2.0)], rate=1e-5))
    assert finding.edit == {"train.learning_rate": 1e-4}
    assert guard.flat(fed([2.0] * 60, checks=[(0, 2.0), (30, 1.9), (60, 1.8)])) is None


def test_memorising_needs_a_rising_held_out_loss():
    checks = [(0, 3.0), (20, 2.0), (40, 2.1), (60, 2.3)]
    finding = guard.overfitting(fed(falling(60), checks=checks))
    assert finding.since == 20
    assert finding.edit == {"train.max_steps": 20}
    assert "it memorises" in finding.words
    assert guard.overfitting(fed(falling(60), checks=[(0, 3.0), (20, 2.0), (40, 1.9), (60, 1.91)])) is None


def test_full_memory_asks_for_half_at_once():
    assert guard.memory(fed([1.0], memory=0.89)) is None
    assert guard.memory(fed([1.0], memory=0.95)).edit == {"train.batch_tokens": 1024}


def test_a_thing_is_told_once_and_the_policy_says_what_is_done():
    history, watch = fed([2.0] * 6, [0.0] * 6), Guard(GuardConfig())
    assert [each.action for each in watch.look(history)] == ["tell"]
    assert watch.look(history) == []
    full = fed([1.0], memory=0.95)
    for policy, action in (("act", "shrink"), ("pause", "pause"), ("tell", "tell")):
        assert [each.action for each in Guard(GuardConfig(memory=policy)).look(full)] == [action]
    halved = Guard(GuardConfig())
    assert halved.look(full)
    full.batch_tokens = 1024
    assert halved.look(full) == [], "memory that others fill is not won by halving again"


def test_a_resumed_run_is_not_told_the_same_again():
    history, first, again = (
        fed([2.0] * 6, [0.0] * 6),
        Guard(GuardConfig(flat="pause")),
        Guard(GuardConfig(flat="pause")),
    )
    (decision,) = first.look(history)
    finding = decision.finding
    again.heard(Warned(words=finding.words, rule="flat", did="paused", edit=finding.edit, step=6))
    assert again.look(history) == []
    for step in range(BACKS):
        again.heard(Warned(words="", rule="invalid", did="acted", edit={"train.learning_rate": step}, step=step))
    history.step(7, math.nan, 1.0, RATE)
    assert [each.action for each in again.look(history)] == ["pause"]


def test_it_goes_back_a_few_times_and_then_waits_for_the_user():
    watch, history = Guard(GuardConfig(invalid="act")), fed(falling(30))
    actions = []
    for turn in range(BACKS + 1):
        history.learning_rate = RATE / 3**turn
        history.step(31, math.nan, 1.0, RATE)
        actions += [each.action for each in watch.look(history)]
        history.back(30)
    assert actions == ["back"] * BACKS + ["pause"]


def test_without_patience_memorising_is_only_told():
    history = fed(falling(60), checks=[(0, 3.0), (20, 2.0), (40, 2.1), (60, 2.3)], patience=0)
    assert [each.action for each in Guard(GuardConfig()).look(history)] == ["tell"]


@given(LOSSES, st.sampled_from([1e-3, 7.0, 1e4]))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_the_loss_changes_nothing(losses, scale):
    checks = [(step, losses[step - 1]) for step in range(10, len(losses), 10)]
    one = fed(losses, checks=[(0, losses[0]), *checks])
    other = fed(
        [scale * loss for loss in losses], checks=[(0, scale * losses[0]), *((s, scale * c) for s, c in checks)]
    )
    assert found(one) == found(other)


@given(LOSSES)
@settings(max_examples=40, deadline=None)
def test_no_level_is_known_before_its_time(losses):
    few = losses[: FEWEST - 1]
    assert guard.explosion(fed(few, [10.0**i for i in range(len(few))])) is None
    assert guard.divergence(fed(losses[:9])) is None


def test_few_healthy_runs_are_called_sick_and_few_sick_ones_are_missed():
    """The small version of `python -m tests.benchmarks.guard`, from a seed."""
    table = measure(seed=3, number=60, sick_number=12, longest=800)
    assert sum(row["interrupts"] for row in table.values()) == 0
    assert all(row["detected"] >= 0.9 for row in table.values()), table


REAL = json.loads(Path(__file__).with_name("curves.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", REAL)
def test_curves_of_real_runs_are_judged_right(name):
    """Runs of the starter on Banking77 and GSM8K, and of two-layer models; `finds` is what is wrong with them."""
    run = REAL[name]
    steps = len(run["losses"])
    curve = Curve(
        run["losses"], run["norms"], rates(steps, run["warmup"], run["schedule"]), dict(run["held"]), [0.5] * steps
    )
    seen = [rule for _, rule, _ in alarms(curve)]
    assert seen[: len(run["finds"])] == run["finds"]
    assert bool(seen) == bool(run["finds"]), seen
