"""Fused parts compute what transformers and peft compute, and stay away from what was not tried."""

import peft
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners import lora
from peft.tuners.tuners_utils import BaseTunerLayer

from studio.domain.document import from_document
from studio.domain.methods import METHODS
from studio.engine import attention, fused, loss, models
from studio.engine.lora import attach
from studio.engine.tensors import packed_batch
from tests.engine.conftest import make_model
from tests.engine.test_attention import model_of, rows_of

TARGETS = "all-linear"


def adapted(kind, **settings):
    torch.manual_seed(1)
    model = peft.get_peft_model(
        model_of(kind),
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=TARGETS, **settings),
    )
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
        if "magnitude" in name:  # away from the weights' own
            value.data *= torch.rand_like(value) + 0.5
    return model


def measured(model, dtype=torch.float32):
    model.to(dtype)
    value = loss.packed(model, packed_batch(rows_of([7, 20, 3, 12])))
    value.backward()
    return value.detach().float(), {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", attention.ARCHITECTURES)
def test_loss_and_gradients_equal_peft(kind, dora):
    plain, quick = adapted(kind, use_dora=dora), adapted(kind, use_dora=dora)
    # both layers: the linears, and the norms and the gated product where they are plain
    assert fused.fuse(quick) >= 2 * 4
    (value, gradients), (expected, wanted) = measured(quick), measured(plain)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.peft != "LORA" and row.packing])
def test_other_methods_layers_are_left_alone(tmp_path, name):
    def made():
        torch.manual_seed(1)
        size = {knob: 8 for knob in ("rank", "block_size") if knob in METHODS[name].knobs}
        document = {"model": {"id": "m"}, "data": {"path": "d"}, "method": {"name": name, **size}}
        model = attach(model_of("llama"), from_document(document), tmp_path, steps=3)
        for value in model.parameters():
            if value.requires_grad:
                torch.nn.init.normal_(value, std=0.1)
        return model

    plain, quick = made(), made()
    fused.fuse(quick)
    layers = [module for module in quick.modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    assert not any("forward" in vars(module) for module in layers)
    (value, gradients), (expected, wanted) = measured(quick), measured(plain)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_in_bf16_the_gradients_are_as_close_to_fp32_as_pefts(dora):
    exact, plain, quick = (adapted("llama", use_dora=dora) for _ in range(3))
    fused.fuse(quick)
    _, wanted = measured(exact)
    off = []
    for model in (plain, quick):
        _, found = measured(model, torch.bfloat16)
        off.append(sum(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted))
    assert off[1] < 1.5 * off[0]


def test_in_bf16_a_small_adapter_is_not_rounded_away():
    """Added to the rounded product of the base, as peft does, most of it is."""
    torch.manual_seed(0)
    x, weight = torch.randn(512, 64), torch.randn(64, 64) / 8
    a, b = torch.randn(4, 64) / 8, 1e-4 * torch.randn(64, 4)
    added = x @ a.t() @ b.t()
    x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    base = torch.nn.functional.linear(x, weight).float()
    ours = fused.LoraLinear.apply(x, weight, None, a, b, 1.0).float() - base
    plain = (base.to(torch.bfloat16) + (x.float() @ a.t() @ b.t()).to(torch.bfloat16)).float() - base

    def share(found):
        return float((found * added).sum() / added.square().sum())

    assert share(plain) < 0.5
    assert share(ours) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("dora", [False, True])
def test_adapter_off_and_merged_are_left_to_peft(dora):
    model = adapted("llama", use_dora=dora).eval()
    batch = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        with model.disable_adapter():
            base = model(batch).logits
        both = model(batch).logits
        fused.fuse(model)
        torch.testing.assert_close(model(batch).logits, both, rtol=1e-5, atol=1e-5)
        with model.disable_adapter():
            torch.testing.assert_close(model(batch).logits, base, rtol=1e-5, atol=1e-5)
        model.merge_adapter()
        torch.testing.assert_close(model(batch).logits, both, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings", [{"lora_dropout": 0.1}, {"lora_dropout": 0.1, "use_dora": True}, {"lora_bias": True}]
)
def test_another_kind_of_linear_keeps_its_forward(settings):
    model = adapted("llama", **settings)
    fused.fuse(model)
    linears = [module for module in model.modules() if isinstance(module, lora.Linear)]
    assert linears
    assert not any("forward" in vars(module) for module in linears)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_over_four_bits_the_gradients_are_as_close_to_exact_as_pefts(tmp_path, dtype):
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
    folder = make_model(tmp_path / "wide", **shape)

    def made(kind, dtype=torch.float32):
        torch.manual_seed(1)
        base = models.load_base(folder, kind, dtype, torch.device("cpu"))
        settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=TARGETS, init_lora_weights=False)
        base.set_attn_implementation(attention.NAME)
        return peft.get_peft_model(base, settings)

    def gradients(model):
        batch = packed_batch(rows_of([7, 20, 3, 12]))
        loss.packed(model, batch).backward()
        return {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}

    exact = made("none")  # with the weights that the four bits stand for
    held = dict(made("nf4").named_modules())
    for name, module in exact.named_modules():
        if isinstance(module, lora.Linear):
            four = held[name].base_layer.weight
            module.base_layer.weight.data = dequantize_4bit(four.data, four.quant_state).float()
    wanted = gradients(exact)
    plain, quick = made("nf4", dtype), made("nf4", dtype)
    assert fused.fuse(quick) > 2 * 7
    off = [
        sum(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted) / len(wanted)
        for found in (gradients(plain), gradients(quick))
    ]
    assert off[1] < (1e-4 if dtype == torch.float32 else 1.5 * off[0])


def test_dora_over_four_bits_is_left_to_peft(tmp_path):
    base = models.load_base(make_model(tmp_path / "tiny"), "nf4", torch.float32, torch.device("cpu"))
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, use_dora=True))
    fused.fuse(model)
    layers = [module for module in model.modules() if isinstance(module, lora.LoraLayer)]
    assert layers
    assert not any("forward" in vars(module) for module in layers)


def test_an_untried_release_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(fused, "version", lambda package: "99.0.1")
    assert fused.fuse(adapted("llama")) == 0
