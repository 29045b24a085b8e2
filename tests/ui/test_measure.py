"""Measuring again from the page: what is asked of the service, and what came of it."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.services.evaluate import Evaluate
from studio.studio import Studio
from studio.ui import measure
from tests.ui.test_adapters import METRICS, keep, open_at

__all__ = ["open_at"]


def test_a_judge_has_both_or_there_is_none() -> None:
    assert measure.judge_of(" ", "") is None
    found = measure.judge_of(" http://localhost:1/v1 ", "m ")
    assert found
    assert (found.url, found.model) == ("http://localhost:1/v1", "m")
    with pytest.raises(StudioError, match="an address and a name"):
        measure.judge_of("http://localhost:1/v1", "")


def test_a_version_is_measured_again_on_a_named_file(
    open_at: Callable[[str], Any], studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(self: Evaluate, ref: str, data: str, *, report: Any, **options: Any) -> dict[str, Any]:
        asked.append((ref, data, options["general"], options["judge"].model))
        report(Phase(words="Asking the adapter"))
        return METRICS | {"judge": {"verdict": "Better by m: of 9 pairs 9 won, 0 lost, 0 tied."}}

    monkeypatch.setattr(Evaluate, "run", run)
    keep(studio, "desk", 1, METRICS)
    page = open_at("/?view=adapters&adapter=desk")
    page.get_by_role("button", name="Measure again").click()
    page.get_by_label("General texts too: did it forget?").uncheck()
    page.get_by_label("Judge, if wanted").fill("http://localhost:1/v1")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_text("A judge has an address and a name.")).to_be_visible()
    page.get_by_label("Its name there").fill("m")
    data = page.get_by_label("On the held-out rows of, or a file never trained on")
    data.fill("/rows.csv")
    data.press("Enter")
    page.get_by_role("button", name="Measure", exact=True).click()
    expect(page.get_by_text("Better by m: of 9 pairs 9 won")).to_be_visible()
    assert asked == [("desk@v1", "/rows.csv", False, "m")]
