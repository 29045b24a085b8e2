"""Adapters: a run becomes one version, numbers are never reused, one version is active, pickles stay outside."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from studio.domain.errors import ModelError, NotFound, StudioError
from studio.domain.records import Model, Run, Status
from studio.services import adapters as module
from studio.services import policy
from studio.services.adapters import Adapters, base_of
from studio.storage.store import Store


@pytest.fixture
def adapters(home):
    return Adapters(home, Store(home))


def finished(home, number=1, name="Support Desk", verdict="Better: 9 of 10."):
    """A run as the engine leaves it."""
    folder = home.runs / f"support-desk-{number}"
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {name}\n")
    created = f"2026-01-0{number}T00:00:00.000+00:00"
    lineage = {"run": folder.name, "name": name, "created": created, "engine": {"kept": True}}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    fill(folder / "adapter", {"verdict": verdict})
    return Run(
        id=folder.name,
        name=name,
        path=str(folder),
        status=Status.FINISHED,
        model="starter",
        dataset="support",
        method="lora",
        created=created,
    )


def fill(folder, metrics=None, base="starter"):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(f"weights {folder}".encode())
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "README.md").write_text("a card")
    (folder / "training_args.bin").write_bytes(b"pickle")
    facts = {
        "base": {"id": base, "revision": "abc", "path": "/models/starter"},
        "method": "lora",
        "template_sha256": "ff",
        "metrics": metrics or {},
    }
    (folder / "studio.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.spec("U28.1", "U28.2")
def test_a_run_becomes_the_next_version_with_all_that_belongs_to_it(home, adapters):
    first = adapters.add(finished(home, 1))
    second = adapters.add(finished(home, 2))
    assert (first.ref, second.ref) == ("support-desk@v1", "support-desk@v2")
    assert second.created
    assert (second.base, second.base_path, second.method) == ("starter", "/models/starter", "lora")
    assert second.metrics == {"verdict": "Better: 9 of 10."}
    folder = Path(second.path)
    assert {file.name for file in folder.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "config.yaml",
        "studio.json",
        "README.md",
    }
    assert json.loads((folder / "studio.json").read_text())["template_sha256"] == "ff"
    shutil.rmtree(home.runs)
    assert (folder / "adapter_model.safetensors").read_bytes().startswith(b"weights")
    assert (folder / "config.yaml").read_text() == "name: Support Desk\n"


def test_a_run_becomes_one_version_however_many_add_it(home):
    run = finished(home)
    made = []
    threads = [threading.Thread(target=lambda: made.append(Adapters(home, Store(home)).add(run).ref)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["support-desk@v1"] * 8
    assert [path.name for path in (home.adapters / "support-desk").iterdir()] == ["v1"]
    assert json.loads(Path(run.path, "lineage.json").read_text())["engine"] == {"kept": True}


def test_a_version_whose_making_was_cut_short_is_found_not_made_again(home, adapters):
    run = finished(home)
    before = Path(run.path, "lineage.json").read_text()
    adapters.add(run)
    Path(run.path, "lineage.json").write_text(before)  # as if killed before the run was told
    home.database.unlink()
    assert adapters.add(run).ref == "support-desk@v1"


def test_another_run_of_the_same_id_is_another_adapter(home, adapters):
    adapters.add(finished(home, 1))
    shutil.rmtree(home.runs / "support-desk-1")
    later = finished(home, 1).model_copy(update={"created": "2027-01-01T00:00:00.000+00:00"})
    assert adapters.add(later).ref == "support-desk@v2"


@pytest.mark.parametrize(("verdict", "active"), [("Better: yes.", "v2"), ("Not better.", "v1"), ("", "v1")])
def test_a_new_version_is_active_when_it_is_better(home, adapters, verdict, active):
    adapters.add(finished(home, 1, verdict="Worse."))
    adapters.add(finished(home, 2, verdict=verdict))
    assert adapters.get("support-desk").ref == f"support-desk@{active}"


def test_the_user_chooses_the_active_version(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number))
    assert adapters.activate("support-desk@v1").active
    assert adapters.get("support-desk").version == 1
    assert [(adapter.version, adapter.active) for adapter in adapters.list()] == [(2, False), (1, True)]


def test_the_active_version_is_not_removed_while_there_is_another(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number))
    with pytest.raises(StudioError, match="support-desk@v2 is the active version") as caught:
        adapters.remove("support-desk")
    assert caught.value.hint == "Make another one active first, as support-desk@v1."
    assert len(adapters.list()) == 2


def test_what_is_being_measured_or_exported_is_not_removed(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number))
    work = home.cache / "export-1"
    work.mkdir()
    (work / "request.json").write_text(json.dumps({"adapter": adapters.get("support-desk@v1").path}))
    with pytest.raises(StudioError, match="v1 is in use: it is being exported"):
        adapters.remove("support-desk@v1")
    shutil.rmtree(work)
    adapters.remove("support-desk@v1")


def test_removing_frees_what_it_says_also_where_the_run_shares_the_weights(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number))
    version = adapters.get("support-desk@v1")
    weights = home.runs / "support-desk-1" / "adapter" / "adapter_model.safetensors"
    assert weights.samefile(Path(version.path, weights.name))
    assert adapters.remove("support-desk@v1") == version.bytes
    assert not weights.exists()
    assert (weights.parent / "studio.json").exists()


def test_weights_that_something_else_holds_are_not_counted_as_freed(home, adapters, tmp_path):
    for number in (1, 2):
        adapters.add(finished(home, number))
    version = adapters.get("support-desk@v1")
    weights = Path(version.path, "adapter_model.safetensors")
    os.link(weights, tmp_path / "mine")
    assert adapters.remove("support-desk@v1") == version.bytes - (tmp_path / "mine").stat().st_size


def test_a_removed_version_leaves_no_trace_but_its_number(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number))
    adapters.activate("support-desk@v1")
    adapters.remove("support-desk@v2")
    assert adapters.get("support-desk").ref == "support-desk@v1"
    with pytest.raises(NotFound, match="support-desk has no version 2"):
        adapters.get("support-desk@v2")
    assert adapters.add(finished(home, 3)).ref == "support-desk@v3"
    adapters.remove("support-desk@1")
    adapters.remove("support-desk@v3")  # the only one
    assert list(home.adapters.iterdir()) == []
    with pytest.raises(NotFound, match="There is no adapter support-desk"):
        adapters.get("support-desk")


GENERAL = {"difference": {"score": {"mean": -0.021, "low": -0.03, "high": -0.012}}}


@pytest.mark.parametrize(
    ("most", "active", "held"),
    [(None, "v2", ""), (3, "v2", ""), (1, "v1", "General texts −2.1 points; 1 may be lost.")],
)
def test_a_version_that_forgot_more_than_the_rule_allows_is_kept_but_not_made_active(
    home, adapters, most, active, held
):
    adapters.add(finished(home, 1))
    policy.write(home.adapters / "support-desk", most_lost=most)
    run = finished(home, 2)
    fill(Path(run.path) / "adapter", {"verdict": "Better on yours: 9 of 10.", "general": GENERAL})
    made = adapters.add(run)
    assert made.held == held
    assert adapters.get("support-desk").ref == f"support-desk@{active}"
    assert adapters.activate(made.ref).active  # anyway


def test_a_version_says_what_it_came_from(home, adapters):
    run = finished(home)
    facts = json.loads(Path(run.path, "adapter", "studio.json").read_text())
    came = {"dataset_sha256": "ab", "seed": 7, "device": "processor", "studio": "1.0", "versions": {"torch": "2"}}
    Path(run.path, "adapter", "studio.json").write_text(json.dumps(facts | came))
    assert adapters.add(run).lineage == came | {"base_revision": "abc"}


def test_versions_survive_the_loss_of_the_database(home, adapters):
    for number in (1, 2):
        adapters.add(finished(home, number, verdict="Worse."))
    home.database.unlink()
    assert adapters.get("support-desk").version == 2
    assert adapters.add(finished(home, 3)).version == 3


def test_the_list_can_be_of_one_name_or_one_base(home, adapters):
    adapters.add(finished(home, 1))
    adapters.add(finished(home, 2, name="other"))
    assert [adapter.ref for adapter in adapters.list()] == ["other@v1", "support-desk@v1"]
    assert [adapter.ref for adapter in adapters.list("other")] == ["other@v1"]
    assert len(adapters.list(base="starter")) == len(adapters.list(base="/models/starter")) == 2
    assert adapters.list(base="another") == adapters.list("no-such") == []


def test_a_folder_outside_is_an_adapter_too_but_not_the_studios(home, adapters, tmp_path):
    folder = fill(tmp_path / "mine")
    found = adapters.get(str(folder))
    assert (found.ref, found.base, found.version) == (str(folder), "starter", 0)
    with pytest.raises(NotFound, match="outside the studio"):
        adapters.remove(str(folder))
    assert folder.is_dir()
    (folder / "studio.json").unlink()  # made elsewhere
    assert adapters.get(str(folder)).base == "starter"


def test_pickled_and_incomplete_folders_are_refused(adapters, tmp_path):
    folder = fill(tmp_path / "mine")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        adapters.get(str(folder))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        adapters.get(str(folder))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError) as caught:
        adapters.get(str(folder))
    assert caught.value.message.endswith("holds pickled weights (.bin), which can run code when loaded.")
    assert caught.value.hint == "Ask for a safetensors version, or convert it elsewhere."
    with pytest.raises(ModelError, match="holds no adapter_model"):
        adapters.get(str(tmp_path))


@pytest.mark.parametrize("facts", ["[]", "{", '{"base": "starter"}', '{"base": null, "metrics": {}}'])
def test_strange_facts_in_a_foreign_folder_are_not_taken_for_ours(adapters, tmp_path, facts):
    folder = fill(tmp_path / "mine")
    (folder / "studio.json").write_text(facts)
    assert adapters.get(str(folder)).base == "starter"


@pytest.mark.parametrize("ref", ["nobody", "nobody@v1", "support-desk@v9", "../../nowhere", "@", "support desk"])
def test_what_is_not_there_is_named_with_what_is(home, adapters, ref):
    adapters.add(finished(home))
    with pytest.raises(NotFound) as caught:
        adapters.get(ref)
    assert "support-desk" in str(caught.value)


def test_a_full_disk_keeps_nothing_half_and_a_second_try_works(home, adapters, monkeypatch):
    run = finished(home)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StudioError, match=r"could not be kept: No space left on device"):
        adapters.add(run)
    assert adapters.list() == []
    assert [path for path in home.adapters.iterdir() if path.name.startswith(".")] == []
    monkeypatch.undo()
    assert adapters.add(run).ref == "support-desk@v1"


def test_weights_are_copied_where_files_cannot_be_shared(home, adapters, monkeypatch):
    monkeypatch.setattr(module, "_link", lambda file, target: False)
    kept = Path(adapters.add(finished(home)).path, "adapter_model.safetensors")
    assert kept.stat().st_nlink == 1
    assert kept.read_bytes().startswith(b"weights")


class TheseModels:
    def __init__(self, *models: Model) -> None:
        self.models = models

    def find(self, id):
        return next((model for model in self.models if id in (model.id, model.path)), None)


def test_the_base_is_found_by_its_folder_then_by_its_name_else_named(adapters, tmp_path):
    adapter = adapters.get(str(fill(tmp_path / "mine")))
    old = Model(id="starter", path="/elsewhere", source="hub")
    exact = Model(id="starter", path="/models/starter", source="hub")
    assert base_of(adapter, TheseModels(old, exact)) is exact
    assert base_of(adapter, TheseModels(old)) is old
    with pytest.raises(ModelError, match=r"The base model of .*, starter, is not on this machine"):
        base_of(adapter, TheseModels())
