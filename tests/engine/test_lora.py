"""What corrects the adapter's weights, and every method from its first step to its answer."""

import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.domain import events
from studio.domain.document import from_document
from studio.domain.methods import METHODS
from studio.engine import evaluate, fused, lora, loss, models
from studio.engine.generate import Pipeline
from studio.engine.tensors import packed_batch, padded_batch
from tests.engine.conftest import make_model
from tests.engine.test_attention import rows_of
from tests.engine.test_fused import adapted
from tests.engine.test_train import of, run

IDS = torch.arange(3, 30)[None]
SMALL = {"rank": 8, "block_size": 8, "virtual_tokens": 5}  # what fits models this narrow
ASK = [{"role": "user", "content": "What is the colour of thing 1?"}]


def config(**settings):
    return from_document({"model": {"id": "m"}, "data": {"path": "d"}, **settings})


def knobs(name):
    return {knob: value for knob, value in SMALL.items() if knob in METHODS[name].knobs}


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits[:, -IDS.shape[1] :]


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """bitsandbytes quantises blocks of 64 values: a quantised model needs wider layers."""
    folder = tmp_path_factory.mktemp("model") / "wide"
    return make_model(folder, hidden_size=64, intermediate_size=128, head_dim=16)


@pytest.fixture(scope="session")
def base_loss(tiny):
    """Held-out loss of the base, measured without any adapter about."""

    def measure(held):
        return evaluate.compare(
            {"path": str(tiny)},
            None,
            held,
            quantization="none",
            dtype=torch.float32,
            device=torch.device("cpu"),
            answers=0,
            max_new_tokens=1,
            seed=42,
            limit=None,
            phase=lambda *_, **__: None,
        )["base"]["loss"]

    return measure


@pytest.mark.spec("U4.1")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_is_saved_compared_and_answers(tiny, wide, base_loss, make_run, monkeypatch, name):
    row = METHODS[name]
    base = wide if row.quantization != "none" else tiny
    monkeypatch.setattr(models, "pick_dtype", lambda *_: torch.float32)
    trained = {}

    def save(model, *rest, real=lora.save):
        trained["logits"] = logits(model)
        return real(model, *rest)

    monkeypatch.setattr(lora, "save", save)
    size = [f"method.{knob}={value}" for knob, value in knobs(name).items()]
    directory = make_run(base, f"method.name={name}", *size, "train.max_steps=3", "train.learning_rate=2e-2")
    found = run(directory)

    # it learns
    told = [event.loss for event in of(events.Evaluated, found) if not event.final]
    assert told[-1] < told[0] - 1e-3
    started = of(events.Started, found)[0]
    assert started.settings["packed"] == row.packing
    assert [row.title in event.words for event in of(events.Warned, found)] == [True] * (not row.packing)

    # plain peft loads what was saved, and says what the trained model said
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if row.quantization != "none":
        plain = models.load_base(base, row.quantization, torch.float32, torch.device("cpu"))
    plain = peft.PeftModel.from_pretrained(plain, directory / "adapter")
    torch.testing.assert_close(logits(plain), trained["logits"], rtol=1e-4, atol=1e-4)

    # base and adapter are compared, each by itself
    final = of(events.Finished, found)[0].result["eval"]
    assert final["adapter"]["loss"] == pytest.approx(min(told[1:]), rel=1e-3)
    if base is tiny:
        assert final["base"]["loss"] == pytest.approx(base_loss(directory / "data" / "eval.jsonl"), rel=1e-4)
    assert final["answers"] == 2

    # and it answers in the chat, word for word what the model finds likeliest
    pipeline = Pipeline(base)
    pipeline.select(directory / "adapter")
    *pieces, figures = pipeline.answer(ASK, room=6, temperature=0)
    if row.quantization == "none":
        assert "".join(pieces) == likeliest(plain, pipeline.tokenizer, figures["tokens"])

    card = (directory / "adapter" / "README.md").read_text()
    method = next(line for line in card.splitlines() if line.startswith("| Method |"))
    assert row.title in method
    assert ("rank" in method) == ("rank" in row.knobs)
    assert json.loads((directory / "adapter" / "adapter_config.json").read_text())["peft_type"] == row.peft


@torch.no_grad()
def likeliest(model, tokenizer, count):
    """The greedy answer by whole forward passes, nothing kept between them."""
    ids = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = ids["input_ids"]
    begin = ids.shape[1]
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return tokenizer.decode(ids[0, begin:], skip_special_tokens=True)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.quantized_base])
def test_a_quantised_base_gives_every_weight_its_gradient(wide, tmp_path, name, quantization):
    asked = config(method={"name": name, **knobs(name)}, model={"id": "m", "quantization": quantization})
    model = models.load_base(wide, quantization, torch.float32, torch.device("cpu"))

    model = lora.attach(model, asked, tmp_path, steps=3)
    fused.fuse(model)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for value in trained.values():  # away from the start, at which some matrices have none
        torch.nn.init.normal_(value, std=0.05)
    rows = rows_of([12, 20, 9])
    packs = METHODS[name].packing
    value = loss.packed(model, packed_batch(rows)) if packs else loss.padded(model, padded_batch(rows, 0))
    value.backward()
    assert value.isfinite()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in trained.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_best_weights_can_be_put_back(tiny, tmp_path, name):
    base = models.load_base(tiny, "none", torch.float32, torch.device("cpu"))
    model = lora.attach(base, config(method={"name": name, **knobs(name)}), tmp_path, steps=3)
    kept = {key: value.clone() for key, value in peft.get_peft_model_state_dict(model).items()}
    before = logits(model)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value))
    assert not torch.equal(logits(model), before)
    peft.set_peft_model_state_dict(model, kept)
    assert torch.equal(logits(model), before)


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
