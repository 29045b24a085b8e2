"""The inspector on the Data tab: a file and a data set are shown as a model reads them, with a limit to try."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.domain.records import Model
from studio.services.models import RECORD
from studio.studio import Studio
from studio.ui import data, inspector
from tests.domain.test_supervision import seen
from tests.engine.test_inspect import make_folder
from tests.ui.conftest import Page

MakePage = Callable[..., Page]


@pytest.fixture
def opened(studio: Studio, page: MakePage, tickets: Path) -> Iterator[Page]:
    """The Data tab with a model that has no weights, which nothing here needs, and a file that was read."""
    folder = make_folder(studio.home.models / "starter")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / RECORD).write_text(Model(id="starter", path=str(folder), source="package").model_dump_json())
    made = page(data.build, "data")
    made.refresh()
    made.press("Or the path of a file on this machine", "submit", str(tickets))
    made.refresh("a file")
    yield made
    studio.inspect.server.unload()


@pytest.mark.spec("U24.5")
def test_an_example_of_a_file_is_shown_as_the_model_reads_it(opened: Page) -> None:
    assert "exact" not in opened.seen()
    opened.press("Show what it learns")
    text = opened.seen()
    assert "The model reads all of this and learns to write the marked part." in text
    assert "You are a helpful AI assistant named SmolLM" in text  # what only the template adds
    assert '<mark>Parcel 0 is at the depot.<b class="stop">&lt;|im_end|&gt;</b></mark>' in text
    assert "counted in all 40 examples" in text
    assert "Nothing is wrong" in text
    opened.press("Example", "input", 3)
    assert "<mark>Parcel 2 is at the depot." in opened.seen()


def test_a_smaller_limit_is_tried_and_says_what_is_lost(opened: Page) -> None:
    opened.press("Show what it learns")
    opened.press("Longest example, tokens", "input", 50)
    text = opened.seen()
    assert "Answers beyond 50 tokens" in text
    assert "Not trained" in text
    assert "</s>" in text
    assert "Set the longest example (<code>data.max_length</code>)" in text
    opened.press("Example", "input", 2)  # the limit stays
    assert "Answers beyond 50 tokens" in opened.seen()


def test_a_data_set_is_shown_too_and_another_one_begins_anew(opened: Page, studio: Studio, tickets: Path) -> None:
    opened.press("Show what it learns")
    dataset = studio.datasets.add(tickets, map={"prompt": "they_wrote", "response": "we_said"})
    opened.refresh(dataset.id)
    assert opened.was("For which model", "choices") == [("SmolLM2-135M-Instruct", "starter")]
    assert opened.values[opened.find("Show what it learns")] == "Show what it learns"
    opened.press("Example", "input", 2)  # nothing was asked for yet
    opened.press("Show what it learns")
    assert "is at the depot.<b" in opened.seen()
    assert "counted in all 36 examples" in opened.seen()


def test_a_model_that_cannot_be_read_is_told(opened: Page, studio: Studio) -> None:
    (studio.home.models / "starter" / "config.json").unlink()
    opened.press("Show what it learns")
    assert "has no config.json" in opened.seen()
    assert opened.was("Show what it learns", "interactive") is True


def test_figures_and_very_long_texts_are_said_shortly() -> None:
    long = seen(spans=[{"text": "x" * 90_000, "trained": False}, {"text": "<b>", "trained": True}])
    drawn = inspector.drawn(long)
    assert len(drawn) < 10_000
    assert "86,000 characters not shown" in drawn
    assert "<mark>&lt;b&gt;</mark>" in drawn
    told = {cell["label"]: cell for cell in inspector.cells(seen({"of": 5000, "lost_tokens": 20}))}
    assert told["Answers beyond 80 tokens"]["note"] == "estimated from a sample: 10 examples of 5,000"
