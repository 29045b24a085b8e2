"""Export: what the engine is asked for, whose questions, and folders that are never overwritten."""

import json
import sys
import zipfile

import pytest

from studio.domain.errors import EngineError, ModelError, NotFound, StudioError
from studio.domain.records import Model
from studio.services.adapters import Adapters
from studio.services.export import QUESTIONS, Export
from studio.storage.store import Store

# An engine that writes nothing but what it was asked.
ECHO = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[2])
request = json.loads((folder / "request.json").read_text())
event = {"type": "phase", "words": "Writing the model"}
if request["format"] == "ollama":
    event = {"type": "failed", "message": "The template does more.", "hint": "Export as gguf."}
(folder / "events.jsonl").write_text(json.dumps(event) + "\\n")
parity = {"ok": True, "prompts": 8, "by": "llama.cpp", "words": "All are the same.", "tokens": 9}
result = {"request": request, "path": request["out"], "files": [], "parity": parity}
(folder / "result.json").write_text(json.dumps(result | {"format": request["format"], "weights": request["weights"]}))
Path(request["out"]).mkdir(exist_ok=True)
(Path(request["out"]) / "model.gguf").write_text("GGUF")
sys.exit(request["format"] == "ollama")
"""


class OneModel:
    def find(self, id):
        return Model(id="starter", path="/models/starter", source="hub") if id == "starter" else None


@pytest.fixture
def export(home):
    return Export(home, OneModel(), Adapters(home, Store(home)), (sys.executable, "-c", ECHO))


@pytest.fixture
def adapter(home):
    """An adapter of a run that held two conversations back."""
    folder, run = home.adapters / "answers" / "v1", home.runs / "answers-1"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text("{}")
    base = {"id": "starter", "path": ""}
    (folder / "studio.json").write_text(json.dumps({"base": base, "run": run.name, "name": "answers", "version": 1}))
    data = home.datasets / "desk"
    for each in (run, data):
        each.mkdir(parents=True)
    (run / "lineage.json").write_text(json.dumps({"dataset": {"path": str(data)}}))
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]
    (data / "eval.jsonl").write_text("".join(json.dumps({"messages": turns, "row": n}) + "\n" for n in range(20)))
    return folder


def test_the_engine_is_asked_with_held_out_questions(export, adapter, tmp_path):
    told = []
    found = export.run("answers", "gguf", tmp_path / "out", "q8_0", told.append)
    request = found["request"]
    assert found["path"] == request["out"] == str(tmp_path / "out")
    assert (request["model"], request["adapter"]) == ("/models/starter", str(adapter))
    assert (request["format"], request["weights"], request["name"]) == ("gguf", "q8_0", "answers@v1")
    assert request["prompts"] == [[{"role": "user", "content": "Where?"}]] * 8
    assert [phase.words for phase in told] == ["Writing the model"]
    assert export.run("answers", "merged", tmp_path / "other")["request"]["weights"] == "16 bits"


@pytest.mark.parametrize("lost", ["run", "rows", "talks"])
def test_without_held_out_rows_usual_questions_are_asked(export, home, adapter, tmp_path, lost):
    if lost == "run":
        (home.runs / "answers-1" / "lineage.json").unlink()
    rows = "" if lost == "rows" else json.dumps({"text": "Once upon a time", "row": 1}) + "\n"
    (home.datasets / "desk" / "eval.jsonl").write_text(rows)
    prompts = export.run("answers", "merged", tmp_path / "out")["request"]["prompts"]
    assert [talk[0]["content"] for talk in prompts] == list(QUESTIONS)


def test_nothing_is_overwritten(export, adapter, tmp_path):
    (tmp_path / "out").mkdir()
    export.run("answers", "merged", tmp_path / "out")  # an empty folder will do
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "third.zip").write_text("mine")
    with pytest.raises(StudioError, match=r"third\.zip is there already"):
        export.run("answers", "merged", tmp_path / "third", zip=True)
    (tmp_path / "file").write_text("mine")
    for place in ("out", "file"):
        with pytest.raises(StudioError, match="is not empty"):
            export.run("answers", "merged", tmp_path / place)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_zip_takes_the_place_of_the_folder(export, adapter, tmp_path):
    found = export.run("answers", "gguf", tmp_path / "out", zip=True)
    assert found["path"] == str(tmp_path / "out.zip")
    assert not (tmp_path / "out").exists()
    with zipfile.ZipFile(found["path"]) as whole:
        assert whole.read("out/model.gguf") == b"GGUF"


def test_a_version_remembers_what_was_made_of_it_last(export, adapter, tmp_path):
    for place, weights in (("one", "f16"), ("two", "q8_0")):
        export.run("answers", "gguf", tmp_path / place, weights)
    export.run("answers", "merged", tmp_path / "three")
    gguf, merged = export.adapters.get("answers").exports
    assert (gguf["format"], gguf["weights"], gguf["path"]) == ("gguf", "q8_0", str(tmp_path / "two"))
    assert merged["parity"] == {"ok": True, "prompts": 8, "by": "llama.cpp", "words": "All are the same."}
    (adapter / "exports.json").write_text("[1, {")
    assert export.adapters.get("answers").exports == []


def test_places_in_the_home_are_free(export, adapter, home):
    found = export.adapters.get("answers")
    first = export.place(found, "gguf")
    assert first == home.exports / "answers-v1-gguf"
    first.mkdir()
    (home.exports / "answers-v1-gguf-2.zip").write_bytes(b"")
    assert export.place(found, "gguf").name == "answers-v1-gguf-3"


def test_what_is_wrong_is_said(export, adapter, tmp_path):
    with pytest.raises(EngineError, match="The template does more"):
        export.run("answers", "ollama", tmp_path / "out")
    with pytest.raises(NotFound, match="There is no adapter"):
        export.run("none", "merged", tmp_path / "out")
    (adapter / "studio.json").write_text(json.dumps({"base": {"id": "lost", "path": ""}}))
    with pytest.raises(ModelError, match="is not on this machine"):
        export.run("answers", "merged", tmp_path / "out")
