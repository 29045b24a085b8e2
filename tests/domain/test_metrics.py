"""How a measure and its difference are told."""

import pytest

from studio.domain.metrics import METRICS, lines


def found(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


@pytest.mark.parametrize(
    ("key", "difference", "tone"),
    [
        ("exact_match", (0.1, 0.05, 0.2), "good"),
        ("exact_match", (-0.1, -0.2, -0.05), "bad"),
        ("exact_match", (0.1, -0.05, 0.2), ""),
        ("loss", (-0.4, -0.5, -0.3), "good"),
        ("loss", (0.4, 0.3, 0.5), "bad"),
        ("loss", (0.4, -0.3, 0.5), ""),
    ],
)
def test_a_difference_is_good_or_bad_only_with_its_whole_interval(
    key: str, difference: tuple[float, float, float], tone: str
) -> None:
    assert METRICS[key].tone(found(*difference)) == tone


def test_shares_are_told_in_points_and_losses_as_they_are() -> None:
    assert METRICS["exact_match"].value(0.625) == "62\N{NARROW NO-BREAK SPACE}%"
    assert METRICS["exact_match"].change(found(0.59, 0.52, 0.66)) == ("+59 points", "+52 to +66")
    assert METRICS["loss"].value(1234.5) == "1,234.500"
    assert METRICS["loss"].change(found(-0.4, -0.5, -0.3)) == ("−0.400", "−0.500 to −0.300")


def test_a_comparison_has_what_both_sides_have_then_the_general_set() -> None:
    report = {
        "base": {"loss": 2.0, "exact_match": None},
        "adapter": {"loss": 1.0, "exact_match": None},
        "difference": {"loss": found(-1.0, -1.2, -0.8) | {"p": 0.3}},
        "general": {"base": {"score": 0.4}, "adapter": {"score": 0.4}},
    }
    loss, general = lines(report)
    assert loss.difference == "−1.000, −1.200 to −0.800, p = 0.3"
    assert (general.metric.name, general.difference) == ("General texts", "")
