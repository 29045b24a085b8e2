"""`adapters vllm` prints one command, writes its file, and ends with 1 when something was left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from studio.storage.paths import Home
from tests.commands.conftest import Call
from tests.services.test_vllm import LORA


def prepare(home: Home, trained: dict[str, Any]) -> Path:
    """Give the played adapter and the played base what real ones have; return the adapter's folder."""
    base = home.models / "starter"
    (base / "config.json").write_text('{"model_type": "llama"}')
    adapter = Path(trained["adapter_path"])
    (adapter / "adapter_config.json").write_text(json.dumps(LORA))
    facts = json.loads((adapter / "studio.json").read_text())
    (adapter / "studio.json").write_text(json.dumps(facts | {"base": {"id": "starter", "path": str(base)}}))
    head = b'{"m.lora_A.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    (adapter / "adapter_model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 4)
    return adapter


def test_the_command_is_all_that_goes_to_stdout(
    call: Call, trained: dict[str, Any], home: Home, tmp_path: Path
) -> None:
    prepare(home, trained)
    file = tmp_path / "vllm.yaml"
    result = call("adapters", "vllm", "support-desk", "--max-loras", 3, "--out", file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("vllm serve ")
    assert '"name": "starter:support-desk@v1"' in result.stdout
    assert f"vllm serve --config {file}" in result.stderr
    options = yaml.safe_load(file.read_text())
    assert (options["max-loras"], options["max-lora-rank"]) == (3, 8)
    told = json.loads(call("adapters", "vllm", "support-desk", "--json").stdout)
    assert told["names"] == {"starter:support-desk@v1": trained["adapter_path"]}
    assert told["command"][:2] == ["vllm", "serve"]
    assert told["refused"] == []


def test_what_is_left_out_is_named_and_is_exit_code_1(call: Call, trained: dict[str, Any], home: Home) -> None:
    adapter = prepare(home, trained)
    odd = home.adapters / "odd" / "v1"
    shutil.copytree(adapter, odd)
    (odd / "adapter_config.json").write_text(json.dumps(LORA | {"use_dora": True}))
    result = call("adapters", "vllm", "support-desk", "odd")
    assert result.exit_code == 1
    assert result.stdout.startswith("vllm serve ")
    assert "odd@v1 is a DoRA adapter." in result.stderr
    assert "export odd@v1 --format merged" in result.stderr
    alone = call("adapters", "vllm", "odd", "--json")
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["error"].startswith("Nothing is left for vLLM to serve: odd@v1")
    assert call("adapters", "vllm", "support-desk", "--out", "x.txt").exit_code == 2
