"""What a configuration refuses, and what it makes of `auto`."""

import pytest

from studio.domain.config import MethodConfig
from studio.domain.document import from_document, override
from studio.domain.errors import StudioError
from studio.domain.methods import METHODS


def config(*assignments):
    return from_document(override({"model": {"id": "m"}, "data": {"path": "d"}}, list(assignments)))


OTHER = {"rank": "4", "alpha": "7", "dropout": "0.1", "targets": "attention", "block_size": "8", "virtual_tokens": "3"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_its_own_settings_and_refuses_others(name):
    assert set(OTHER) == set(MethodConfig.model_fields) - {"name"}
    for knob, value in OTHER.items():
        asked = (f"method.name={name}", f"method.{knob}={value}")
        if knob in METHODS[name].knobs:
            assert str(getattr(config(*asked).method, knob)) == value
        else:
            with pytest.raises(StudioError) as caught:
                config(*asked)
            said = str(caught.value)
            assert f"{METHODS[name].title} does not use method.{knob}" in said
            assert "choose another method" in said


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("key", ["packing", "recompute"])
def test_what_a_method_cannot_do_is_refused_when_asked_for(name, key):
    able = getattr(METHODS[name], key)
    for value in ("auto", "off"):
        assert getattr(config(f"method.name={name}", f"train.{key}={value}").train, key) == value
    if able:
        assert getattr(config(f"method.name={name}", f"train.{key}=on").train, key) == "on"
    else:
        with pytest.raises(StudioError, match=f"does not work with train.{key}: set it to auto"):
            config(f"method.name={name}", f"train.{key}=on")


@pytest.mark.parametrize("name", METHODS)
def test_the_base_is_quantised_where_the_method_allows(name):
    row = METHODS[name]
    assert config(f"method.name={name}").quantization == row.quantization
    if row.quantized_base:
        assert config(f"method.name={name}", "model.quantization=nf4").quantization == "nf4"
    else:
        with pytest.raises(StudioError, match=r"set model\.quantization to none"):
            config(f"method.name={name}", "model.quantization=nf4")
    if row.quantization != "none":
        with pytest.raises(StudioError, match=r"set model\.quantization to nf4 or int8"):
            config(f"method.name={name}", "model.quantization=none")


def test_an_adapter_is_named_with_what_it_has():
    assert config().adapter == "LoRA, rank 16, alpha 32"
    assert config("method.rank=8").adapter == "LoRA, rank 8, alpha 16"
    assert config("method.name=vera").adapter == "VeRA, rank 256"
    assert config("method.name=oft").adapter == "OFT, block size 32"
    assert config("method.name=ia3").adapter == "IA³"
    assert config("method.name=prefix").adapter == "Prefix tuning, virtual tokens 20"


def test_virtual_tokens_count_where_they_are_used():
    assert config().virtual_tokens == 0
    assert config("method.name=prompt", "method.virtual_tokens=7").virtual_tokens == 7
