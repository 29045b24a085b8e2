"""The home folder: found, proved writable, never left; names and small files that are always safe."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.errors import StudioError
from studio.storage.paths import FOLDERS, Home, sha256, slug, write_atomic


def test_the_variable_chooses_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_STUDIO_HOME", str(tmp_path / "there"))
    home = Home().prepare()
    assert home.runs == tmp_path / "there" / "runs"
    assert all((home.root / name).is_dir() for name in FOLDERS)
    assert [entry for entry in home.root.iterdir() if entry.is_file()] == []


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudioError) as caught:
        Home(tmp_path / "file").prepare()
    assert str(tmp_path / "file") in caught.value.message
    assert "PEFT_STUDIO_HOME" in caught.value.hint


def test_a_read_only_disk_is_named_with_the_way_out(home, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # the folders are there; nothing can be written in them
    with pytest.raises(StudioError, match="cannot be written: Read-only file system") as caught:
        Home(home.root).prepare()
    assert "PEFT_STUDIO_HOME" in caught.value.hint


def test_a_misspelt_folder_is_a_programming_error(home):
    with pytest.raises(AttributeError):
        _ = home.rnus


def test_room_is_refused_with_sizes(home, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**10, 8 * 10**9, 2 * 10**9))
    home.need(1_800_000_000, "the model")
    with pytest.raises(StudioError, match=r"No room for the model: it needs 2\.2 GB, 2\.0 GB are free"):
        home.need(2_000_000_000, "the model")


def test_a_path_outside_is_refused_even_beside_the_home_or_by_a_link(home, tmp_path):
    outside = tmp_path / "home-of-another"  # same beginning, another folder
    outside.mkdir()
    (home.cache / "link").symlink_to(outside)
    for path in (outside, home.runs / ".." / ".." / "x", home.cache / "link"):
        with pytest.raises(StudioError, match="outside"):
            home.inside(path)
    assert home.inside(home.runs / "a") == (home.runs / "a").resolve()


@given(st.text())
def test_a_slug_is_a_safe_folder_name_and_stays_itself(text):
    name = slug(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-?", name)
    assert len(name) <= 48
    assert name not in ("con", "nul", "com1", "lpt9")
    assert slug(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Support Desk", "support-desk"),
        ("Bücher & Café", "bucher-cafe"),
        ("../../etc", "etc"),
        ("CON", "con-"),
        ("日", "x"),
    ],
)
def test_a_slug_reads_like_its_text(text, name):
    assert slug(text, "x") == name


def test_sha256_is_the_one_everybody_computes(tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_write_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file.json"
    write_atomic(target, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    monkeypatch.undo()
    write_atomic(target, "new")
    assert [path.name for path in Path(tmp_path).iterdir() if not path.name.startswith(".")] == ["file.json"]
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_a_private_file_is_private_from_its_first_byte(tmp_path, monkeypatch):
    modes = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (modes.append(os.fstat(handle).st_mode & 0o777), fsync(handle)))
    write_atomic(tmp_path / "key", "secret", mode=0o600)
    assert modes == [0o600]
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
