"""`estimate`: the options of `train`, one document, nothing started."""

import json
from pathlib import Path

from studio.storage.paths import Home
from tests.commands.conftest import Call

CONTRACT = {"peak_memory_bytes", "seconds", "low", "high", "steps", "tokens", "breakdown", "fits", "ladder"}


def test_estimate_prints_one_document_and_starts_nothing(call: Call, rows: Path, home: Home) -> None:
    result = call("estimate", "--model", "starter", "--dataset", rows, "--max-steps", 7, "--quick", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) >= CONTRACT
    assert found["steps"] == 7
    assert sum(found["breakdown"].values()) == found["peak_memory_bytes"]
    assert list(home.runs.iterdir()) == []


def test_estimate_says_it_in_words(call: Call, rows: Path) -> None:
    result = call("estimate", "--model", "starter", "--dataset", rows, "--set", "train.batch_tokens=65536", "--quick")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Memory: ")
    assert "train.batch_tokens=" in result.stdout
    assert "rough figure" in result.stderr


def test_estimate_says_what_would_fit_on_another_card(call: Call, rows: Path) -> None:
    command = ("estimate", "--model", "starter", "--dataset", rows, "--json", "--on")
    found = json.loads(call(*command, "4090").stdout)
    assert found["device"] == "RTX 4090"
    assert 20e9 < found["room_bytes"] < 26e9
    unknown = call(*command, "Voodoo 2")
    assert unknown.exit_code == 1
    assert "is not known" in unknown.stderr
