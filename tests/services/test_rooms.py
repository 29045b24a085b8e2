"""What may be deleted is named with what it frees, the largest first; what is at work stays."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from studio.domain.errors import NotFound, StudioError
from studio.services.doctor import ROOM
from tests.services.test_adapters import finished


@pytest.fixture
def studio(home):
    from studio.studio import Studio

    return Studio(home.root)


def over(home, number, status="finished"):
    """A run that has ended, with a checkpoint."""
    run = finished(home, number)
    folder = Path(run.path)
    lineage = json.loads((folder / "lineage.json").read_text())
    (folder / "lineage.json").write_text(
        json.dumps(lineage | {"model": {"id": "starter"}, "dataset": {"id": "d", "name": "d"}})
    )
    (folder / "config.yaml").write_text("name: support desk\nmodel: {id: starter}\ndata: {path: a.csv}\n")
    ends = {
        "finished": {"type": "finished", "step": 9, "stopped": False, "result": {}},
        "failed": {"type": "failed", "message": "No.", "hint": ""},
    }
    step = {"type": "step", "step": 9, "loss": 1.0, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 9}
    step |= {"tokens_per_second": 1.0, "memory_bytes": 1}
    (folder / "events.jsonl").write_text(f"{json.dumps(step)}\n{json.dumps(ends[status])}\n")
    checkpoint = folder / "checkpoints" / "step-9"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"w" * 1000 * number)
    return folder


@pytest.mark.spec("U28.5")
def test_the_largest_come_first_and_the_active_version_is_not_among_them(home, studio, monkeypatch):
    for number in (1, 2, 3):
        over(home, number)
    studio.runs.list()  # makes the versions
    active = studio.adapters.get("support-desk")
    found = studio.rooms.look()
    assert [item.bytes for item in found.items] == sorted((item.bytes for item in found.items), reverse=True)
    assert [item.ref for item in found.items if item.kind == "checkpoints"] == [f"support-desk-{n}" for n in (3, 2, 1)]
    named = {item.ref for item in found.items if item.kind == "version"}
    assert named == {each.ref for each in studio.adapters.list()} - {active.ref}
    disk = namedtuple("disk", "total used free")
    for free, low in ((ROOM - 1, True), (ROOM + 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: disk(10**12, 0, free))
        assert studio.rooms.look().low is low


def test_what_is_named_is_what_is_freed(home, studio):
    for number in (1, 2):
        over(home, number)
    studio.runs.list()
    for item in studio.rooms.look().items:
        freed = studio.adapters.remove(item.ref) if item.kind == "version" else studio.rooms.clear(item.ref)
        assert freed == item.bytes
    assert studio.rooms.look().items == []
    assert len(studio.runs.list()) == 2


def test_checkpoints_that_are_needed_stay(home, studio):
    failed, ended = over(home, 1, "failed"), over(home, 2)
    with pytest.raises(StudioError, match="is failed: it goes on from its checkpoints"):
        studio.rooms.clear(failed.name)
    work = home.cache / "keep-1"
    work.mkdir()
    (work / "request.json").write_text(json.dumps({"run": str(ended)}))
    with pytest.raises(StudioError, match="is being kept now"):
        studio.rooms.clear(ended.name)
    with pytest.raises(NotFound):
        studio.rooms.clear("nothing")
    assert len(list(home.runs.glob("*/checkpoints/step-9"))) == 2
