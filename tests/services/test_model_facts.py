"""Facts of a model, the same whether it is in a folder, in the Hub's cache, in a GGUF file or on the Hub."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from studio.domain.errors import ModelError, NotFound, StudioError
from studio.services.models import STARTER_COMMIT, STARTER_REPO, Models
from studio.storage.paths import Home
from tests.services.fake_hub import COMMIT, FakeHub, Repo

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 2048,
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 16,
    "dtype": "bfloat16",
}
TENSORS = {
    "model.embed_tokens.weight": (16, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 24),
    "model.layers.0.input_layernorm.weight": (8,),
}
PARAMETERS = 16 * 8 + 8 * 8 + 4 * 8 + 8 * 24 + 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "my-model")


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({name: np.ones(shape, np.float16) for name, shape in TENSORS.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def test_a_folder_tells_what_it_holds_without_its_numbers(home: Home, folder: Path) -> None:
    found = Models(home).facts(str(folder))
    assert (found.source, found.path, found.architecture, found.family) == (
        "folder",
        str(folder),
        "LlamaForCausalLM",
        "llama",
    )
    assert (found.parameters, found.dtype) == (PARAMETERS, "float16")  # what the file says, not the configuration
    assert (found.layers, found.hidden, found.heads, found.key_value_heads) == (1, 8, 4, 2)
    assert (found.vocabulary, found.context, found.licence, found.template) == (16, 2048, "apache-2.0", True)
    assert found.targets == ["down_proj", "k_proj", "q_proj"]
    assert found.bytes == (folder / "model.safetensors").stat().st_size


def test_what_a_model_does_not_tell_is_left_open(home: Home, folder: Path) -> None:
    (folder / "README.md").write_text("---\n- [\n---\n")
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    found = Models(home).facts(str(folder))
    assert (found.licence, found.template, found.layers, found.context) == ("", False, 0, 0)
    (folder / "chat_template.jinja").write_text("x")
    assert Models(home).facts(str(folder)).template is True


def test_a_model_in_the_cache_of_the_hubs_library_is_found(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    place = tmp_path / "cache" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    make(place / "snapshots" / STARTER_COMMIT)
    found = Models(home).facts("starter")
    assert (found.id, found.source, found.revision) == (STARTER_REPO, "cache", STARTER_COMMIT)
    assert found.parameters == PARAMETERS
    with pytest.raises(StudioError, match="cannot be reached"):
        Models(home).facts("someone/other")
    model = Models(home).resolve("starter")
    assert (model.source, model.revision, model.licence) == ("hub", STARTER_COMMIT, "apache-2.0")
    assert Path(model.path).parent == home.models, "the cache may be emptied, a run's base must stay"


def test_what_the_facts_are_of_is_what_a_run_takes_without_a_network(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    place = tmp_path / "cache" / "models--owner--small"
    make(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    facts, model = Models(home).facts("owner/small"), Models(home).resolve("owner/small")
    assert (facts.revision, model.revision, model.id) == (COMMIT, COMMIT, "owner/small")
    assert Models(home).facts("owner/small").path == model.path
    with pytest.raises(StudioError, match="cannot be reached"):
        Models(home).resolve("owner/small", "another")


def test_the_hub_is_asked_for_small_files_and_heads_alone(
    home: Home, online: FakeHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    online.repos["owner/small"] = Repo(folder, licence="mit")
    found = Models(home).facts("owner/small")
    assert (found.source, found.revision, found.licence, found.template) == ("online", COMMIT, "mit", True)
    here = Models(home).facts(str(folder))
    same = {"parameters", "dtype", "layers", "heads", "vocabulary", "context", "targets", "bytes"}
    assert found.model_dump(include=same) == here.model_dump(include=same)
    assert Models(home).list() == []
    assert not any("tokenizer.json" in path and "resolve" in path for path in online.asked)


def test_a_gguf_file_tells_the_same_by_other_names(home: Home, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "small.gguf")
    found = Models(home).facts(str(path))
    assert (found.source, found.family, found.layers, found.hidden) == ("gguf", "llama", 1, 8)
    assert (found.heads, found.key_value_heads, found.vocabulary, found.context) == (4, 2, 3, 256)
    assert (found.licence, found.template, found.targets) == ("mit", True, ["down_proj", "q_proj"])
    assert (found.parameters, found.dtype) == (8 * 8 + 8 * 24 + 3 * 8 + 8, "F16")


def write_gguf(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(8)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_license("mit")
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.5, 1.0, 2.0])
    for name, shape in {"attn_q": (8, 8), "ffn_down": (8, 24)}.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float16))
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), np.float16))
    writer.add_tensor("blk.0.attn_norm.weight", np.zeros(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_no_model_is_refused_in_words(home: Home, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no folder or file"):
        Models(home).facts("./nothing")
    with pytest.raises(NotFound, match="is not a name of a model"):
        Models(home).facts("a b")
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}, "model_type": "llama"}')
    with pytest.raises(ModelError, match="wants to run code of its own"):
        Models(home).facts(str(folder))
