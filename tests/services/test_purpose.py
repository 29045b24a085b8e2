"""A purpose is suggested from the data, and the reason says what was seen."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.profiles import PROFILES
from studio.domain.records import Dataset
from studio.services import datasets
from studio.services.purpose import suggest
from studio.studio import Studio

WORDS = ["parcel", "depot", "invoice", "garden", "weather", "bridge", "letter", "engine", "winter", "paper"]


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def turns(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


def added(home: Any, tmp_path: Path, rows: list[Any], name: str = "rows.jsonl") -> Dataset:
    file = tmp_path / name
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return Studio().datasets.add(file)


SHAPES = {
    "classification": [turns(words(9, i), WORDS[i % 5]) for i in range(90)],
    "code": [turns(words(9, i), f"def f{i}(x):\n    return x * {i}") for i in range(90)],
    "chatbot": [turns(*(words(6, 9 * i + k) for k in range(6))) for i in range(90)],
    "summarisation": [turns(words(300, i), words(14, i)) for i in range(90)],
    "instruction": [turns(words(9, i), words(30, i)) for i in range(90)],
    "general": [turns(words(9, i), words(30, i)) for i in range(8)],
}


@pytest.mark.parametrize("profile", SHAPES)
def test_data_of_a_shape_suggests_its_purpose(home: Any, tmp_path: Path, profile: str) -> None:
    found = suggest(added(home, tmp_path, SHAPES[profile]))
    assert found.profile == profile, found.why
    assert found.why.endswith(".")


def test_plain_text_suggests_reading_it(home: Any, tmp_path: Path) -> None:
    found = suggest(added(home, tmp_path, [words(60, i) + "\n" for i in range(30)], "manual.txt"))
    assert (found.profile, found.why) == ("domain-text", "The data is plain text.")


def test_fields_as_json_are_extraction(home: Any, tmp_path: Path) -> None:
    rows = [turns(words(9, i), json.dumps({"name": words(2, i), "sum": i})) for i in range(60)]
    found = suggest(added(home, tmp_path, rows))
    assert found.profile == "classification"
    assert "JSON" in found.why


def test_labels_of_a_sorted_file_are_seen_all_over_it(home: Any, tmp_path: Path) -> None:
    rows = [turns(words(9, i), f"label {i // 40}") for i in range(1200)]
    found = suggest(added(home, tmp_path, rows))
    assert found.profile == "classification"
    assert "30 short answers" in found.why


def test_the_bundled_sample_is_labels_and_fields(home: Any) -> None:
    assert suggest(Studio().datasets.add(datasets.sample_path())).profile == "classification"


@given(st.lists(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=2), min_size=4, max_size=40))
def test_any_data_suggests_a_purpose_there_is(tmp_path_factory: pytest.TempPathFactory, pairs: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.jsonl").write_text("".join(json.dumps(turns(*pair)) + "\n" for pair in pairs))
    blank = dict.fromkeys(("id", "name", "source", "sha256", "format", "created"), "")
    counts = dict.fromkeys(("rows", "usable", "train_rows", "eval_rows"), len(pairs))
    found = suggest(Dataset.model_validate(blank | counts | {"path": str(folder), "kind": "chat"}))
    assert found.profile in PROFILES
