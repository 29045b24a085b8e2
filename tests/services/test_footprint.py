"""What a run holds at its peak, against what runs have taken."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.methods import METHODS
from studio.domain.shape import Shape
from studio.services.footprint import SHARE, Load, footprint
from tests.domain.test_shape import STARTER


def config(**groups: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"model": {"id": "m"}, "data": {"path": "d"}} | groups)


@given(st.sampled_from(sorted(METHODS)), st.integers(128, 65536), st.integers(1, 8192), st.booleans())
def test_more_at_once_never_needs_less(name: str, size: int, longest: int, half: bool) -> None:
    shape = Shape.of(STARTER, 134_515_008)
    load = Load(longest, math.inf, half, card=False, cores=2, free=math.inf)
    small = footprint(shape, config(method={"name": name}, train={"batch_tokens": size}), load)
    large = footprint(shape, config(method={"name": name}, train={"batch_tokens": 2 * size}), load)
    assert 0 < small.peak <= large.peak


@pytest.mark.parametrize("free", [1.5e9, 2e9, 3e9])
def test_layers_are_computed_again_only_as_far_as_the_memory_asks_for(free: float) -> None:
    shape = Shape.of(STARTER, 134_515_008)
    load = Load(512, math.inf, half=False, card=False, cores=2, free=free)
    tight = footprint(shape, config(train={"batch_tokens": 4096}), load)
    wide = footprint(shape, config(train={"batch_tokens": 4096}), Load(512, math.inf, False, False, 2, math.inf))
    assert 0 < tight.recomputed <= 30
    assert wide.recomputed == 0
    assert tight.peak < wide.peak
    if tight.recomputed < 30:
        assert tight.parts["Activations"] < 1.3 * SHARE * free
