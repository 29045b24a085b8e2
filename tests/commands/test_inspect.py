"""`data show` prints what would be learned of a row, as JSON or for people."""

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Call
from tests.engine.conftest import make_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.spec("U24.5")
def test_a_row_is_shown_as_it_would_be_trained(call: Call, rows: Path, tiny: Path) -> None:
    result = call("data", "show", rows, "--model", tiny, "--row", 2, "--json")
    assert result.exit_code == 0, result.stderr
    seen = json.loads(result.stdout)
    assert "".join(span["text"] for span in seen["spans"]) == seen["text"]
    answer = rows.read_text().splitlines()[2].split(",")[1]
    assert [span["text"] for span in seen["spans"] if span["trained"]] == [f"{answer}<|im_end|>"]
    assert seen["trained_tokens"] > 0
    assert (seen["row"], seen["truncated_tokens"], seen["terminator"]["trained"]) == (2, 0, True)


def test_a_setting_and_a_data_set_are_taken_too(call: Call, rows: Path, tiny: Path) -> None:
    made = call("train", "--model", "starter", "--dataset", rows, "--print-config")
    assert made.exit_code == 0, made.stderr
    result = call("data", "show", "support desk", "--model", tiny, "--set", "data.max_length=32")
    assert result.exit_code == 0, result.stderr
    assert "The model reads all of this and learns to write the marked part." in result.stdout
    assert "Must fix" in result.stdout
    assert "Set the longest example" in result.stdout


def test_what_cannot_be_shown_is_said(call: Call, rows: Path, tiny: Path) -> None:
    assert call("data", "show", rows).exit_code == 2
    result = call("data", "show", rows, "--model", tiny, "--row", 9999)
    assert result.exit_code == 1
    assert "has no row 9999" in result.stderr
    result = call("data", "show", "nothing.csv", "--model", tiny)
    assert result.exit_code == 1
    assert "nothing.csv" in result.stderr
