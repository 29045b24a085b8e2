"""An exported package in Ollama: sent once, made as its Modelfile says, asked; what goes wrong is said in words."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import StudioError
from studio.domain.records import Adapter
from studio.services import ollama
from studio.services.ollama import NameTaken, _address
from tests.services.fake_ollama import FakeOllama

QUESTION = [{"role": "user", "content": "Where is it?"}]
TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


@pytest.fixture
def package(tmp_path: Path) -> dict[str, Any]:
    """What an export for Ollama leaves."""
    model = b"GGUF" + bytes(range(256)) * 9000
    (tmp_path / "model.gguf").write_bytes(model)
    said = f'FROM ./model.gguf\nTEMPLATE """{TEMPLATE}"""\nPARAMETER stop "<|im_end|>"\n'
    (tmp_path / "Modelfile").write_text(said)
    files = [
        {"name": name, "bytes": (tmp_path / name).stat().st_size, "sha256": _digest(tmp_path / name)}
        for name in ("Modelfile", "model.gguf")
    ]
    return {"path": str(tmp_path), "files": files, "format": "ollama"}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.spec("U8.3")
def test_the_model_is_made_and_asked(package: dict[str, Any], ollama_here: FakeOllama) -> None:
    told = []
    found = ollama.find().take(package, "tickets:v2", QUESTION, report=told.append)
    assert found["answer"] == "You asked: Where is it?"
    assert (found["model"], found["address"], found["version"]) == ("tickets:v2", ollama_here.address, "0.12.6")
    made = ollama_here.models["tickets:v2"]
    assert made["template"] == TEMPLATE
    assert made["parameters"] == {"stop": ["<|im_end|>"]}
    assert list(made["files"]) == ["model.gguf"]
    assert ollama_here.blobs[made["files"]["model.gguf"]] == Path(package["path"], "model.gguf").read_bytes()
    assert ollama_here.asked[0]["options"]["temperature"] == 0
    sending = [phase for phase in told if phase.words == "Sending model.gguf"]
    assert len(sending) > 1
    assert sending[-1].done == sending[-1].total == package["files"][1]["bytes"]
    assert "Ollama: writing manifest" in [phase.words for phase in told]


def test_a_file_it_has_is_not_sent_again_and_a_name_it_has_is_asked_about(
    package: dict[str, Any], ollama_here: FakeOllama
) -> None:
    server = ollama.find()
    server.take(package, "tickets", QUESTION)
    assert server.has("Tickets:latest")
    with pytest.raises(NameTaken, match="has a model tickets already"):
        server.take(package, "tickets", QUESTION)
    server.take(package, "tickets", QUESTION, replace=True)
    assert len(ollama_here.sent) == 1


def test_a_file_that_was_changed_is_refused(package: dict[str, Any], ollama_here: FakeOllama) -> None:
    Path(package["path"], "model.gguf").write_bytes(b"GGUF something else")
    with pytest.raises(StudioError, match="it was changed"):
        ollama.find().take(package, "tickets", QUESTION)
    assert not ollama_here.models


@pytest.mark.parametrize(
    ("path", "status", "body", "words"),
    [
        ("/api/blobs", 500, '{"error": "write /x/blobs/sha256-12: no space left on device"}', "is full"),
        ("/api/create", 200, '{"status": "parsing GGUF"}\n{"error": "unknown type"}\n', "refuses: unknown type"),
        ("/api/create", 200, '{"status": "parsing GGUF"}\n', "stopped before"),
        ("/api/create", 400, '{"error": "template: bad"}', "refuses: template: bad"),
        ("/api/chat", 500, '{"error": "model requires more system memory (9 GiB)"}', "more system memory"),
        ("/api/chat", 502, "<html>Bad gateway</html>", "refuses: <html>Bad gateway"),
    ],
)
def test_what_goes_wrong_there_is_said(
    package: dict[str, Any], ollama_here: FakeOllama, path: str, status: int, body: str, words: str
) -> None:
    ollama_here.fails[path] = (status, body)
    with pytest.raises(StudioError, match=words):
        ollama.find().take(package, "tickets", QUESTION)


@pytest.mark.parametrize("name", ["", "a b", "-tickets", "a/b/c", "tickets:", "tickets@v2", "é"])
def test_what_is_no_name_is_refused(package: dict[str, Any], ollama_here: FakeOllama, name: str) -> None:
    with pytest.raises(StudioError, match="no name for Ollama"):
        ollama.find().take(package, name, QUESTION)
    assert not ollama_here.sent


def test_without_a_server_it_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch, ollama_here: FakeOllama) -> None:
    ollama_here.version = "0.5.4"
    with pytest.raises(StudioError, match=r"0\.5\.4 at .* too old. Update it to 0\.5\.5"):
        ollama.find()
    ollama_here.version = "0.0.0"
    assert ollama.find().here
    ollama_here.fails["/api/version"] = (200, "hello")
    with pytest.raises(StudioError, match="is no Ollama"):
        ollama.find()
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(StudioError, match=r"No Ollama answers at http://127\.0\.0\.1:9\. Start it"):
        ollama.find()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("box:5000", "http://box:5000"),
        (":5000", "http://127.0.0.1:5000"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_the_address_is_read_as_ollama_reads_it(host: str, address: str) -> None:
    assert _address(host) == address


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(StudioError, match="is no address: box:port"):
        _address("box:port")


def test_a_version_is_the_tag() -> None:
    facts = {"path": "", "base": "", "base_path": "", "run": "", "method": "", "created": "", "bytes": 0}
    assert ollama.default_name(Adapter(name="tickets", version=2, **facts)) == "tickets:v2"
    assert ollama.default_name(Adapter(name="my adapter", version=0, **facts)) == "my-adapter"
