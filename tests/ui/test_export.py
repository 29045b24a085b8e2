"""Export in a card: what is offered, where it goes, the phases, and the comparison or what went wrong."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.studio import Studio
from studio.ui import export
from studio.ui.common import Shell, Tab
from tests.ui.test_adapters import keep

ENGINE = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[2])
asked = json.loads((folder / "request.json").read_text())
(folder / "events.jsonl").write_text(json.dumps({"type": "phase", "words": "Writing the model"}) + "\\n")
parity = {"ok": asked["weights"] != "q8_0", "prompts": 4, "by": "llama.cpp 1"}
parity["words"] = "96 of 96 tokens are the adapter's own."
files = [{"name": "model.gguf", "bytes": 2_000_000, "sha256": "00"}]
(folder / "result.json").write_text(json.dumps(
    {"path": asked["out"], "format": asked["format"], "parity": parity, "files": files}))
"""


@pytest.fixture
def card(page: Callable[..., Any], studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    keep(studio, "desk", 1)
    (studio.home.models / "starter").mkdir()
    monkeypatch.setattr(studio.models, "find", lambda id: type("Base", (), {"path": str(tmp_path), "id": "starter"})())
    studio.export.command = (sys.executable, "-c", ENGINE)

    def build(studio: Studio, shell: Shell) -> Tab:
        export.panel(studio, studio.adapters.get("desk"), gr.Button("Export…"))
        return Tab(lambda item: [], [])

    return page(build, "adapters")


def test_it_is_exported_and_compared(card: Any, studio: Studio) -> None:
    card.press("Export…")
    assert card.values[card.find("Folder, on the machine that runs the studio")].endswith("exports/desk-v1-merged")
    card.press("Export")
    assert [words for words in ("Writing the model",) if any(words in str(said) for said in card.states)]
    assert "Same answers: 96 of 96 tokens" in card.seen()
    assert "4 questions were compared, read by llama.cpp 1." in card.seen()
    assert "desk-v1-merged" in card.seen()
    assert "2.0 MB" in card.seen()


def test_each_form_says_what_it_is_for(card: Any) -> None:
    card.press("Export…")
    assert not card.find("Weights").visible
    card.press("What to make", "input", "ollama")
    assert card.was("Weights", "visible")
    assert "chat format" in card.was("What to make", "info")
    assert card.values[card.find("Folder, on the machine that runs the studio")].endswith("desk-v1-ollama")
    card.press("Export")
    assert "ollama create NAME -f Modelfile" in card.seen()


def test_a_difference_and_a_refusal_are_told(card: Any, tmp_path: Path) -> None:
    card.press("Export…")
    card.press("What to make", "input", "gguf")
    card.press("Weights", "input", "q8_0")
    card.values[card.find("Weights")] = "q8_0"
    card.press("Export")
    assert "It does not answer like the adapter" in card.seen()
    (tmp_path / "notes.txt").write_text("mine")
    card.values[card.find("Folder, on the machine that runs the studio")] = str(tmp_path)
    card.press("Export")
    assert "is not empty" in card.seen()
    assert card.was("Export", "interactive")
