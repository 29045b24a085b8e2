"""The verdict follows the intervals, asks whether answers follow from questions, and tells what was forgotten."""

import numpy as np
import pytest

from studio.engine import verdict
from studio.engine.verdict import report

NOTHING = (np.array([]), np.array([]), np.array([]))


def sides(base_f1, adapter_f1, base_loss=2.0, adapter_loss=1.0, n=40, labels=(), swapped=NOTHING):
    def side(f1, loss):
        rng = np.random.default_rng(0)  # the same rows are easy for both
        values = np.clip(f1 + rng.normal(0, 0.05, n), 0, 1)
        return {
            "sums": (loss + rng.normal(0, 0.05, n)) * 10,
            "counts": np.full(n, 10.0),
            "said": ["x"] * n,
            "scores": {"exact_match": (values > 0.9).astype(float), "token_f1": values},
        }

    more = {"expected": list(labels), "labels": labels, "swapped": swapped}
    return {"base": side(base_f1, base_loss), "adapter": side(adapter_f1, adapter_loss) | more}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (sides(0.1, 0.95), "Better"),
        (sides(0.95, 0.1, 1.0, 2.0), "Worse"),
        (sides(0.1, 0.95, 1.0, 2.0), "Mixed"),
        (sides(0.5, 0.5, 1.0, 1.0), "Not better"),
    ],
)
def test_the_verdict_follows_the_intervals(given, word):
    result = report(given, 42)
    assert result["verdict"].startswith(f"{word} on yours:")
    for metric, found in result["difference"].items():
        assert found["low"] <= found["mean"] <= found["high"], metric
        assert 0 < found["p"] <= 1
        assert found["mean"] == pytest.approx(result["adapter"][metric] - result["base"][metric])


def test_the_headline_is_exact_answers_where_there_are_any_else_the_overlap_of_words():
    result = report(sides(0.1, 0.95), 42)
    right = 100 * result["adapter"]["exact_match"]
    assert f"{right:.0f} % against 0 % of 40 answers exactly right, +{right:.0f} ± " in result["verdict"]
    assert "50 % against 10 % word overlap, +40 ± 0, held-out loss 1." in report(sides(0.1, 0.5), 42)["verdict"]


def test_without_rows_nothing_is_claimed():
    none = np.array([])
    empty = {"sums": none, "counts": none, "said": [], "scores": {"exact_match": none, "token_f1": none}}
    result = report({"base": empty, "adapter": empty | {"labels": [], "swapped": NOTHING}}, 42)
    assert result["verdict"].startswith("Not measured")


LABELS = [f"intent_{i % 10}" for i in range(40)]


def swapped(margin, n=30):
    """Losses of ten tokens after the own and another question, `margin` nats apart."""
    rng = np.random.default_rng(1)
    own = 10 + rng.normal(0, 0.5, n)
    return own, own + margin + rng.normal(0, 0.5, n), np.full(n, 10.0)


@pytest.mark.parametrize(
    ("before", "after", "word"), [(0, 4, "Better"), (2, 4, "Better"), (0, 0, "Not better"), (2, 1, "Not better")]
)
def test_labels_have_to_follow_from_the_questions_more_than_they_do_for_the_base(before, after, word):
    given = sides(0.0, 0.5, labels=LABELS, swapped=swapped(after))
    given["base"]["swapped"] = swapped(before)
    result = report(given, 42)
    assert result["verdict"].startswith(f"{word} on yours:")
    assert (verdict.UNLINKED in result["verdict"]) == (word == "Not better")


def test_labels_that_are_mostly_right_need_no_more():
    given = sides(0.0, 0.95, labels=LABELS, swapped=swapped(0))
    given["base"]["swapped"] = swapped(0)
    result = report(given, 42)
    assert result["link"]["by"] == "commonest"
    assert result["verdict"].startswith("Better")


@pytest.mark.parametrize(("margin", "word"), [(4, "Better"), (0, "Not better")])
def test_a_free_answer_has_to_be_likelier_after_its_own_question(margin, word):
    result = report(sides(0.1, 0.6, swapped=swapped(margin)), 42)
    assert (result["link"]["by"], result["verdict"].split(" on yours")[0]) == ("swap", word)


@pytest.mark.parametrize(
    ("mean", "high", "words"),
    [(-0.04, -0.03, "general −4.0 ± 1.0, so it forgot."), (-0.006, 0.003, "general −0.6 ± 0.9.")],
)
def test_what_it_cost_elsewhere_is_said_in_the_same_sentence(mean, high, words):
    general = {"difference": {"score": {"mean": mean, "low": 2 * mean - high, "high": high, "p": 0.01}}}
    assert report(sides(0.1, 0.95), 42, general)["verdict"].endswith(words)
