"""Numbers and times read the same everywhere."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain import words


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (words.count(4812), "4,812"),
        (words.count(9_999_999), "9,999,999"),
        (words.count(12_300_000), "12\u202fM"),
        (words.short(412_000), "412\u202fk"),
        (words.short(4_022_000_000), "4.0\u202fB"),
        (words.short(999_900), "1.0\u202fM"),
        (words.size(9_800_000_000), "9.8 GB"),
        (words.size(420_000_000), "420 MB"),
        (words.size(66_200_000), "66.2 MB"),
        (words.size(212_400_000_000), "212 GB"),
        (words.size(0), "0.0 kB"),
        (words.duration(42), "42 s"),
        (words.duration(89.7), "1 min"),
        (words.duration(48 * 60), "48 min"),
        (words.duration(70 * 60), "70 min"),
        (words.duration(4200 + 1800), "1 h 40 min"),
        (words.interval(23 * 60, 29 * 60), "23–29 min"),
        (words.interval(40, 61), "40–61 s"),
        (words.interval(50, 100), "1–2 min"),
        (words.interval(61, 62), "61–62 s"),
        (words.interval(60 * 30, 60 * 30.2), "30 min"),
        (words.interval(4800, 6300), "80 min–1 h 45 min"),
        (words.percent(0.42), "42\u202f%"),
        (words.rate(1.6e-4), "1.6e-4"),
        (words.rate(0), "0"),
        (words.signed(14), "+14"),
        (words.signed(-0.6, 1), "−0.6"),
        (words.signed(-0.01), "0"),
        (words.run_title("support-desk-3"), "support-desk, run 3"),
        (words.run_title("untitled"), "untitled"),
        (words.plural(1, "row"), "1 row"),
        (words.plural(4812, "row"), "4,812 rows"),
        (words.plural(2, "copy", "copies"), "2 copies"),
    ],
)
def test_as_the_design_writes_it(said: str, meant: str) -> None:
    assert said == meant


def test_when_is_said_in_days() -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).astimezone()
    assert words.when(now.isoformat(), now).startswith("today ")
    assert words.when((now - timedelta(days=1)).isoformat(), now).startswith("yesterday ")
    assert words.when((now - timedelta(days=3)).isoformat(), now) == "18 Nov"
    assert words.when((now - timedelta(days=400)).isoformat(), now).endswith(" 2025")


@given(st.floats(0, 1e15))
def test_no_size_or_count_is_longer_than_a_cell(value: float) -> None:
    assert len(words.size(value)) <= 12
    assert len(words.count(value)) <= 12


def test_a_turn_says_its_text_and_its_calls() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
    assert words.said({"content": "Hello"}) == "Hello"
    assert words.said({"content": "", "tool_calls": [call]}) == 'weather({"city": "Köln"})'
