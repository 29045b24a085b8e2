"""A step is traced without weights, and tried with them; both see the run's real rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from studio.engine import attention, fused, lora, measure, memory, models, tokens, trace
from studio.engine.report import Reporter, settings
from studio.engine.rows import Table
from studio.engine.tensors import packed_batch, padded_batch
from tests.engine.conftest import EXAMPLES, MakeRun, make_model, make_tokenizer


def rows(number: int) -> list[Any]:
    tokenizer = make_tokenizer()
    return tokens.encode(tokenizer, EXAMPLES[:number])


def test_the_job_says_the_plan_the_traced_and_the_measured(tiny: Path, make_run: MakeRun) -> None:
    directory = make_run(tiny, "train.max_steps=6", "train.effective_rows=8")
    (directory / "request.json").write_text(json.dumps({"steps": True}))
    measure.run(directory, Reporter(directory))
    found = json.loads((directory / "result.json").read_text())
    assert found["steps"] == 6
    assert found["tokens"] > found["labels"] > 0
    assert found["squares"] > found["tokens"]
    assert all(value >= 0 for value in found["traced"]["parts"].values())
    tried = found["measured"]
    assert tried["peak"] > 10**8, "the libraries alone take more"
    assert tried["speed"] > 0
    assert tried["compared"]["load"] > 0
    for side in ("base", "adapter"):
        it = tried["compared"][side]
        assert set(it) == {"look", "read", "a_turn", "a_token"}
        assert all(value > 0 for name, value in it.items() if name != "a_token")
        assert it["a_token"] >= 0
    assert found["answer"] >= found["answers"] > 0
    assert not list(directory.glob("checkpoints/*")), "nothing of a run is made"


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "prompt"])
def test_without_questions_the_comparison_is_tried_on_rows_alone(tiny: Path, make_run: MakeRun, method: str) -> None:
    directory = make_run(tiny, "evaluate.answers=0", f"method.name={method}")
    (directory / "request.json").write_text(json.dumps({"steps": True}))
    measure.run(directory, Reporter(directory))
    found = json.loads((directory / "result.json").read_text())["measured"]["compared"]
    for side in ("base", "adapter"):
        assert found[side]["look"] > 0
        assert (found[side]["read"], found[side]["a_turn"], found[side]["a_token"]) == (0, 0, 0)


def test_tokens_of_all_steps_are_those_the_run_trains_on(tiny: Path, make_run: MakeRun) -> None:
    """Two passes and a half of 20 rows in steps of 4."""
    directory = make_run(tiny, "train.max_steps=12")
    (directory / "request.json").write_text(json.dumps({"steps": False}))
    measure.run(directory, Reporter(directory))
    found = json.loads((directory / "result.json").read_text())
    lengths = [len(row) for row in rows(24)[4:]]
    assert 2 * sum(lengths) < found["tokens"] < 3 * sum(lengths)
    assert "measured" not in found


@pytest.mark.parametrize("name", ["dora", "pissa", "adalora", "oft", "vera", "ia3", "prompt", "prefix"])
def test_methods_of_every_kind_are_traced(tiny: Path, make_run: MakeRun, name: str) -> None:
    config = settings(make_run(tiny, f"method.name={name}"))
    batch = packed_batch(rows(6)) if config.row.packing else padded_batch(rows(6), 2)
    found = trace.trace(tiny, config, torch.float32, torch.device("cpu"), batch, 10)
    assert found.layers == 2
    assert found.layer > 0
    assert found.adapter > 0
    assert attention.mask.cache_info().currsize == 0, "no mask without content is left for a real step"


@pytest.mark.parametrize("method", ["name=lora", "name=dora", "name=dora dropout=0.1"])
def test_the_traced_activations_are_those_a_real_step_keeps(tiny: Path, make_run: MakeRun, method: str) -> None:
    """DoRA with dropout is peft's own, which makes and drops tensors as large as the weights in each forward."""
    config = settings(make_run(tiny, *(f"method.{each}" for each in method.split())))
    some = rows(20)
    batch = packed_batch(some)
    found = trace.trace(tiny, config, torch.float32, torch.device("cpu"), batch, 10)
    model = models.load_base(tiny, "none", torch.float32, torch.device("cpu"))
    held = sum(value.nbytes for value in model.parameters())
    assert found.base == pytest.approx(held, rel=0.05)
    model.set_attn_implementation(attention.NAME)
    model = lora.attach(model, config, Path(), 10)
    fused.fuse(model)
    assert found.adapter == sum(value.numel() for value in model.parameters() if value.requires_grad)
    one = memory.saved_per_token(model, Table.of(some), None) * sum(map(len, some))
    assert 2 * found.layer == pytest.approx(one, rel=0.25)


def test_what_cannot_be_traced_is_told_and_our_own_mistakes_are_not_taken_for_it(
    tmp_path: Path, tiny: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experts of Mixtral are multiplied by a function whose shape-only form takes bf16 alone."""
    mixtral = make_model(tmp_path / "mixtral", "mixtral", num_local_experts=4)
    directory = make_run(mixtral, "train.max_steps=2")
    (directory / "request.json").write_text(json.dumps({"steps": False}))
    measure.run(directory, Reporter(directory))
    found = json.loads((directory / "result.json").read_text())
    assert found["untraced"].startswith("RuntimeError")
    assert "traced" not in found
    monkeypatch.setattr(trace, "_states", lambda config: 0)
    with pytest.raises(TypeError):
        trace.trace(tiny, settings(make_run(tiny)), torch.float32, torch.device("cpu"), packed_batch(rows(4)), 9)


def test_layers_whose_kinds_a_config_derives_are_traced(tmp_path: Path, make_run: MakeRun) -> None:
    sizes = {"state_size": 4, "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2}
    AutoConfig.for_model("mamba", **sizes).save_pretrained(tmp_path / "mamba")
    config = settings(make_run(tmp_path / "mamba", "method.targets=[in_proj]"))
    found = trace.trace(tmp_path / "mamba", config, torch.float32, torch.device("cpu"), padded_batch(rows(4), 2), 9)
    assert found.layers == 2


def test_a_quantised_base_is_counted_in_its_bits(tiny: Path, make_run: MakeRun) -> None:
    batch = packed_batch(rows(4))
    plain, eight, four = (
        trace.trace(
            tiny, settings(make_run(tiny, f"model.quantization={kind}")), torch.float32, torch.device("cpu"), batch, 9
        )
        for kind in ("none", "int8", "nf4")
    )
    assert plain.base > eight.base > four.base > 0
