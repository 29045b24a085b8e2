"""Graphics cards are found by the names people and drivers use."""

import pytest

from studio.domain.cards import CARDS, card
from studio.domain.errors import NotFound


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4090", "RTX 4090"),
        ("rtx 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("A100", "A100 80 GB"),
        ("a100 40gb", "A100 40 GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
        ("Tesla T4", "T4"),
        ("L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA A100", "A100 80 GB"),
    ],
)
def test_a_card_is_found_by_how_it_is_called(said: str, meant: str) -> None:
    assert card(said).name == meant


@pytest.mark.parametrize("each", CARDS, ids=lambda each: each.name)
def test_every_card_is_found_by_its_own_name(each: object) -> None:
    assert card(each.name) == each  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", ["", "NVIDIA", "Voodoo 2"])
def test_a_card_that_is_not_known_is_said_with_those_that_are(said: str) -> None:
    with pytest.raises(NotFound, match="is not known") as raised:
        card(said)
    assert "RTX 3090" in raised.value.hint


def test_fp8_comes_with_bf16() -> None:
    assert all(each.bf16 for each in CARDS if each.fp8)
