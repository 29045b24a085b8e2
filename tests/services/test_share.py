"""Settings that are passed on hold what the run came to, and are fitted to the machine they are read on."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.domain.document import from_document
from studio.domain.records import Dataset, Model, Run, Status
from studio.services import share
from studio.services.datasets import sample_path
from studio.services.machine import Gpu
from studio.studio import Studio

CARD = Gpu(name="Card", memory_bytes=24 * 10**9, memory_free_bytes=24 * 10**9, bf16=True)


@pytest.fixture
def studio(home: Any) -> Studio:
    return Studio()


@pytest.fixture
def dataset(studio: Studio) -> Dataset:
    return studio.datasets.add(sample_path())


@pytest.fixture
def model(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of this home, by its record alone."""
    found = Model(id="owner/model", path="/m", source="hub", sha256="f" * 64, parameters=135_000_000, context=8192)
    monkeypatch.setattr(studio.models, "list", lambda: [found])
    monkeypatch.setattr(studio.models, "find", lambda id: found if id == found.id else None)
    return found


def machine(studio: Studio, monkeypatch: pytest.MonkeyPatch, **has: Any) -> None:
    facts = studio.machine.facts().model_copy(update={"gpu": None, "bf16": False, "cores": 2} | has)
    monkeypatch.setattr(studio.machine, "facts", lambda: facts)
    monkeypatch.setattr(studio.machine, "cards", lambda: ["one"] if facts.gpu else [])


@pytest.fixture
def run(studio: Studio, dataset: Dataset, model: Model, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that has ended well, with the folder its preparation wrote."""
    monkeypatch.setattr(studio.models, "resolve", lambda *_: model)
    made = studio.runs.prepare(
        from_document({"name": "desk", "model": {"id": model.id}, "data": {"path": str(sample_path())}})
    )
    result = {"peak_memory_bytes": 10**9, "eval": {"verdict": "Better: 9 against 2 of 24."}}
    return made.model_copy(
        update={"status": Status.FINISHED, "loss": 0.5, "step": 46, "seconds": 60.0, "result": result}
    )


@pytest.mark.spec("U18.4")
def test_a_run_s_settings_hold_reasons_hardware_and_results(run: Run, studio: Studio) -> None:
    text = share.settings_of(run)
    assert "# Twice the rank is the usual strength." in text
    about = yaml.safe_load(text)["about"]
    assert about["results"]["eval"]["verdict"] == "Better: 9 against 2 of 24."
    assert about["results"]["loss"] == 0.5
    assert about["hardware"]["cores"] == studio.machine.facts().cores
    assert about["model"]["sha256"] == "f" * 64
    assert from_document(yaml.safe_load(text)) == from_document(
        yaml.safe_load(Path(run.path, "config.yaml").read_bytes())
    )


def test_what_can_run_here_is_left_as_it_is(run: Run, studio: Studio) -> None:
    document = yaml.safe_load(share.settings_of(run))
    fitted = studio.fit(document)
    assert [line for line in fitted.changes if not line.startswith("data.path")] == []
    assert fitted.open == []
    mine = from_document(document)
    mine.data.path = from_document(fitted.document).data.path
    assert from_document(fitted.document) == mine


@pytest.mark.spec("U18.2")
@pytest.mark.parametrize(
    ("setting", "here", "becomes"),
    [
        ({"hardware": {"device": "cuda"}}, {}, "hardware.device is auto: there is no CUDA card here."),
        ({"hardware": {"processes": 8}}, {}, "hardware.processes is auto: 2 can work side by side here."),
        ({"hardware": {"processes": 2}}, {"gpu": CARD}, "hardware.processes is auto: 1 can work side by side here."),
        ({"hardware": {"sharding": "fsdp"}}, {"gpu": CARD}, "hardware.sharding is none: there are not two cards"),
        ({"train": {"precision": "bf16"}}, {}, "train.precision is auto: this hardware is not fast with bf16."),
    ],
)
def test_what_this_machine_has_not_is_changed_and_said(
    studio: Studio,
    dataset: Dataset,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, Any],
    here: dict[str, Any],
    becomes: str,
) -> None:
    machine(studio, monkeypatch, **here)
    fitted = studio.fit({"model": {"id": model.id}, "data": {"path": dataset.id}} | setting)
    assert len(fitted.changes) == 1
    assert fitted.changes[0].startswith(becomes)
    key, _, value = becomes.split(":")[0].partition(" is ")
    group, name = key.split(".")
    assert fitted.document[group][name] == value
    assert studio.fit(fitted.document).changes == [], "once is enough"


def test_a_run_that_does_not_fit_takes_the_change_that_makes_it_fit(
    studio: Studio, dataset: Dataset, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = 10**9
    machine(studio, monkeypatch, memory_bytes=tight, memory_free_bytes=tight)
    wide = {"train": {"batch_tokens": 65_536, "effective_rows": 512, "recompute": "off"}}
    fitted = studio.fit({"model": {"id": model.id}, "data": {"path": dataset.id}} | wide)
    assert len(fitted.changes) + len(fitted.open) == 1
    assert "are needed" in (fitted.changes + fitted.open)[0]


def test_model_and_data_are_found_by_their_content(studio: Studio, dataset: Dataset, model: Model) -> None:
    about = {"model": {"sha256": model.sha256}, "data": {"sha256": dataset.sha256, "name": "support"}}
    fitted = studio.fit({"model": {"id": "/other/place"}, "data": {"path": "/other/file.csv"}, "about": about})
    assert fitted.document["model"]["id"] == model.id
    assert fitted.document["data"]["path"] == dataset.id
    assert fitted.open == []


def test_what_is_not_here_is_said_with_what_to_do(studio: Studio, model: Model) -> None:
    about = {"data": {"sha256": "0", "name": "tickets"}}
    fitted = studio.fit({"model": {"id": "owner/other"}, "data": {"path": "abc"}, "about": about})
    assert fitted.open == [
        "The model owner/other is not here yet: it is fetched at the start.",
        "The data tickets is not here: add it, or choose other data.",
    ]
    fitted = studio.fit({"model": {"id": "/folder/of/a/model"}, "data": {"path": "abc"}})
    assert "copy it here" in fitted.open[0]


def test_about_sets_nothing(studio: Studio) -> None:
    document = {"model": {"id": "starter"}, "data": {"path": "x"}}
    assert from_document(document | {"about": {"anything": json.dumps([1])}}) == from_document(document)
