"""The rule about new versions: better, and not more forgotten than allowed."""

import pytest

from studio.services.policy import refusal


def metrics(verdict="Better on yours: 9 of 10.", mean=None):
    general = {} if mean is None else {"general": {"difference": {"score": {"mean": mean}}}}
    return {"verdict": verdict} | general


@pytest.mark.parametrize(
    ("measured", "most", "words"),
    [
        (metrics(), None, ""),
        (metrics("Not better on yours: 1 of 10."), None, "It is not better than the base."),
        ({}, None, "It is not better than the base."),
        (metrics(mean=-0.05), None, ""),
        (metrics(mean=-0.05), 1, "General texts −5.0 points; 1 may be lost."),
        (metrics(mean=-0.01), 1, ""),
        (metrics(mean=0.02), 0, ""),
        (metrics(), 1.5, "It was not measured on general texts, and may lose 1.5 points there."),
    ],
)
def test_why_a_version_does_not_become_active_by_itself(measured, most, words):
    assert refusal(measured, most) == words
