"""A disk that is full, at whichever write: the run says so, and goes on when there is room again."""

import os
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, which Windows does not")


def test_no_write_site_costs_more_than_the_time_since_the_last_checkpoint(survive):
    ((_, sites, _, wrong, *_),) = survive(disk=25)
    assert int(sites) >= 10
    assert wrong == "0"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a disk")
def test_a_disk_too_small_pauses_the_run_which_ends_the_same_once_it_has_grown(survive):
    rows = survive(small=8)
    for _, sizes, _, wrong, more in rows:  # none where even root cannot mount
        assert (sizes, wrong) == ("8", "0")
        assert not more.startswith("0 paused")
