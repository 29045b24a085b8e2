"""`export` says where the model lies and how it compares; one that does not compare well ends with code 1."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.services import ollama
from studio.services.adapters import Adapters
from studio.services.export import Export
from tests.commands.conftest import Call

PARITY = {"ok": True, "words": "192 of 192 tokens are the adapter's own."}
FILES = [{"name": "model.gguf", "bytes": 144_810_784, "sha256": "ab" * 32}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the engine, which has tests of its own."""
    asked: list[Any] = []

    def run(
        self: Export, adapter: str, format: str, out: Path, weights: str, report: Any, *, zip: bool
    ) -> dict[str, Any]:
        asked.append((adapter, format, str(out), weights, zip))
        parity = (
            PARITY if adapter != "poor" else {"ok": False, "words": "3 of 192 tokens are the adapter's own. They part."}
        )
        return {"path": str(out), "format": format, "parity": parity, "files": FILES}

    monkeypatch.setattr(Export, "run", run)
    return asked


def test_the_result_is_told(call: Call, asked: list[Any]) -> None:
    result = call("export", "desk", "--format", "ollama", "--out", "there", "--weights", "q8_0")
    assert result.exit_code == 0, result.stderr
    assert asked == [("desk", "ollama", "there", "q8_0", False)]
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


class There:
    """An Ollama that takes everything."""

    def __init__(self, here: bool, models: tuple[str, ...]) -> None:
        self.here, self.models, self.address = here, models, "http://box:11434"

    def has(self, name: str) -> bool:
        return name in self.models

    def take(self, export: Any, name: str, question: Any, *, replace: bool, report: Any) -> dict[str, Any]:
        return {"model": name, "address": self.address, "version": "1", "question": question, "answer": "At the depot."}


@pytest.fixture
def there(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> There:
    server = There(True, ("desk:v1",))
    adapter = type("Found", (), {"name": "desk", "version": 1})()
    monkeypatch.setattr(ollama, "find", lambda: server)
    monkeypatch.setattr(Adapters, "get", lambda self, ref: adapter)
    monkeypatch.setattr(Export, "questions", lambda self, found: [[{"role": "user", "content": "Where is it?"}]])
    return server


IMPORT = ("export", "desk", "--format", "ollama", "--out", "there", "--import")


def test_it_is_put_into_ollama_and_asked(call: Call, there: There, asked: list[Any]) -> None:
    result = call(*IMPORT, "--name", "help")
    assert result.exit_code == 0, result.stderr
    for words in ("ollama run help", "Asked: Where is it?", "It answers: At the depot."):
        assert words in result.stdout
    found = json.loads(call(*IMPORT, "--yes", "--json").stdout)
    assert found["ollama"]["model"] == "desk:v1"


def test_replacing_and_sending_away_are_asked_about(call: Call, there: There, asked: list[Any]) -> None:
    result = call(*IMPORT, input="n\n")
    assert "Replace desk:v1" in result.stderr
    there.here = False
    result = call(*IMPORT, "--name", "other", input="n\n")
    assert "Send the model to http://box:11434, another machine?" in result.stderr
    assert asked == []
    assert "At the depot" in call(*IMPORT, input="y\ny\n").stdout


def test_what_does_not_answer_alike_is_not_imported(call: Call, there: There) -> None:
    result = call("export", "poor", "--format", "ollama", "--out", "there", "--import", "--yes")
    assert result.exit_code == 1
    assert "was not put into Ollama" in result.stdout


@pytest.mark.parametrize("more", [("--format", "gguf"), ("--format", "ollama", "--zip")])
def test_import_takes_a_package_in_a_folder(call: Call, asked: list[Any], more: tuple[str, ...]) -> None:
    result = call("export", "desk", "--out", "there", "--import", *more)
    assert result.exit_code == 2
    assert not asked
