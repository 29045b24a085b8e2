"""Every part of a machine is told with what it allows, and a machine can be looked at as if it had another card."""

from types import SimpleNamespace
from typing import Any

import pytest

from studio.domain.cards import card
from studio.services import hardware, machine
from studio.services.machine import Machine
from studio.storage.paths import Home


@pytest.mark.spec("U22.1")
def test_every_part_has_words_and_figures(home: Home) -> None:
    parts = hardware.parts(Machine(home))
    assert {"processor", "memory", "disk"} <= {part.part for part in parts}
    for part in parts:
        assert part.words.endswith(".")
        assert part.allows.endswith(".")
    by_name = {part.part: part.has for part in parts}
    assert by_name["processor"]["cores"] >= 1
    assert by_name["memory"]["memory_free_bytes"] <= by_name["memory"]["memory_bytes"]


@pytest.mark.parametrize(
    ("capability", "bf16", "fp8"), [((7, 5), False, False), ((8, 6), True, False), ((9, 0), True, True)]
)
def test_cards_are_told_with_what_their_driver_says(
    home: Home, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool, fp8: bool
) -> None:
    import pynvml

    answers: dict[str, Any] = {
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=24 * 2**30, free=20 * 2**30),
        "nvmlDeviceGetCudaComputeCapability": capability,
        "nvmlDeviceGetName": "Card",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda _, answer=answer: answer)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0+cu130")
    here = Machine(home)
    here._cards = ["one", "two"]
    cards = [part for part in hardware.parts(here) if part.part.startswith("graphics card")]
    assert [part.part for part in cards] == ["graphics card 1", "graphics card 2"]
    assert (cards[0].has["bf16"], cards[0].has["fp8"], cards[0].has["driver"]) == (bf16, fp8, "580.1")
    assert "compute capability " + ".".join(map(str, capability)) in cards[0].words
    assert ("fp32 alone" in cards[0].allows) == (not bf16)


def test_a_machine_with_another_card_can_train_what_that_card_can(home: Home) -> None:
    facts = Machine(home).facts()
    small, large = (hardware.as_if(facts, card(name)) for name in ("T4", "H100"))
    assert small.gpu
    assert large.gpu
    assert (small.bf16, large.bf16) == (False, True)
    assert small.gpu.memory_bytes < large.gpu.memory_bytes
    assert small.words != large.words
    assert small.disk_free_bytes == facts.disk_free_bytes
