"""The model step of Train: what the chosen model is stands under the list."""

from collections.abc import Callable

from studio.domain.records import Model
from studio.services.models import RECORD
from studio.studio import Studio
from studio.ui import train
from tests.services.test_model_facts import make
from tests.ui.conftest import Page


def test_the_chosen_model_is_told(studio: Studio, page: Callable[..., Page]) -> None:
    folder = make(studio.home.models / "starter")
    model = Model(id="starter", path=str(folder), source="package", licence="apache-2.0")
    (folder / RECORD).write_text(model.model_dump_json())
    made = page(train.build, "train")
    made.refresh()
    assert "About SmolLM2-135M-Instruct" in made.seen()
    assert "4, 2 for keys and values" in made.seen()
    (folder / "config.json").unlink()
    made.refresh()  # a model that is damaged is said by the run; the page stays
    assert "About SmolLM2" not in made.seen()
