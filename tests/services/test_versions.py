"""Versions over time: notes and tags stay, the way back is known, archived ones are hidden, two are compared."""

import json
from pathlib import Path

import pytest

from studio.domain.errors import NotFound, StudioError
from studio.services.adapters import Adapters
from studio.services.versions import OTHER_ROWS, Versions
from studio.storage.store import Store
from tests.services.test_adapters import fill, finished


@pytest.fixture
def adapters(home):
    found = Adapters(home, Store(home))
    for number in (1, 2, 3):
        found.add(finished(home, number))
    return found


@pytest.fixture
def versions(adapters):
    return Versions(adapters)


def test_a_note_and_tags_stay_with_a_version_also_without_the_database(home, versions, adapters):
    versions.describe("support-desk@v1", note="For returns.", tags=["mild", " mild ", "", "old"])
    versions.describe("support-desk@v1", note="For returns only.")
    home.database.unlink()
    found = adapters.get("support-desk@v1")
    assert (found.note, found.tags) == ("For returns only.", ["mild", "old"])
    assert versions.describe("support-desk@v1", tags=[]).tags == []
    with pytest.raises(StudioError, match="This note cannot be kept"):
        versions.describe("support-desk@v1", note="x" * 3000)


def test_what_cannot_be_read_is_as_if_nothing_was_said(versions, adapters):
    Path(adapters.get("support-desk@v1").path, "about.json").write_text("{")
    assert adapters.get("support-desk@v1").note == ""


def test_the_way_back_leads_to_the_version_that_was_active(versions, adapters):
    assert adapters.get("support-desk").version == 3
    adapters.activate("support-desk@v1")
    assert versions.rollback("support-desk").version == 3
    assert versions.rollback("support-desk").version == 1
    adapters.activate("support-desk@v1")  # which it is already
    assert versions.rollback("support-desk").version == 3


def test_without_a_version_before_there_is_no_way_back(home, versions, adapters):
    adapters.activate("support-desk@v1")
    adapters.remove("support-desk@v3")
    with pytest.raises(StudioError, match="no version to go back to"):
        versions.rollback("support-desk")
    with pytest.raises(NotFound):
        versions.rollback("nobody")


def test_an_archived_version_is_hidden_not_gone(versions, adapters):
    with pytest.raises(StudioError, match="is the active version"):
        versions.archive("support-desk@v3")
    versions.archive("support-desk@v2")
    assert [each.version for each in adapters.list()] == [3, 1]
    assert [each.version for each in adapters.list(archived=True)] == [3, 2, 1]
    assert adapters.get("support-desk@v2").archived
    with pytest.raises(StudioError, match="is archived") as caught:
        adapters.activate("support-desk@v2")
    assert "restore support-desk@v2" in caught.value.hint
    assert not versions.restore("support-desk@v2").archived
    assert adapters.activate("support-desk@v2").active


def test_no_archived_version_stands_for_the_name_when_the_database_is_lost(home, versions, adapters):
    adapters.activate("support-desk@v1")
    versions.archive("support-desk@v3")
    home.database.unlink()
    assert adapters.get("support-desk").version == 2


def test_the_rule_of_a_name_lasts_and_ends_with_its_last_version(home, versions, adapters):
    assert versions.rule("support-desk") is None
    versions.set_rule("support-desk", 1.5)
    assert versions.rule("support-desk") == 1.5
    with pytest.raises(StudioError, match="-1 points cannot be the rule"):
        versions.set_rule("support-desk", -1)
    for ref in ("support-desk@v1", "support-desk@v2", "support-desk@v3"):
        adapters.remove(ref)
    assert not (home.adapters / "support-desk").exists()


@pytest.mark.spec("U28.3", "U28.4")
def test_two_versions_stand_beside_one_another_with_what_differs(home, versions, adapters):
    for number, exact, rank in ((1, 0.5, 8), (2, 0.7, 16)):
        folder = Path(adapters.get(f"support-desk@v{number}").path)
        (folder / "config.yaml").write_text(
            f"model: {{id: starter}}\ndata: {{path: a.csv}}\nmethod: {{rank: {rank}}}\n"
        )
        facts = json.loads((folder / "studio.json").read_text()) | {"dataset_sha256": "ab"}
        facts["metrics"] |= {"base": {"exact_match": 0.1}, "adapter": {"exact_match": exact}}
        (folder / "studio.json").write_text(json.dumps(facts))
    found = versions.compare("support-desk@v1", "support-desk@v2")
    exact = next(row for row in found.results if row.name == "Exactly right")
    assert (exact.values, exact.best) == ([0.5, 0.7], [1])
    assert [(row.name, row.words) for row in found.settings] == [("Rank", ["8", "16"])]
    assert found.notes == []
    assert versions.compare("support-desk@v1", "support-desk@v3").notes == [OTHER_ROWS]
    with pytest.raises(StudioError, match="the same as itself"):
        versions.compare("support-desk", "support-desk@v3")


def test_a_folder_elsewhere_is_compared_but_nothing_is_written_there(versions, tmp_path):
    mine = fill(tmp_path / "mine")
    assert versions.compare("support-desk", str(mine)).settings == []
    with pytest.raises(NotFound, match="outside the studio"):
        versions.describe(str(mine), note="mine")
