"""A disk that is full, at whichever write: the run says so, and goes on when there is room again."""

import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="forks, which Windows does not")
def test_a_full_disk_is_named_and_costs_no_more_than_the_time_since_the_last_checkpoint(survive):
    sites, *small = survive(disk=60, small=3)
    assert int(sites[1]) >= 5
    assert sites[3] == "0"
    for _, disks, _, wrong, more in small:  # none where no disk can be mounted
        assert (disks, wrong) == ("3", "0")
        assert not more.startswith("0 paused")
