"""`adapters`: versions are listed, shown, chosen, compared, described, archived and removed."""

import json
from pathlib import Path
from typing import Any

from studio.storage.paths import Home
from tests.commands.conftest import Call

BASICS = ("train", "--model", "starter", "--dataset")


def test_versions_are_listed_chosen_and_removed(call: Call, rows: Path, trained: dict[str, Any], home: Home) -> None:
    call(*BASICS, rows)

    def versions() -> dict[str, bool]:
        return {each["ref"]: each["active"] for each in json.loads(call("adapters", "list", "--json").stdout)}

    assert set(versions()) == {"support-desk@v1", "support-desk@v2"}
    assert "now stands for v1" in call("adapters", "activate", "support-desk@v1").stdout
    assert versions()["support-desk@v1"]
    shown = call("adapters", "show", "support-desk").stdout
    assert "Active" in shown
    assert "Better: 3 of 4." in shown
    assert json.loads(call("adapters", "show", "support-desk", "--json").stdout)["version"] == 1
    refused = call("adapters", "remove", "support-desk@v1", "--yes")
    assert (refused.exit_code, "is the active version" in refused.stderr) == (1, True)
    asked = call("adapters", "remove", "support-desk@v2", input="n\n")
    assert (asked.exit_code, "would be free" in asked.stderr) == (0, True)
    assert len(versions()) == 2
    assert call("adapters", "remove", "support-desk@v2", input="y\n").exit_code == 0
    assert versions() == {"support-desk@v1": True}
    assert (
        json.loads(call("adapters", "remove", "support-desk", "--yes", "--json").stdout)["removed"] == "support-desk@v1"
    )
    assert versions() == {}
    assert (home.runs / trained["run"]).is_dir()


def test_a_version_is_compared_described_archived_and_brought_back(
    call: Call, rows: Path, trained: dict[str, Any], home: Home
) -> None:
    call(*BASICS, rows, "--set", "method.rank=8")
    compared = json.loads(call("adapters", "compare", "support-desk@v1", "support-desk@v2", "--json").stdout)
    assert compared["versions"] == ["support-desk@v1", "support-desk@v2"]
    assert [row["words"][1] for row in compared["settings"] if row["name"].startswith("Rank")] == ["8"]
    assert "Settings that differ" in call("adapters", "compare", "support-desk@v1", "support-desk@v2").stdout

    said = call("adapters", "describe", "support-desk@v1", "--note", "The first one.", "--tag", "mild", "--tag", "old")
    assert "The first one. · mild, old" in said.stdout
    assert json.loads(call("adapters", "show", "support-desk@v1", "--json").stdout)["tags"] == ["mild", "old"]

    active = json.loads(call("adapters", "show", "support-desk", "--json").stdout)["ref"]
    other = f"support-desk@v{3 - int(active[-1])}"
    assert call("adapters", "archive", active).exit_code == 1
    assert "is archived" in call("adapters", "archive", other).stdout
    assert other not in call("adapters", "list").stdout
    assert other in call("adapters", "list", "--archived").stdout
    assert "restore" in call("adapters", "activate", other).stderr
    assert "is back" in call("adapters", "restore", other).stdout
    call("adapters", "activate", other)
    assert f"stands for v{active[-1]} again" in call("adapters", "rollback", "support-desk").stdout


def test_the_rule_is_shown_set_and_ended(call: Call, trained: dict[str, Any]) -> None:
    assert "when it is better than the base" in call("adapters", "rule", "support-desk").stdout
    assert "at most 1 general" in call("adapters", "rule", "support-desk", "--most-lost", "1").stdout
    shown = json.loads(call("adapters", "rule", "support-desk", "--json").stdout)
    assert shown == {"name": "support-desk", "most_lost": 1}
    assert call("adapters", "rule", "support-desk", "--most-lost", "1", "--off").exit_code == 2
    assert call("adapters", "rule", "support-desk", "--most-lost", "-1").exit_code == 1
    assert json.loads(call("adapters", "rule", "support-desk", "--off", "--json").stdout)["most_lost"] is None


def test_room_names_what_may_go_and_clears_a_run_when_told(
    call: Call, rows: Path, trained: dict[str, Any], home: Home
) -> None:
    call(*BASICS, rows)
    folder = home.runs / trained["run"] / "checkpoints" / "step-1"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 5000)
    told = call("adapters", "room").stdout
    assert "are free" in told
    assert f"adapters room --clear {trained['run']}" in told
    found = json.loads(call("adapters", "room", "--json").stdout)
    assert {item["kind"] for item in found["items"]} == {"version", "checkpoints"}
    assert call("adapters", "room", "--clear", trained["run"], input="n\n").exit_code == 0
    assert folder.exists()
    cleared = json.loads(call("adapters", "room", "--clear", trained["run"], "--yes", "--json").stdout)
    assert cleared["freed"] >= 5000
    assert not folder.exists()
    assert call("adapters", "room", "--clear", "nothing", "--yes").exit_code == 1
