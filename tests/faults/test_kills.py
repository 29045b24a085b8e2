"""Engines and studios killed at random moments lose nothing: a few of the kills that the benchmark makes."""

import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="forks, which Windows does not")
def test_kills_lose_no_step_no_run_and_no_engine(survive):
    studios, engines = survive(studio=10, engine=20)
    assert (studios[1], studios[3]) == ("10", "0")
    assert int(engines[1]) >= 20
    assert engines[3] == "0"
