"""Verdicts and differences: the words and the plots say the same as the numbers."""

import re

import pytest

from studio.ui import report


def found(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "p": 0.05}


@pytest.mark.parametrize(
    ("sentence", "word", "tone"),
    [
        ("Better: 14 against 0.", "Better", "good"),
        ("Not better: the same.", "Not better", "warn"),
        ("Mixed: closer, but less sure.", "Mixed", "warn"),
        ("Worse: 1 against 3.", "Worse", "bad"),
        ("Not measured: no rows.", "Not measured", ""),
    ],
)
def test_the_verdicts_first_words_carry_its_tone(sentence: str, word: str, tone: str) -> None:
    assert f'<b class="{tone}">{word}</b>{sentence[len(word) :]}' in report.verdict(sentence)


def test_the_plot_shows_zero_in_the_middle_and_the_interval_in_place() -> None:
    sides = {"base": {"token_f1": 0.4}, "adapter": {"token_f1": 0.5}}
    drawn = report.intervals(sides | {"difference": {"token_f1": found(0.1, -0.05, 0.2)}})
    low, high = re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="9" y2="9" stroke="var\(--muted\)"', drawn).groups()
    (mean,) = re.search(r'cx="([\d.]+)"', drawn).groups()
    assert float(low) < 110 < float(mean) < float(high) <= 210
    assert "+10 points" in drawn
    assert "−5 to +20" in drawn


def test_text_data_has_no_answers_to_compare() -> None:
    sides = {side: {"loss": loss, "perplexity": 3.0, "exact_match": None, "token_f1": None} for side, loss in
             (("base", 2.0), ("adapter", 1.5))}  # fmt: skip
    table = report.table({"rows": 1200, "difference": {"loss": found(-0.5, -0.6, -0.4)}, **sides})
    assert "On 1,200 held-out rows" in table
    assert "−0.500, −0.600 to −0.400, p = 0.050" in table
    assert "Exactly right" not in table


@pytest.mark.spec("U7.5")
def test_base_and_adapter_stand_side_by_side_with_interval_and_p() -> None:
    general = {"base": {"score": 0.412}, "adapter": {"score": 0.398}}
    measured = {
        "rows": 40,
        "base": {"exact_match": 0.03},
        "adapter": {"exact_match": 0.62},
        "difference": {"exact_match": found(0.59, 0.52, 0.66) | {"p": 0.0005}},
        "general": general | {"difference": {"score": found(-0.014, -0.02, -0.008) | {"p": 0.004}}},
    }
    table = report.table(measured)
    for cell in ("+59 points, +52 to +66, p &lt; 0.001", "41.2", "39.8", "−1.4 points, −2.0 to −0.8, p = 0.004"):
        assert cell in table
    assert 'aria-label="−1.4 points, −2.0 to −0.8; higher is better"' in report.intervals(measured)


def test_answers_of_a_model_are_text() -> None:
    shown = report.samples(
        {"samples": [{"prompt": "a", "expected": "b", "base": "<img src=x onerror=1>", "adapter": "${7*7}"}]}
    )
    assert "<img" not in shown
    assert "&lt;img src=x onerror=1&gt;" in shown
