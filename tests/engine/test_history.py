"""The metric history: the same however it was fed, and going back forgets exactly what came after."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from studio.domain import events
from studio.engine.history import History

VALUES = st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.01, 50)), min_size=1, max_size=60)


def made():
    return History(1e-3, 2048, 3)


def state(history):
    return {name: value for name, value in vars(history).items() if name not in ("memory",)}


def told(number, loss, norm):
    facts = {"learning_rate": 1e-3, "tokens": 9, "tokens_per_second": 1.0, "memory_bytes": 1}
    return events.Step(step=number, loss=loss, grad_norm=norm, **facts)


@given(VALUES)
@settings(max_examples=40, deadline=None)
def test_events_give_what_the_trainer_gave(values):
    live, again = made(), made()
    for number, (loss, norm) in enumerate(values, 1):
        live.step(number, loss, norm, 1e-3)
        again.follow(told(number, loss, norm))
        if number % 10 == 0:
            live.check(number, loss)
            again.follow(events.Evaluated(step=number, loss=loss))
    assert state(live) == state(again)


@given(VALUES, st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_going_back_forgets_what_came_after(values, step):
    long, short = made(), made()
    for number, (loss, norm) in enumerate(values, 1):
        long.step(number, loss, norm, 1e-3)
        if number <= step:
            short.step(number, loss, norm, 1e-3)
    long.back(min(step, len(values)))
    short.back(min(step, len(values)))
    assert state(long) == state(short)


def test_what_is_no_number_is_kept_apart():
    history = made()
    history.step(1, 2.0, 1.0, 1e-3)
    history.step(2, math.nan, 1.0, 1e-3)
    assert (history.broken, history.losses) == (2, [2.0])
