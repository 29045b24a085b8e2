"""Looks at examples: one engine for a model, left when another is asked for, with words and remedies added."""

from pathlib import Path

import pytest

from studio.domain.document import from_document
from studio.domain.errors import EngineError
from studio.domain.events import Phase
from studio.domain.records import Model
from studio.domain.supervision import Supervision
from studio.services import sample
from studio.services.inspect import Inspect
from studio.storage.paths import Home
from tests.engine.test_inspect import make_folder

CONFIG = from_document({"model": {"id": "m"}, "data": {"path": "d"}})


def looked(inspect: Inspect, folder: Path, subject: sample.Subject, **data: object) -> tuple[list[str], Supervision]:
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update=data)})
    *phases, seen = inspect.look(Model(id="m", path=str(folder), source="folder"), subject, config)
    assert isinstance(seen, Supervision)
    return [phase.words for phase in phases if isinstance(phase, Phase)], seen


def test_an_example_is_looked_at_and_judged_by_an_engine_that_stays(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text("question,answer\n" + "".join(f"Q {n},{'blue ' * n}\n" for n in range(1, 25)))
    subject = sample.of_file(home, path, row=20)
    inspect = Inspect(home)
    try:
        folder = make_folder(tmp_path / "one")
        said, seen = looked(inspect, folder, subject)
        assert said == ["Reading the model's tokenizer", "Counting the tokens of a sample"]
        assert (seen.row, seen.findings, seen.sample.of) == (20, [], 24)
        engine = inspect.server.engine
        said, seen = looked(inspect, folder, subject, max_length=32)
        assert said == []  # tokenizer and sample are there already
        assert {finding.level for finding in seen.findings} == {"must", "should"}
        assert inspect.server.engine is engine
        looked(inspect, make_folder(tmp_path / "two"), subject)
        assert inspect.server.engine is not engine
        (tmp_path / "three").mkdir()
        with pytest.raises(EngineError, match=r"has no config\.json"):
            looked(inspect, tmp_path / "three", subject)
    finally:
        inspect.server.unload()
