"""Samples: the row asked for, among rows drawn from the whole, the same every time."""

import json
from pathlib import Path

import pytest

from studio.domain.errors import DataError, NotFound
from studio.services import sample
from studio.services.datasets import Datasets
from studio.storage.paths import Home


def write(path: Path, rows: int, bad: tuple[int, ...] = ()) -> Path:
    lines = (f"Question {n},{'' if n in bad else f'Answer {n}'}\n" for n in range(1, rows + 1))
    path.write_text("question,answer\n" + "".join(lines))
    return path


def drawn(subject: sample.Subject) -> list[int]:
    return [json.loads(line)["row"] for line in Path(subject.path).read_text().splitlines()]


def test_a_small_file_is_its_own_sample(home: Home, tmp_path: Path) -> None:
    subject = sample.of_file(home, write(tmp_path / "qa.csv", 30, bad=(1, 7)))
    assert subject.of == 28
    assert sorted(drawn(subject)) == [n for n in range(1, 31) if n not in (1, 7)]
    assert subject.example["row"] == 2  # the first that can be used
    assert sample.of_file(home, tmp_path / "qa.csv", row=9).example["messages"][1]["content"] == "Answer 9"


def test_a_row_that_cannot_be_shown_says_why(home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "qa.csv", 30, bad=(7,))
    with pytest.raises(DataError, match=r"Row 7 cannot be used\. Row 7 has no `answer`"):
        sample.of_file(home, path, row=7)
    with pytest.raises(NotFound, match=r"qa\.csv has no row 31\. It has 30"):
        sample.of_file(home, path, row=31)
    with pytest.raises(DataError, match="no example that can be used"):
        sample.of_file(home, write(tmp_path / "none.csv", 3, bad=(1, 2, 3)))


def test_a_long_file_is_sampled_from_its_beginning_and_says_so(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SCANNED", 500)
    monkeypatch.setattr(sample, "ROWS", 50)
    path = write(tmp_path / "qa.csv", 600)
    subject = sample.of_file(home, path, row=3)
    assert subject.of is None
    assert len(set(drawn(subject))) == 50
    assert max(drawn(subject)) > 250
    assert sample.of_file(home, path, row=3) == subject
    assert sample.of_file(home, path, row=600).of == 600  # read to the end for that row


def test_a_sample_is_no_longer_than_what_can_be_waited_for(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CHARACTERS", 1000)
    subject = sample.of_file(home, write(tmp_path / "qa.csv", 100))
    assert Path(subject.path).stat().st_size <= 1000
    assert subject.of == 100


def test_old_samples_go(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "KEPT", 2)
    made = [sample.of_file(home, write(tmp_path / "qa.csv", 10 + n)) for n in range(4)]
    assert [Path(each.path).exists() for each in made] == [False, False, True, True]


def test_a_data_set_is_sampled_over_all_it_has_to_train_on(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "ROWS", 20)
    datasets = Datasets(home)
    dataset = datasets.add(write(tmp_path / "qa.csv", 200))
    subject = sample.of_dataset(home, dataset, datasets.example(dataset.id, 4))
    assert (subject.of, subject.kind) == (dataset.train_rows, "chat")
    assert len(drawn(subject)) == 20
    assert max(drawn(subject)) > 180
