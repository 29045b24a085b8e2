"""Engines and studios killed at random moments lose nothing: a few of the kills that the benchmark makes."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, which Windows does not")


def test_a_killed_engine_loses_no_step_and_ends_like_one_left_alone(survive):
    ((_, kills, _, wrong, *_),) = survive(engine=20)
    assert int(kills) >= 20
    assert wrong == "0"


def test_a_killed_studio_leaves_no_run_without_a_studio(survive):
    ((_, kills, _, wrong, *_),) = survive(studio=10)
    assert (kills, wrong) == ("10", "0")
