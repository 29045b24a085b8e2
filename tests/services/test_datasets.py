"""Data sets: made whole or not at all, split the same way each time, kept until deleted."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.domain.errors import DataError, NeedsMapping, NotFound, StudioError
from studio.domain.events import Phase
from studio.domain.records import Dataset
from studio.services.datasets import Datasets, sample_path
from studio.storage.paths import Home


@pytest.fixture
def datasets(home: Home) -> Datasets:
    return Datasets(home)


def pairs(path: Path, count: int, bad: int = 0) -> Path:
    rows = [{"question": f"question {n}", "answer": f"answer {n}"} for n in range(count)]
    rows += [{"question": f"question {n}", "answer": ""} for n in range(bad)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(dataset: Dataset, side: str) -> list[dict[str, Any]]:
    text = Path(dataset.path, f"{side}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def left_behind(home: Home) -> list[Path]:
    return list(home.datasets.iterdir())


def test_a_file_becomes_a_data_set(datasets: Datasets, tmp_path: Path) -> None:
    path = pairs(tmp_path / "my pairs.jsonl", 100)
    before = path.read_bytes()
    dataset = datasets.add(path)
    assert (dataset.name, dataset.source, dataset.kind) == ("my pairs", str(path), "chat")
    assert (dataset.rows, dataset.usable, dataset.train_rows, dataset.eval_rows) == (100, 100, 90, 10)
    assert sorted(file.name for file in Path(dataset.path).iterdir()) == [
        "dataset.json",
        "eval.jsonl",
        "profile.json",
        "train.jsonl",
    ]
    examples = lines(dataset, "train") + lines(dataset, "eval")
    assert sorted(example["row"] for example in examples) == list(range(1, 101))
    for example in examples:
        number = example["row"] - 1
        assert example["messages"] == [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    assert path.read_bytes() == before
    assert datasets.profile(dataset.id).usable == 100


def test_texts_become_a_data_set(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("".join(f"Paragraph {n} – “quoted”\nwith two lines\n\n" for n in range(30)))
    dataset = datasets.add(path)
    assert (dataset.kind, dataset.format, dataset.usable) == ("text", "text", 30)
    first = next(example for example in lines(dataset, "train") + lines(dataset, "eval") if example["row"] == 1)
    assert first == {"text": "Paragraph 0 – “quoted”\nwith two lines", "row": 1}


def test_the_same_file_and_settings_are_the_same_data_set(datasets: Datasets, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 50)
    first = datasets.add(path)
    written = Path(first.path, "train.jsonl").stat().st_mtime_ns
    copy = tmp_path / "b.jsonl"
    copy.write_bytes(path.read_bytes())
    assert datasets.add(path) == datasets.add(copy) == datasets.add(path, format="question-answer") == first
    assert datasets.add(path, map={"prompt": "question", "response": "answer"}) == first
    assert Path(first.path, "train.jsonl").stat().st_mtime_ns == written
    assert len(datasets.list()) == 1


def test_other_settings_are_another_data_set(datasets: Datasets, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 50)
    options: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"eval_fraction": 0.2},
        {"map": {"prompt": "answer", "response": "question"}},
        {"map": {"text": "answer"}},
    ]
    made = [datasets.add(path, **each) for each in options]
    assert len({dataset.id for dataset in made}) == len(options)
    assert {dataset.id for dataset in datasets.list()} == {dataset.id for dataset in made}


def test_two_files_of_one_name_do_not_meet(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = datasets.add(pairs(tmp_path / "a.jsonl", 50))
    second = datasets.add(pairs(tmp_path / "other" / "a.jsonl", 60))
    assert first.id != second.id
    assert first.name == second.name
    assert datasets.get("a") == second
    assert datasets.get(first.id) == first


# --- the split ----------------------------------------------------------------------------------------------------


def test_the_split_is_the_same_each_time_and_another_with_another_seed(datasets: Datasets, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 200)
    first = datasets.add(path)
    held_out = lines(first, "eval")
    datasets.remove(first.id)
    assert lines(datasets.add(path), "eval") == held_out
    assert lines(datasets.add(path, seed=7), "eval") != held_out


def test_equal_examples_land_on_the_same_side(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{n % 40}", "answer": "a"}) + "\n" for n in range(400)))
    dataset = datasets.add(path, eval_fraction=0.25)
    train = {example["messages"][0]["content"] for example in lines(dataset, "train")}
    held_out = {example["messages"][0]["content"] for example in lines(dataset, "eval")}
    assert (len(train), len(held_out), train & held_out) == (30, 10, set())
    assert (dataset.train_rows, dataset.eval_rows) == (300, 100)
    assert datasets.profile(dataset.id).duplicates == 360


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(200, 0.1, 20), (200, 0, 0), (200, 0.5, 100), (10, 0.01, 1), (9, 0.01, 0), (9, 0.25, 2), (4, 0.5, 2)],
)
def test_as_many_rows_are_held_out_as_asked(
    datasets: Datasets, tmp_path: Path, count: int, share: float, held: int
) -> None:
    dataset = datasets.add(pairs(tmp_path / "a.jsonl", count), eval_fraction=share)
    assert (dataset.train_rows, dataset.eval_rows) == (count - held, held)
    assert (len(lines(dataset, "train")), len(lines(dataset, "eval"))) == (count - held, held)


def test_one_example_many_times_is_all_to_train_on(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' * 50)
    assert datasets.add(path, eval_fraction=0.5).train_rows == 50


@pytest.mark.parametrize("share", [-0.1, 0.51, float("nan")])
def test_a_share_out_of_bounds_is_refused(datasets: Datasets, tmp_path: Path, share: float) -> None:
    with pytest.raises(DataError, match="held out"):
        datasets.add(pairs(tmp_path / "a.jsonl", 50), eval_fraction=share)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.spec("U24.4")
def test_bad_rows_are_refused_by_name_and_left_out_with_consent(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 30, bad=7)
    with pytest.raises(DataError) as refused:
        datasets.add(path)
    assert refused.value.message == (
        "7 of 37 rows of a.jsonl cannot be used. Row 31 has no `answer`. Row 32 has no `answer`. "
        "Row 33 has no `answer`. Row 34 has no `answer`. Row 35 has no `answer`. And 2 more."
    )
    assert "leave bad rows out" in refused.value.hint
    assert "--skip-bad-rows" in refused.value.hint
    assert left_behind(home) == []
    dataset = datasets.add(path, skip_bad=True)
    assert (dataset.rows, dataset.usable) == (37, 30)
    assert {example["row"] for side in ("train", "eval") for example in lines(dataset, side)} == set(range(1, 31))
    with pytest.raises(DataError, match="7 of 37 rows"):  # consent is asked each time
        datasets.add(path)


def test_too_few_examples_are_refused(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        datasets.add(pairs(tmp_path / "a.jsonl", 3))
    assert str(refused.value) == (
        "Only 3 usable examples in a.jsonl. Add at least 20, or the model has nothing to generalise from."
    )
    assert left_behind(home) == []
    assert datasets.add(pairs(tmp_path / "a.jsonl", 4)).usable == 4


def test_unclear_columns_and_broken_files_leave_nothing(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("subject,reply_text\n" + "a,b\n" * 30)
    with pytest.raises(NeedsMapping):
        datasets.add(path)
    path = tmp_path / "a.json"
    path.write_text("[" + '{"question": "q", "answer": "a"},' * 200 + "{")
    with pytest.raises(DataError, match="after row 200"):
        datasets.add(path)
    assert left_behind(home) == []


def test_a_full_disk_is_refused_before_the_copy(
    datasets: Datasets, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pairs(tmp_path / "a.jsonl", 50)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StudioError, match="No room for the examples of a"):
        datasets.add(path)
    assert left_behind(home) == []


IN_A_CHILD = """
import os, signal, sys
from studio.services.datasets import Datasets
from studio.storage.paths import Home

def act(phase):
    {act}

print(Datasets(Home()).add(sys.argv[1], report=act).id)
"""


def child(act: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Add the file in a process of its own, which does something in the middle of it."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    command = [sys.executable, "-c", IN_A_CHILD.format(act=act), str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_kill_in_the_middle_leaves_nothing_listed(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 12_000)
    assert child("os.kill(os.getpid(), signal.SIGKILL)", path).returncode == -signal.SIGKILL
    assert datasets.list() == []
    (rest,) = left_behind(home)
    assert (rest / "all").exists()
    dataset = datasets.add(path)
    assert left_behind(home) == [Path(dataset.path)]


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_a_disk_that_takes_no_more_leaves_nothing(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    result = child(limit, pairs(tmp_path / "a.jsonl", 60_000))
    assert "a.jsonl could not be copied: File too large." in result.stderr
    assert left_behind(home) == []


def test_a_file_that_grows_while_it_is_read_is_refused(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 12_000)

    def grow(_: Phase) -> None:
        with open(path, "a") as file:
            file.write('{"question": "late", "answer": "late"}\n')

    with pytest.raises(DataError, match="changed while it was read"):
        datasets.add(path, report=grow)
    assert left_behind(home) == []


def test_two_at_once_make_one_data_set(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 6_000)
    made: list[Dataset] = []
    threads = [threading.Thread(target=lambda: made.append(datasets.add(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {dataset.id for dataset in made} == {made[0].id}
    assert len(made) == 3
    assert left_behind(home) == [Path(made[0].path)]


# --- the list -----------------------------------------------------------------------------------------------------


def test_the_list_is_what_the_folder_holds(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    first = datasets.add(pairs(tmp_path / "first.jsonl", 50))
    second = datasets.add(pairs(tmp_path / "second.jsonl", 60), name="The second")
    assert Datasets(home).list() == [second, first]
    assert datasets.get("The second") == second
    (home.datasets / "torn").mkdir()
    (home.datasets / "torn" / "dataset.json").write_text('{"id":')
    assert datasets.list() == [second, first]


def test_a_home_that_was_moved_keeps_its_data_sets(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    dataset = datasets.add(pairs(tmp_path / "a.jsonl", 50))
    moved = home.root.rename(tmp_path / "elsewhere")
    (found,) = Datasets(Home(moved)).list()
    assert found.id == dataset.id
    assert len(lines(found, "train")) == 45


def test_removed_is_gone(datasets: Datasets, home: Home, tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 50)
    dataset = datasets.add(path)
    datasets.remove(dataset.id)
    assert (datasets.list(), left_behind(home), path.exists()) == ([], [], True)
    for call in (datasets.get, datasets.remove, datasets.profile):
        with pytest.raises(NotFound, match=dataset.id):
            call(dataset.id)


def test_each_example_can_be_shown(datasets: Datasets, tmp_path: Path) -> None:
    dataset = datasets.add(pairs(tmp_path / "a.jsonl", 20))
    shown = [datasets.example(dataset.id, index) for index in range(20)]
    assert shown == lines(dataset, "train") + lines(dataset, "eval")
    for index in (-1, 20):
        with pytest.raises(NotFound, match="no example"):
            datasets.example(dataset.id, index)


def test_the_sample_data_can_be_added(datasets: Datasets) -> None:
    dataset = datasets.add(sample_path())
    assert (dataset.train_rows, dataset.eval_rows) == (180, 20)


def test_other_repairs_are_another_data_set(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\nUn cafÃ©?,Oui.\n" + "".join(f"q{n},a{n}\n" for n in range(30)) + "q1,a1\n")
    datasets = Datasets(home)
    plain, mended = datasets.add(path), datasets.add(path, repairs=["encoding", "duplicates"])
    assert plain.id != mended.id
    assert datasets.add(path, repairs=["duplicates", "encoding"]).id == mended.id
    assert (plain.usable, mended.usable, mended.rows) == (32, 31, 32)
    assert [found.kind for found in datasets.profile(plain.id).findings] == ["encoding", "duplicates"]
    assert datasets.profile(mended.id).findings == []
    with pytest.raises(DataError, match="no repair `spelling`"):
        datasets.add(path, repairs=["spelling"])
