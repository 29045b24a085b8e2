"""Export in a card: what is offered, where it goes, the phases, and the comparison or what went wrong."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.studio import Studio
from studio.ui import export
from studio.ui.adapters import card_head
from studio.ui.common import Shell, Tab
from tests.services.fake_ollama import serve
from tests.ui.test_adapters import keep

ENGINE = '''
import hashlib, json, sys
from pathlib import Path
folder = Path(sys.argv[2])
asked = json.loads((folder / "request.json").read_text())
(folder / "events.jsonl").write_text(json.dumps({"type": "phase", "words": "Writing the model"}) + "\\n")
parity = {"ok": asked["weights"] != "q8_0", "prompts": 4, "by": "llama.cpp 1"}
parity["words"] = "96 of 96 tokens are the adapter's own."
digest = hashlib.sha256(b"GGUF").hexdigest()
files = [{"name": "model.gguf", "bytes": 2_000_000, "sha256": digest}]
(folder / "result.json").write_text(json.dumps(
    {"path": asked["out"], "format": asked["format"], "weights": "f16", "parity": parity, "files": files}))
out = Path(asked["out"])
out.mkdir(parents=True)
(out / "model.gguf").write_bytes(b"GGUF")
(out / "Modelfile").write_text('FROM ./model.gguf\\nTEMPLATE """{{ .Prompt }}"""\\nPARAMETER stop "END"\\n')
'''


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


def test_one_zip_instead_of_a_folder(card: Any, studio: Studio) -> None:
    card.press("Export…")
    card.values[card.find("As one ZIP file instead of a folder")] = True
    card.press("Export")
    assert "desk-v1-merged.zip" in card.seen()
    assert [path.name for path in studio.home.exports.iterdir()] == ["desk-v1-merged.zip"]


def exported(card: Any) -> None:
    card.press("Export…")
    card.values[card.find("What to make")] = "ollama"
    card.press("What to make", "input", "ollama")
    card.press("Export")
    assert card.was("Import into Ollama…", "visible")


def test_a_package_is_put_into_ollama(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        exported(card)
        card.press("Import into Ollama…")
        assert "2.0 MB are sent to Ollama 0.12.6 on this machine." in card.seen()
        card.press("Import")
        assert "Ollama has desk:v1." in card.seen()
        assert "You asked: What can you help me with?" in card.seen()
        assert server.models["desk:v1"]["parameters"] == {"stop": ["END"]}
        card.press("Import into Ollama…")
        assert "The model desk:v1 that Ollama has now is replaced." in card.seen()


def test_without_ollama_the_import_says_how_to_start_it(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    exported(card)
    card.press("Import into Ollama…")
    assert "No Ollama answers at http://127.0.0.1:9." in card.seen()


def test_the_card_says_what_was_exported_and_how_it_compared(card: Any, studio: Studio) -> None:
    assert export.badges(studio.adapters.get("desk")) == ""
    card.press("Export…")
    card.press("Export")
    card.values[card.find("What to make")] = "gguf"
    card.values[card.find("Weights")] = "q8_0"
    card.press("What to make", "input", "gguf")
    card.press("Export")
    shown = card_head(studio.adapters.get("desk"))
    assert "same answers" in shown
    assert "differs" in shown
