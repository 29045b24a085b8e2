"""What vLLM is started with: options it knows, ranks it takes, adapters it reads; `tests.benchmarks.vllm` asks vLLM."""

import argparse
import json
import shlex
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.domain.errors import StudioError
from studio.domain.records import Model
from studio.services.models import RECORD
from studio.storage.paths import Home
from studio.studio import Studio

RANKS = [1, 8, 16, 32, 64, 128, 256, 320, 512]
LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}
PAIR = ["base_model.model.model.layers.0.self_attn.q_proj.lora_" + part for part in ("A.weight", "B.weight")]
TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


def parsed(words: list[str]) -> argparse.Namespace:
    """Read a command as `vllm serve` 0.33 does: its own names, types and choices of these options."""
    parser = argparse.ArgumentParser(prog="vllm", exit_on_error=False)
    serve = parser.add_subparsers(dest="verb").add_parser("serve")
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--model")
    serve.add_argument("--served-model-name", nargs="+")
    serve.add_argument("--dtype", choices=["auto", "bfloat16", "float", "float16", "float32", "half"])
    serve.add_argument("--host")
    serve.add_argument("--port", type=int)
    serve.add_argument("--enable-lora", action=argparse.BooleanOptionalAction)
    serve.add_argument("--max-lora-rank", type=int, choices=RANKS)
    serve.add_argument("--max-loras", type=int)
    serve.add_argument("--max-cpu-loras", type=int)
    serve.add_argument("--chat-template")
    serve.add_argument("--lora-modules", nargs="+", type=json.loads)
    assert words[0] == "vllm"
    return parser.parse_args(words[1:])


@pytest.fixture
def studio(home: Home) -> Studio:
    studio = Studio()
    for name, dtype in (("tiny", "float32"), ("old", "float16")):
        folder = studio.home.models / name
        folder.mkdir()
        model = Model(id=f"some/{name}", path=str(folder), source="hub", bytes=10)
        (folder / "model.safetensors").write_bytes(b"")
        (folder / RECORD).write_text(model.model_dump_json())
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": dtype}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return studio


def keep(
    studio: Studio, name: str, base: str = "tiny", template: str = TEMPLATE, tensors: list[str] = PAIR, **settings: Any
) -> Path:
    folder = studio.home.adapters / name / "v1"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(LORA | settings))
    head = {each: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for each in tensors}
    text = json.dumps(head).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    made_on = {"id": f"some/{base}", "path": str(studio.home.models / base)}
    facts = {"base": made_on, "template": template, "created": "2026-11-20T10:00:00+00:00"}
    (folder / "studio.json").write_text(json.dumps(facts))
    return folder


def test_the_command_and_the_configuration_say_the_same(studio: Studio) -> None:
    one, two = keep(studio, "desk"), keep(studio, "sql", r=20, rank_pattern={"layers.0": 40})
    plan = studio.vllm.plan(["desk", "sql@v1", "desk"])
    found = parsed(shlex.split(plan.shell.replace("\\\n", "")))
    assert found == parsed(plan.command)
    assert found.model_tag == str(studio.home.models / "tiny")
    assert found.served_model_name == ["some/tiny"]
    assert (found.enable_lora, found.max_lora_rank, found.max_loras, found.max_cpu_loras) == (True, 64, 2, 2)
    assert (found.host, found.dtype, found.chat_template) == ("127.0.0.1", "bfloat16", None)
    assert found.lora_modules == [
        {"name": "some/tiny:desk@v1", "path": str(one), "base_model_name": "some/tiny"},
        {"name": "some/tiny:sql@v1", "path": str(two), "base_model_name": "some/tiny"},
    ]
    words = ["vllm", "serve"]
    for name, value in yaml.safe_load(plan.config).items():  # as vLLM turns its file into words
        words += [f"--{name}", *(value if isinstance(value, list) else [] if value is True else [str(value)])]
    from_file = parsed(words)
    assert from_file.model == found.model_tag
    assert vars(from_file) | {"model": None, "model_tag": found.model_tag} == vars(found)


@pytest.mark.parametrize(("rank", "taken"), [(1, 1), (2, 8), (8, 8), (17, 32), (300, 320), (512, 512)])
def test_the_rank_is_one_that_vllm_takes(studio: Studio, rank: int, taken: int) -> None:
    keep(studio, "desk", r=rank)
    assert parsed(studio.vllm.plan(["desk"]).command).max_lora_rank == taken


def test_a_base_made_in_fp16_stays_so_and_a_batch_has_a_bound(studio: Studio) -> None:
    for number in range(10):
        keep(studio, f"a{number}", "old")
    names = [f"a{number}" for number in range(10)]
    found = parsed(studio.vllm.plan(names).command)
    assert (found.dtype, found.max_loras, found.max_cpu_loras) == ("float16", 8, 10)
    assert parsed(studio.vllm.plan(names, at_once=12).command).max_loras == 12


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"bias": "lora_only"}, "bias: lora_only"),
        ({"lora_bias": True}, "has biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"peft_type": "IA3"}, "is made with IA3, and vLLM reads LoRA alone"),
        ({"init_lora_weights": "pissa_niter_4"}, "its start has changed"),
        ({"r": 600}, "at most 512"),
        ({"tensors": [*PAIR, "base_model.model.lm_head.weight"]}, "base_model.model.lm_head.weight"),
        ({"template": "another"}, "another chat template than desk@v1"),
    ],
)
def test_what_vllm_does_not_serve_is_named_with_what_to_do(studio: Studio, settings: dict[str, Any], why: str) -> None:
    keep(studio, "desk")
    keep(studio, "odd", **settings)
    plan = studio.vllm.plan(["desk", "odd"])
    assert list(plan.names) == ["some/tiny:desk@v1"]
    (refused,) = plan.refused
    assert why in refused.why
    assert "`peft-studio export odd@v1 --format merged" in refused.hint
    if "template" not in settings:
        with pytest.raises(StudioError, match="Nothing is left for vLLM to serve: odd@v1"):
            studio.vllm.plan(["odd"])


def test_what_cannot_be_merged_either_is_not_sent_there(studio: Studio) -> None:
    keep(studio, "soft", peft_type="PROMPT_TUNING")
    with pytest.raises(StudioError, match="cannot be put into a base either"):
        studio.vllm.plan(["soft"])


def test_a_template_that_is_not_the_bases_own_is_given_as_a_file(studio: Studio) -> None:
    keep(studio, "desk", template="{{ messages[0].content }} ü")
    path = parsed(studio.vllm.plan(["desk"]).command).chat_template
    assert Path(path).read_text(encoding="utf-8") == "{{ messages[0].content }} ü"


def test_adapters_of_two_bases_are_refused(studio: Studio) -> None:
    keep(studio, "desk")
    keep(studio, "other", "old")
    with pytest.raises(StudioError, match=r"other@v1 was trained on some/old, desk@v1 on some/tiny"):
        studio.vllm.plan(["desk", "other"])
    with pytest.raises(StudioError, match="No adapter is named"):
        studio.vllm.plan([])
