"""Data is checked and added in a child process, with the same results, words and errors."""

import sys
from pathlib import Path

import psutil
import pytest

from studio.domain.errors import DataError, NeedsMapping, StudioError
from studio.domain.events import Phase
from studio.domain.records import Dataset
from studio.services import apart, datasets
from studio.services.check import Check, check_file
from studio.services.datasets import Datasets
from studio.storage.paths import Home


def last(items: object) -> object:
    return list(items)[-1]  # type: ignore[call-overload]


def test_a_check_is_the_same_as_here(home: Home) -> None:
    assert last(apart.check(home, datasets.sample_path())) == check_file(datasets.sample_path())


def test_adding_tells_its_phases_and_keeps_the_data_set(home: Home) -> None:
    *told, added = apart.add(home, datasets.sample_path(), eval_fraction=0.2)
    assert told
    assert all(isinstance(each, Phase) for each in told)
    assert isinstance(added, Dataset)
    assert Datasets(home).list() == [added]


def test_parquet_is_read_without_its_library_here(home: Home, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    code = "import sys, pyarrow as pa, pyarrow.parquet as pq\n"
    code += f"pq.write_table(pa.table({{'prompt': ['a?'] * 5, 'completion': list('vwxyz')}}), {str(path)!r})"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)
    before = "pyarrow" in sys.modules
    found = last(apart.check(home, path))
    assert isinstance(found, Check)
    assert found.usable == 5
    assert ("pyarrow" in sys.modules) == before


def test_errors_arrive_whole(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="is empty") as empty:
        last(apart.check(home, tmp_path / "empty.csv"))
    assert empty.value.hint
    (tmp_path / "odd.csv").write_text("x,y,z\n1,What is it?,That\n2,Why so?,Because\n", encoding="utf-8")
    with pytest.raises(NeedsMapping) as asked:
        last(apart.check(home, tmp_path / "odd.csv"))
    assert asked.value.columns == ["x", "y", "z"]
    assert asked.value.suggestion
    assert asked.value.samples["y"] == "What is it?"


def test_a_reader_who_leaves_ends_the_child(home: Home) -> None:
    before = set(psutil.Process().children())
    listening = apart.add(home, datasets.sample_path())
    next(listening)
    (child,) = set(psutil.Process().children()) - before
    listening.close()
    assert not child.is_running()


def test_a_child_that_dies_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StudioError, match=r"support.csv ended before its time"):
        last(apart.check(home, datasets.sample_path()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds in /proc")
def test_a_file_that_needs_too_much_memory_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.json").write_text('[{"text": "' + "x" * 15_000_000 + '"}]', encoding="utf-8")
    tight = (
        "import pathlib; from studio.services import apart; "
        "apart.MEMORY = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * 4096 + 2**24; apart.main()"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{tight}"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DataError, match=r"large\.json needs more memory than reading may take"):
        last(apart.check(home, tmp_path / "large.json"))


def test_a_child_that_says_nothing_is_ended(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "PATIENCE", 1)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    with pytest.raises(DataError, match="stood still"):
        last(apart.check(home, datasets.sample_path()))
