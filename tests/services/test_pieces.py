"""The guess at tokens is near what a real vocabulary makes of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.services.pieces import count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("The cat sat on the mat.", 7),
        ("2024", 4),  # a digit each, as most vocabularies have it
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n", 24),
        ("internationalisation", 3.2),
        ("天气很好", 2.4),
    ],
)
def test_words_digits_and_signs_are_counted(text: str, tokens: float) -> None:
    assert count(text) == pytest.approx(tokens, abs=0.6)


@given(st.text(), st.text())
def test_two_lines_are_the_sum_of_both(one: str, other: str) -> None:
    assert count(f"{one}\n{other}") == pytest.approx(count(one) + 1 + count(other))
