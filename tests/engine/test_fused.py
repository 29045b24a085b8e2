"""Fused parts compute what transformers and peft compute, and stay away from what was not tried."""

import peft
import pytest
import torch
from peft.tuners import lora
from peft.tuners.tuners_utils import BaseTunerLayer

from studio.domain.document import from_document
from studio.domain.methods import METHODS
from studio.engine import attention, fused, loss
from studio.engine.lora import attach
from studio.engine.tensors import packed_batch
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


def test_an_untried_release_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(fused, "version", lambda package: "99.0.1")
    assert fused.fuse(adapted("llama")) == 0
