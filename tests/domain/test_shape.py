"""What a model's config.json says of its sizes, and what is taken where it says nothing."""

import pytest

from studio.domain.config import TrainingConfig
from studio.domain.methods import METHODS
from studio.domain.shape import Shape

STARTER = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def config(**method: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"model": {"id": "m"}, "data": {"path": "d"}, "method": method})


def test_the_sizes_of_the_starter() -> None:
    shape = Shape.of(STARTER, 134_515_008)
    assert (shape.queries, shape.keys) == (576, 192)
    # all parameters but the embeddings and the norms
    assert shape.linear_parameters == 134_515_008 - 49152 * 576 - 61 * 576
    assert shape.adapter_parameters(config(rank=16)) == 4_884_480


def test_a_model_inside_another_and_old_names_are_read() -> None:
    assert Shape.of({"model_type": "gemma3", "text_config": STARTER}, 1).layers == 30
    old = Shape.of({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12}, 124_000_000)
    assert (old.hidden, old.layers, old.queries, old.keys) == (768, 12, 768, 768)


@pytest.mark.parametrize("billions", [0.1, 1, 8, 70])
def test_an_unknown_model_has_about_the_sizes_that_its_parameters_are_for(billions: float) -> None:
    shape = Shape.of({}, round(billions * 1e9))
    assert 0.5 < shape.linear_parameters / (billions * 1e9) <= 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_a_small_part(name: str) -> None:
    shape = Shape.of(STARTER, 134_515_008)
    assert 0 < shape.adapter_parameters(config(name=name)) < 0.2 * shape.parameters
