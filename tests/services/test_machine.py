"""The machine as this process may use it: containers, cards that torch cannot use, and limits told honestly."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.services import machine
from studio.services.machine import SIZES, Gpu, Machine
from studio.storage.paths import Home

BYTES = st.floats(0, 1e13)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver that shows one card of 24 GB."""
    shown = SimpleNamespace(total=24 * 10**9, free=20 * 10**9, used=4 * 10**9, capability=(8, 9), count=1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: shown.count)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: f"GPU-{handle}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"Card {handle}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: shown)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda handle: shown.capability)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=37))
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0")
    return shown


@pytest.mark.spec("U22.1")
def test_cores_and_memory_are_found(home: Home) -> None:
    facts = Machine(home).facts()
    assert facts.processor
    assert 1 <= facts.cores <= (psutil.cpu_count() or 1)
    assert 0 < facts.memory_free_bytes <= facts.memory_bytes <= psutil.virtual_memory().total
    assert facts.disk_free_bytes > 0


@pytest.mark.spec("U22.1")
def test_the_card_is_found(home: Home, card: SimpleNamespace) -> None:
    facts, live = Machine(home).facts(), Machine(home).live()
    assert facts.gpu == Gpu(name="Card 0", memory_bytes=24 * 10**9, memory_free_bytes=20 * 10**9, bf16=True)
    assert facts.bf16
    assert (live.gpu_share, live.gpu_used_bytes) == (0.37, 4 * 10**9)


def test_each_card_is_told_by_its_name_for_cuda(home: Home, card: SimpleNamespace) -> None:
    card.count = 2
    assert Machine(home).card_room() == {"GPU-0": 20 * 10**9, "GPU-1": 20 * 10**9}


def test_an_old_card_has_no_fast_bf16(home: Home, card: SimpleNamespace) -> None:
    card.capability = (7, 5)
    assert not Machine(home).facts().bf16


def test_a_card_that_torch_cannot_use_does_not_count(
    home: Home, card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "torch_version", lambda: "2.13.0+cpu")
    found = Machine(home)
    assert found.cards()
    assert found.facts().gpu is None
    assert "without a graphics card" in found.facts().words


@pytest.mark.parametrize(("chosen", "name"), [("1", "Card 1"), ("", None), ("-1", None), ("7", None)])
def test_only_the_cards_left_visible_count(
    home: Home, card: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, chosen: str, name: str | None
) -> None:
    card.count = 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    gpu = Machine(home).facts().gpu
    assert (gpu.name if gpu else None) == name


def test_without_a_driver_there_is_no_card(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert Machine(home).facts().gpu is None
    assert Machine(home).live().gpu_share is None


def test_a_container_s_limits_are_the_machine(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    for name, text in {"memory.max": "1000000000", "memory.current": "400000000", "cpu.max": "100000 100000"}.items():
        (tmp_path / name).write_text(text + "\n")
    facts = Machine(home).facts()
    assert (facts.memory_bytes, facts.memory_free_bytes, facts.cores) == (10**9, 6 * 10**8, 1)
    (tmp_path / "memory.max").write_text("max\n")
    assert Machine(home).facts().memory_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("flags", "fast"), [("fpu avx2 avx512f", False), ("fpu avx512_bf16", True), ("amx_bf16 amx_tile", True)]
)
def test_fast_bf16_is_read_from_the_processor_s_flags(
    home: Home, monkeypatch: pytest.MonkeyPatch, flags: str, fast: bool
) -> None:
    monkeypatch.setattr(machine, "processor", lambda: ("Some processor", set(flags.split())))
    monkeypatch.setattr(Machine, "cards", lambda self: [])
    assert Machine(home).facts().bf16 is fast


@given(BYTES, BYTES)
def test_more_room_never_means_a_smaller_model(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert machine.step(small) <= machine.step(large)
    assert machine.step(large) <= max(large, SIZES[0] * 1e9)


def test_the_limit_is_told_in_words() -> None:
    def gpu(memory: int) -> Any:
        return Gpu(name="", memory_bytes=memory, memory_free_bytes=0, bf16=True)

    assert machine.words(None, 24 * 10**9, 2, False) == "up to 500\u202fM · slow without a graphics card"
    assert machine.words(gpu(12 * 10**9), 0, 8, True) == "up to 4.0\u202fB, up to 8.0\u202fB in 4 bits"
