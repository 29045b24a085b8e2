"""Hashes of examples: remembered once, in order, with a bound that holds rows out."""

from hypothesis import given
from hypothesis import strategies as st

from studio.services.seen import Seen


@given(st.lists(st.integers(0, 2**64 - 1)), st.data())
def test_hashes_are_remembered_in_order(marks: list[int], data: st.DataObject) -> None:
    seen = Seen()
    assert [seen.add(mark) for mark in marks] == [mark not in marks[:place] for place, mark in enumerate(marks)]
    ordered = sorted(set(marks))
    assert seen.count == len(ordered)
    count = data.draw(st.integers(0, len(ordered)))
    assert sum(mark < seen.smallest(count) for mark in ordered) == count


@given(st.sets(st.integers(0, 2**64 - 1)), st.floats(0, 0.5))
def test_the_bound_holds_out_a_share_and_leaves_one_to_learn_from(marks: set[int], fraction: float) -> None:
    seen = Seen()
    for mark in marks:
        seen.add(mark)
    held = sum(mark < seen.bound(len(marks), fraction) for mark in marks)
    assert held == 0 or held < len(marks)
    assert abs(held - len(marks) * fraction) <= 1
