"""The score is the share of the base's held-out loss that is gone, and the advice is the first that applies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.engine.closing import closing
from studio.engine.history import History


def made(*checks, rate=1e-3):
    history = History(rate, 2048)
    held = dict(checks)
    for step in range(max(held, default=0) + 1):
        if step:
            history.step(step, 3.0 - step / 100, 1.0, rate)
        if step in held:
            history.check(step, held[step])
    return history


def report(base, adapter, low, high, verdict="Better: "):
    return {
        "base": {"loss": base},
        "adapter": {"loss": adapter},
        "difference": {"loss": {"mean": adapter - base, "low": low, "high": high}},
        "verdict": verdict,
    }


LEVEL = ((0, 2.0), (30, 1.2), (60, 1.2), (90, 1.2))


@pytest.mark.parametrize(
    ("history", "found", "score", "advice", "edit"),
    [
        (made(*LEVEL), report(2.0, 1.2, -0.9, -0.7), 40, "Nothing looks wrong", {}),
        (
            made((0, 2.0), (30, 1.5), (60, 1.2)),
            report(2.0, 1.2, -0.9, -0.7),
            40,
            "train longer",
            {"train.max_steps": 120},
        ),
        (
            made((0, 2.0), (30, 1.2), (60, 1.3), (90, 1.5)),
            report(2.0, 1.2, -0.9, -0.7),
            40,
            "more passes would not",
            {"train.max_steps": 30},
        ),
        (made(*LEVEL), report(2.0, 1.9, -0.3, 0.1, "Not better: "), 0, "More examples", {}),
        (
            made(*LEVEL),
            report(2.0, 2.4, 0.2, 0.6, "Worse: "),
            0,
            "a third of the learning rate",
            {"train.learning_rate": 3.3e-4},
        ),
        (made(*LEVEL), report(2.0, 1.2, -0.9, -0.7, "Mixed: "), 40, "Read the answers", {}),
        (
            made((0, 2.0), (30, 2.0), (60, 2.0), rate=1e-6),
            report(2.0, 2.0, -0.1, 0.1, "Not better: "),
            0,
            "ten times",
            {"train.learning_rate": 1e-5},
        ),
    ],
)
def test_score_and_advice(history, found, score, advice, edit):
    end = closing(history, found)
    assert (end.score, end.edit) == (score, edit)
    assert advice in end.advice
    assert f"{score} of 100" in end.words


def test_nothing_measured_is_no_score():
    assert closing(made(), None).score is None
    assert closing(made(), {"difference": {}}).score is None


@given(st.floats(0.01, 20), st.floats(0, 40), st.floats(-5, 5), st.floats(0, 5))
def test_the_score_stays_within_its_bounds_and_luck_earns_nothing(base, adapter, low, width):
    end = closing(made(*LEVEL), report(base, min(adapter, base) if low + width < 0 else adapter, low, low + width))
    assert 0 <= end.score <= 100
    assert end.score == 0 or low + width < 0
