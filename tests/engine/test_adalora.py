"""AdaLoRA's steps are those of the paper's own loop, and go on from a saved optimizer."""

import copy

import peft
import pytest
import torch

from studio.engine import lora, loss
from studio.engine.tensors import padded_batch
from tests.engine.test_attention import model_of, rows_of
from tests.engine.test_lora import config

STEPS, RANK = 6, 4


def made(tmp_path):
    asked = config(method={"name": "adalora", "rank": RANK})
    torch.manual_seed(1)
    model = lora.attach(model_of("llama"), asked, tmp_path, STEPS)
    return model, lora.optimizer(model, asked, 1e-2)


def batch(step):
    return padded_batch(rows_of([7 + step, 20, 3]), 0)


def learn(model, optimizer, steps):
    for step in steps:
        loss.padded(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_it_learns_as_peft_s_own_loop_does(tmp_path):
    ours, optimizer = made(tmp_path)
    learn(ours, optimizer, range(STEPS))
    theirs, _ = made(tmp_path)
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    for step in range(STEPS):
        some = batch(step)
        labels = torch.nn.functional.pad(some["labels"], (1, 0), value=-100)[:, :-1]  # the model shifts them itself
        out = theirs(input_ids=some["input_ids"], attention_mask=some["attention_mask"], labels=labels)
        plain = loss.padded(theirs, some)
        mean = plain / (labels != -100).sum()
        (plain + (out.loss - mean)).backward()  # what is in brackets is peft's regulariser
        optimizer.step()
        theirs.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
        theirs.peft_config["default"].rank_pattern = None
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-5)


def test_at_the_end_the_rank_is_the_one_asked_for(tmp_path):
    model, optimizer = made(tmp_path)
    learn(model, optimizer, range(STEPS))
    singular = [value for name, value in weights(model).items() if "lora_E" in name]
    assert all(len(value) == RANK * 3 // 2 for value in singular)
    assert sum(int(value.count_nonzero()) for value in singular) == RANK * len(singular)
    assert len({int(value.count_nonzero()) for value in singular}) > 1, "layers differ in what they keep"


def test_a_run_goes_on_from_its_optimizer_s_state(tmp_path):
    straight, optimizer = made(tmp_path)
    learn(straight, optimizer, range(STEPS))
    first, optimizer = made(tmp_path)
    learn(first, optimizer, range(3))
    state, kept = copy.deepcopy(optimizer.state_dict()), peft.get_peft_model_state_dict(first)
    second, optimizer = made(tmp_path)
    peft.set_peft_model_state_dict(second, {name: value.clone() for name, value in kept.items()})
    optimizer.load_state_dict(state)
    learn(second, optimizer, range(3, STEPS))
    torch.testing.assert_close(weights(second), weights(straight), rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_any_length_of_run_has_a_plan(tmp_path, steps):
    asked = config(method={"name": "adalora", "rank": 1})
    model = lora.attach(model_of("llama"), asked, tmp_path, steps)
    learn(model, lora.optimizer(model, asked, 1e-2), range(min(steps, 2)))
