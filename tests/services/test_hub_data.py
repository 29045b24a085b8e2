"""Data sets of the Hub: the part that is meant, of one pinned commit, without network once they are here."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as arrow
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from studio.domain.errors import DataError, NotFound, StudioError
from studio.services import hub, hub_data
from studio.services.datasets import Datasets
from studio.storage.paths import Home
from tests.services.fake_hub import COMMIT, CONVERTED, FakeHub, Repo, serve


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


def converted(folder: Path, parts: dict[str, int]) -> Path:
    """Write Parquet files with two rows each: config/split → how many."""
    for part, shards in parts.items():
        (folder / part).mkdir(parents=True)
        for shard in range(shards):
            rows = [{"question": f"{part} {shard} {n}?", "answer": str(n)} for n in range(2)]
            parquet.write_table(arrow.Table.from_pylist(rows), folder / part / f"{shard:04}.parquet")
    return folder


@pytest.fixture
def repo(online: FakeHub, tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "own", converted=converted(tmp_path / "made", {"default/train": 3, "default/test": 1}))
    made.folder.mkdir()
    (made.folder / "README.md").write_text("# About")
    with open(made.folder / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *([f"q{n}", f"a{n}"] for n in range(5))])
    online.repos["owner/small"] = made
    return made


def test_the_training_part_comes_in_whole_and_pinned(home: Home, online: FakeHub, repo: Repo) -> None:
    check = Datasets(home).check("owner/small")
    assert (check.format, check.rows) == ("question-answer", 6)
    assert check.examples[2]["messages"][0]["content"] == "default/train 1 0?"
    dataset = Datasets(home).add("owner/small", skip_bad=True)
    assert (dataset.name, dataset.source) == ("small", f"owner/small@{CONVERTED}/default/train")
    fetched = [path for path in online.asked if path.endswith(".parquet")]
    assert len(set(fetched)) == 3
    again = Datasets(home).add(dataset.source)
    assert again.id == dataset.id


def test_a_part_and_a_revision_may_be_named(home: Home, repo: Repo) -> None:
    assert Datasets(home).check("owner/small/default/test").rows == 2
    check = Datasets(home).check(f"owner/small@{COMMIT}")
    assert (check.rows, check.file) == (5, "Comma-separated, UTF-8")
    assert Datasets(home).add("owner/small@main/rows.csv").source == f"owner/small@{COMMIT}/rows.csv"


def test_files_of_the_owner_are_taken_where_none_were_made(home: Home, repo: Repo) -> None:
    repo.converted = None
    assert Datasets(home).check("owner/small").rows == 5


def test_several_parts_are_asked_about(home: Home, online: FakeHub, tmp_path: Path) -> None:
    made = converted(tmp_path / "two", {"main/train": 1, "other/train": 1})
    online.repos["owner/two"] = Repo(made, converted=made)
    with pytest.raises(DataError, match="owner/two has 2 parts") as asked:
        Datasets(home).check("owner/two")
    assert "owner/two/main/train, owner/two/other/train" in asked.value.hint
    with pytest.raises(DataError, match="no part third"):
        Datasets(home).check("owner/two/third")
    assert Datasets(home).check("owner/two/main").rows == 2


def test_what_is_here_needs_no_network(
    home: Home, repo: Repo, monkeypatch: pytest.MonkeyPatch, online: FakeHub
) -> None:
    before = Datasets(home).check("owner/small")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(hub_data, "PATIENCE", 1.0)
    assert Datasets(home).check("owner/small") == before
    with pytest.raises(hub.Unreachable, match="so “owner/other” cannot be had now") as refused:
        Datasets(home).check("owner/other")
    assert refused.value.hint


def test_what_the_hub_refuses_is_told_and_leaves_nothing(home: Home, online: FakeHub, repo: Repo) -> None:
    with pytest.raises(NotFound, match="There is no data set “owner/none” on the Hub"):
        Datasets(home).check("owner/none")
    repo.refused = "GatedRepo"
    with pytest.raises(StudioError, match="decides who may have it"):
        Datasets(home).check("owner/small")
    repo.refused = ""
    repo.wrong = {"default/train/0001.parquet": b"PAR1"}
    with pytest.raises(StudioError):
        Datasets(home).check("owner/small")
    repo.wrong = {}
    assert Datasets(home).check("owner/small").rows == 6


@pytest.mark.parametrize("text", ["rows.csv", "folder/rows.csv", "/data/rows.csv", "a/b c", "owner", "./a/b", "~/a/b"])
def test_paths_are_no_ids(text: str) -> None:
    assert hub_data.parse(text) is None


def test_a_folder_here_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_data.parse("owner/small") is None
    assert hub_data.parse("owner/other") == ("owner/other", "", "")
    assert hub_data.parse("owner/other@abc/main/train") == ("owner/other", "abc", "main/train")
