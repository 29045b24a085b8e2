"""What is refused before anything is loaded, and in which words."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import save_file

from studio.domain.errors import ModelError
from studio.domain.methods import METHODS
from studio.engine import gate


def copy_of(tiny, tmp_path, **changes):
    folder = shutil.copytree(tiny, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_good_folder_passes(tiny):
    assert gate.base(tiny)["model_type"] == "llama"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "wants to run its own code"),
        ({"text_config": {"auto_map": {"AutoModel": "x--evil.Model"}}}, "wants to run its own code"),
        ({"model_type": "llama\nimport os"}, "does not name a known kind"),
        ({"model_type": None}, "does not name a known kind"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(tiny, tmp_path, changes, words):
    with pytest.raises(ModelError, match=words):
        gate.base(copy_of(tiny, tmp_path, **changes))


def test_pickled_weights_are_refused_unread(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights") as caught:
        gate.base(folder)
    assert "safetensors version" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 50) + b"{}"]
)
def test_damaged_weights_are_named(tiny, tmp_path, content):
    folder = copy_of(tiny, tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors of copy is damaged"):
        gate.base(folder)


def test_an_adapter_with_weights_that_are_no_numbers_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"lora_A": torch.tensor([1.0, float("nan")])}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="are not all numbers"):
        gate.adapter(tmp_path)


def test_a_bin_adapter_and_an_unknown_kind_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickled weights"):
        gate.adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "XLORA"}')
    with pytest.raises(ModelError, match="of the kind XLORA") as caught:
        gate.adapter(tmp_path)
    assert all(row.title in caught.value.hint for row in METHODS.values())


@pytest.mark.parametrize("kind", sorted({row.peft for row in METHODS.values()}))
def test_every_kind_of_the_table_may_be_loaded_but_not_with_settings_for_a_tokenizer(tmp_path, kind):
    save_file({"weight": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    assert gate.adapter(tmp_path)["peft_type"] == kind
    asks = {"peft_type": kind, "tokenizer_kwargs": {"trust_remote_code": True}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(asks))
    with pytest.raises(ModelError, match="wants to import modules"):
        gate.adapter(tmp_path)


@pytest.mark.parametrize("name", ["target_modules", "exclude_modules"])
def test_a_pattern_of_layers_that_is_none_is_refused(tmp_path, name):
    save_file({"a": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "target_modules": r".*\.q_proj"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert gate.adapter(tmp_path) == settings
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {name: "*q_proj("}))
    with pytest.raises(ModelError, match=f"{name} of .* is no valid pattern"):
        gate.adapter(tmp_path)
