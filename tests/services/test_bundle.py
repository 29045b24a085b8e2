"""An export as one ZIP: it holds what the folder held, or is not there at all."""

import hashlib
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from studio.domain.errors import StudioError
from studio.services import bundle

FILES = {"model.safetensors": bytes(range(256)) * 100, "config.json": b"{}", "export.json": b'{"parity": 1}'}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "desk").mkdir()
    for name, content in FILES.items():
        (tmp_path / "desk" / name).write_bytes(content)
    return tmp_path / "desk"


def known(**other: str) -> list[dict[str, str]]:
    found = [{"name": name, "sha256": hashlib.sha256(FILES[name]).hexdigest()} for name in FILES]
    return [file | {"sha256": other.get(file["name"].split(".")[0], file["sha256"])} for file in found[:2]]


def test_it_holds_what_the_folder_holds(folder: Path) -> None:
    told = []
    packed = bundle.pack(folder, known(), told.append)
    assert packed == folder.parent / "desk.zip"
    with zipfile.ZipFile(packed) as whole:
        assert whole.testzip() is None
        assert {name: whole.read(name) for name in whole.namelist()} == {f"desk/{k}": v for k, v in FILES.items()}
    assert {phase.words for phase in told} == {"Writing the ZIP file", "Reading the ZIP file back"}
    assert told[-1].done == told[-1].total == sum(map(len, FILES.values()))


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder.parent / "desk.zip").write_text("mine")
    with pytest.raises(StudioError, match="is there already"):
        bundle.pack(folder, known())
    assert (folder.parent / "desk.zip").read_text() == "mine"


def test_a_file_changed_since_is_no_export(folder: Path) -> None:
    with pytest.raises(StudioError, match=r"config.json is not what was exported"):
        bundle.pack(folder, known(config="00"))
    assert [path.name for path in folder.parent.iterdir()] == ["desk"]


def test_what_is_read_back_otherwise_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = bundle._check

    def spoil(target: Path, *rest: object) -> None:
        """Turn one bit of the weights, as a bad disk would."""
        content = bytearray(target.read_bytes())
        content[content.index(bytes(range(200)))] ^= 1
        target.write_bytes(content)
        check(target, *rest)

    monkeypatch.setattr(bundle, "_check", spoil)
    with pytest.raises(StudioError, match="was not read back as it was written"):
        bundle.pack(folder, known())
    assert [path.name for path in folder.parent.iterdir()] == ["desk"]


def test_a_disk_without_room_is_said_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: Usage(9, 9, 1000))
    with pytest.raises(StudioError, match="do not fit on the disk"):
        bundle.pack(folder, known())
