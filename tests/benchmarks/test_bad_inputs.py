"""Damaged files of every container are read or refused in words that name a row or the file, and a remedy."""

from tests.benchmarks import bad_inputs


def test_no_damage_gets_through_unnamed() -> None:
    found = bad_inputs.attempts(150, seed=7)
    assert [outcome for outcome in found if outcome.kind == "fault"] == []
    assert {outcome.kind for outcome in found} == {"read", "refused"}
