"""What corrects the adapter's weights."""

import torch

from studio.domain.document import from_document
from studio.engine import lora
from tests.engine.test_fused import adapted


def config(**settings):
    return from_document({"model": {"id": "m"}, "data": {"path": "d"}, **settings})


def test_every_weight_of_the_adapter_is_corrected_once():
    model = adapted("llama")
    wanted = {id(value) for value in model.parameters() if value.requires_grad}
    for name in ("lora", "loraplus"):
        made = lora.optimizer(model, config(method={"name": name}), 1e-3)
        found = [id(value) for group in made.param_groups for value in group["params"]]
        assert len(found) == len(set(found))
        assert set(found) == wanted
        assert all(group["weight_decay"] == 0 for group in made.param_groups)


def test_lora_plus_lets_the_second_matrix_learn_faster():
    model = adapted("llama")
    names = {id(value): name for name, value in model.named_parameters()}
    made = lora.optimizer(model, config(method={"name": "loraplus"}), 1e-3)
    rates = {("lora_B" in names[id(value)], group["lr"]) for group in made.param_groups for value in group["params"]}
    assert rates == {(False, 1e-3), (True, 16 * 1e-3)}


def test_the_state_may_be_held_in_8_bits():
    made = lora.optimizer(adapted("llama"), config(train={"optimizer": "adamw_8bit"}), 1e-3)
    assert type(made).__name__ == "AdamW8bit"
    assert isinstance(made, torch.optim.Optimizer)
