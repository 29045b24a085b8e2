"""`export` says where the model lies and how it compares; one that does not compare well ends with code 1."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.services.export import Export
from tests.commands.conftest import Call

PARITY = {"ok": True, "words": "192 of 192 tokens are the adapter's own."}
FILES = [{"name": "model.gguf", "bytes": 144_810_784, "sha256": "ab" * 32}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the engine, which has tests of its own."""
    asked: list[Any] = []

    def run(self: Export, adapter: str, format: str, out: Path, weights: str, report: Any) -> dict[str, Any]:
        asked.append((adapter, format, str(out), weights))
        parity = (
            PARITY if adapter != "poor" else {"ok": False, "words": "3 of 192 tokens are the adapter's own. They part."}
        )
        return {"path": str(out), "format": format, "parity": parity, "files": FILES}

    monkeypatch.setattr(Export, "run", run)
    return asked


def test_the_result_is_told(call: Call, asked: list[Any]) -> None:
    result = call("export", "desk", "--format", "ollama", "--out", "there", "--weights", "q8_0")
    assert result.exit_code == 0, result.stderr
    assert asked == [("desk", "ollama", "there", "q8_0")]
    for words in ("model.gguf", "145 MB", PARITY["words"], "It is in there.", "ollama create NAME -f Modelfile"):
        assert words in result.stdout


def test_json_holds_path_and_parity(call: Call, asked: list[Any]) -> None:
    result = call("export", "desk", "--format", "merged", "--out", "there", "--json")
    found = json.loads(result.stdout)
    assert found["path"] == "there"
    assert found["parity"] == PARITY


def test_a_poor_comparison_is_no_success(call: Call, asked: list[Any]) -> None:
    result = call("export", "poor", "--format", "gguf", "--out", "there")
    assert result.exit_code == 1
    assert "They part." in result.stdout
    assert "ollama" not in result.stdout


@pytest.mark.parametrize("more", [("--format", "onnx", "--out", "x"), ("--format", "gguf"), ("--out", "x")])
def test_wrong_usage(call: Call, more: tuple[str, ...]) -> None:
    assert call("export", "desk", *more).exit_code == 2
