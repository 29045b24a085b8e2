"""Whatever is loaded in whatever order, the logits are those of a fresh PeftModel, bit by bit."""

import copy
import functools
import itertools
import shutil

import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from studio.domain.errors import ModelError
from studio.engine import gate, swap
from studio.engine.generate import Pipeline
from studio.engine.swap import Swap
from tests.engine.conftest import make_model

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.arange(3, 30)[None]
count = itertools.count()


@functools.cache
def base_of(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def fresh(folder, dtype=torch.float32):
    return copy.deepcopy(base_of(folder, dtype))


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


def make(base, folder, stored=torch.float32, **config):
    """Save a LoRA of these settings with weights drawn at random."""
    options = {"r": 4, "target_modules": NAMES, "init_lora_weights": False, **config}
    model = peft.get_peft_model(fresh(base), peft.LoraConfig(**options))
    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({key: value.to(stored) for key, value in load_file(file).items()}, file)
    return folder


KINDS = st.fixed_dictionaries(
    {
        "r": st.integers(1, 9),
        "lora_alpha": st.integers(1, 40),
        "use_rslora": st.booleans(),
        "target_modules": st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
        | st.just(r"model\.layers\.1\..*_proj"),
        "stored": st.sampled_from([torch.float32, torch.bfloat16]),
    },
    optional={
        "rank_pattern": st.sampled_from([{"q_proj": 3}, {r"layers\.0\..*_proj": 7}]),
        "alpha_pattern": st.sampled_from([{"v_proj": 5}, {r"layers\.1\.mlp\.up_proj": 11}]),
        "use_dora": st.booleans(),
    },
)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@FEW
@given(kinds=st.lists(KINDS, min_size=2, max_size=3), seed=st.integers(0, 1000), order=st.data())
def test_logits_are_those_of_a_fresh_model_after_any_swaps(tiny, tmp_path, dtype, kinds, seed, order, monkeypatch):
    """Adapters of peft's own switching, failures and the base in between."""
    torch.manual_seed(seed)
    monkeypatch.setattr("studio.engine.models.pick_dtype", lambda *_: dtype)
    folder = tmp_path / str(next(count))
    expected = {None: logits(fresh(tiny, dtype))}
    for number, kind in enumerate(kinds):
        adapter = make(tiny, folder / str(number), **kind)
        expected[adapter] = logits(peft.PeftModel.from_pretrained(fresh(tiny, dtype), adapter).eval())
    scaled = folder / "ia3"
    model = peft.get_peft_model(fresh(tiny), peft.IA3Config(target_modules=NAMES, feedforward_modules=[]))
    for value in model.parameters():
        value.data += 0.1 * torch.randn_like(value) if value.requires_grad else 0
    model.save_pretrained(scaled)
    expected[scaled] = logits(peft.PeftModel.from_pretrained(fresh(tiny, dtype), scaled).eval())
    wrong = shutil.copytree(scaled, folder / "wrong")
    shutil.copytree(make(tiny, folder / "plain"), folder / "cut")
    weights = load_file(folder / "cut" / "adapter_model.safetensors")
    save_file({key: value[:, :-1].clone() for key, value in weights.items()}, folder / "cut/adapter_model.safetensors")
    weights = load_file(wrong / "adapter_model.safetensors")
    save_file({key: value[:-1].clone() for key, value in weights.items()}, wrong / "adapter_model.safetensors")
    pipeline, active = Pipeline(tiny), None
    turns = st.lists(st.sampled_from([*expected, wrong, folder / "cut"]), min_size=4, max_size=8)
    for adapter in order.draw(turns):
        if adapter in expected:
            pipeline.select(adapter)
            active = adapter
        else:
            with pytest.raises(ModelError, match="made for another base model"):
                pipeline.select(adapter)
        assert torch.equal(logits(pipeline.model), expected[active])


@FEW
@given(kinds=st.lists(KINDS, min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_each_row_of_a_batch_has_its_own_adapter(tiny, tmp_path, kinds, seed):
    torch.manual_seed(seed)
    model = fresh(tiny)
    held = Swap(model)
    adapters = [None]
    for kind in kinds:
        adapter = make(tiny, tmp_path / str(next(count)), **kind)
        assert held.load(adapter, *gate.opened(adapter))
        adapters.append(adapter)
    alone = []
    for adapter in adapters:
        held.use(adapter)
        alone.append(logits(model))
    held.use(*adapters)
    torch.testing.assert_close(logits(model, IDS.repeat(len(adapters), 1)), torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["norm"]},
        {"target_modules": [*NAMES, "embed_tokens"]},
        {"trainable_token_indices": [1, 2]},
        {"layer_replication": [(0, 2), (1, 2)]},
    ],
)
def test_what_is_more_than_plain_lora_is_left_to_peft(tiny, tmp_path, config):
    adapter = make(tiny, tmp_path / "more", **config)
    assert not Swap(fresh(tiny)).load(adapter, *gate.opened(adapter))


def test_an_adapter_of_more_or_fewer_layers_is_refused(tiny, tmp_path):
    deeper = make(make_model(tmp_path / "deeper", num_hidden_layers=3), tmp_path / "three")
    shallow = make(make_model(tmp_path / "shallow", num_hidden_layers=1), tmp_path / "one")
    pipeline = Pipeline(tiny)
    for adapter in (deeper, shallow):
        with pytest.raises(ModelError, match="made for another base model"):
            pipeline.select(adapter)
        assert pipeline.active is None


@pytest.mark.parametrize("limit", ["KEEP", "ROOM"])
def test_the_adapter_unused_for_longest_makes_room(tiny, tmp_path, monkeypatch, limit):
    one, two, three = (make(tiny, tmp_path / name) for name in ("one", "two", "three"))
    pipeline = Pipeline(tiny)
    pipeline.select(one)
    size = pipeline.swap.tables[one].size
    assert size == sum(value.nbytes for value in load_file(one / "adapter_model.safetensors").values())
    monkeypatch.setattr(swap, limit, {"KEEP": 2, "ROOM": 2 * size}[limit])
    for adapter in (two, one, three):
        pipeline.select(adapter)
    assert list(pipeline.swap.tables) == [one, three]
    pipeline.select(two)
    assert list(pipeline.swap.tables) == [three, two]


def test_settings_that_are_not_sound_are_left_to_peft(tiny, tmp_path):
    adapter = make(tiny, tmp_path / "odd")
    config, weights = gate.opened(adapter)
    for change in (
        {"r": "4"},
        {"r": 0},
        {"lora_alpha": None},
        {"target_modules": None},
        {"rank_pattern": {"q_proj": 0}},
    ):
        assert not Swap(fresh(tiny)).load(adapter, config | change, weights)


@pytest.mark.parametrize("use_dora", [False, True])
def test_in_16_bits_the_base_packs_its_weights_and_answers_the_same(tiny, tmp_path, use_dora):
    adapter = make(tiny, tmp_path / "a", use_dora=use_dora)
    model = fresh(tiny, torch.bfloat16)
    held = Swap(model)
    assert held.load(adapter, *gate.opened(adapter))
    assert held.packed == all(layer.weight is None for layer in held.linear.values())
    expected = logits(peft.PeftModel.from_pretrained(fresh(tiny, torch.bfloat16), adapter).eval())
    held.use(adapter)
    torch.testing.assert_close(logits(model), expected)


def test_a_kind_that_reads_the_weights_finds_them_again(tiny, tmp_path):
    plain, other = make(tiny, tmp_path / "plain"), make(tiny, tmp_path / "other", bias="lora_only")
    pipeline = Pipeline(tiny, dtype=torch.bfloat16)
    pipeline.select(plain)
    before = logits(pipeline.model)
    pipeline.select(other)
    assert not pipeline.swap.packed
    expected = logits(peft.PeftModel.from_pretrained(fresh(tiny, torch.bfloat16), other).eval())
    torch.testing.assert_close(logits(pipeline.model), expected)
    pipeline.select(plain)
    torch.testing.assert_close(logits(pipeline.model), before)
