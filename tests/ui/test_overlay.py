"""The curves of several runs over one another: told apart without colours, named, and safe whatever a run is called."""

import itertools
import json
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui.overlay import APART, STYLES, Trace, held_out, swatch, training

LINE = [(0.0, 3.0), (100.0, 2.0), (200.0, 1.5)]


def test_every_run_has_a_colour_and_a_dash_of_its_own() -> None:
    assert len({colour for colour, _ in STYLES}) == len({dashes for _, dashes in STYLES}) == 5
    drawn = held_out([Trace(f"run {n}", n, LINE) for n in range(5)])
    desk = drawn.split('class="desk"')[1].split("</svg>")[0]
    assert len(set(re.findall(r'stroke="(var\(--[a-z0-9-]+\))" stroke-width="2"', desk))) == 5
    assert len(re.findall("stroke-dasharray", desk)) == 4, "one line is whole"
    assert all(swatch(n) in drawn for n in range(5))


@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=5))
def test_names_at_the_ends_do_not_lie_on_one_another(ends: list[float]) -> None:
    drawn = held_out([Trace(f"run {n}", n, [(0, 9.0), (100, end)]) for n, end in enumerate(ends)])
    at = sorted(float(y) for y in re.findall(r'y="([\d.-]+)" class="name"', drawn))
    assert len(at) == len(ends)
    assert all(b - a >= APART - 0.11 for a, b in itertools.pairwise(at))


def test_the_pointer_reads_all_runs_that_got_there() -> None:
    drawn = held_out([Trace("short", 0, LINE[:2]), Trace("long", 1, LINE)])
    found = re.search('data-points="([^"]*)"', drawn)
    assert found
    points = json.loads(unescape(found[1]))
    assert points[0] == [0, "0 tokens · short 3.000 · long 3.000"]
    assert points[-1] == [200, "200 tokens · long 1.500"]


def test_names_are_escaped_and_what_is_no_number_is_left_out() -> None:
    drawn = training([Trace("<img onerror=1>", 0, [*LINE, (300, float("nan"))])])
    assert "<img" not in drawn
    assert "nan" not in drawn


@pytest.mark.parametrize("points", [[], [(0, float("nan"))]])
def test_without_a_point_there_is_no_chart(points: list[tuple[float, float]]) -> None:
    assert held_out([Trace("run 1", 0, points)]) == ""
