"""What this machine has: processor, memory, disk, graphics card, and how large a model it can train."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from studio.domain.words import short
from studio.storage.paths import Home

# Flags of processors that are fast with bf16: x86 with AVX-512 or AMX, ARM.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
SIZES = (0.1, 0.3, 0.5, 1, 2, 4, 8, 14, 32, 70, 120)  # billions of parameters: the steps in which a limit is told
RESERVE = 2e9  # bytes kept for the system, the engine's libraries and the activations
BYTES_FP32, BYTES_BF16, BYTES_INT8, BYTES_NF4 = (
    5.0,
    2.5,
    1.4,
    0.9,
)  # for one parameter of the frozen base, overhead included
# A processor holds more than anyone would wait for: billions of parameters a core.
PATIENCE_FP32, PATIENCE_BF16 = 0.25, 0.75
CGROUP = Path("/sys/fs/cgroup")


class Gpu(BaseModel):
    """The graphics card that training uses."""

    name: str
    memory_bytes: int
    memory_free_bytes: int
    bf16: bool


class MachineFacts(BaseModel):
    """What this machine has. `cores` and `memory_bytes` are what this process may use, limits of containers counted."""

    processor: str
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    gpu: Gpu | None = None
    bf16: bool
    words: str


class Live(BaseModel):
    """The numbers that change from moment to moment; shares are 0 to 1."""

    processor_share: float
    memory_used_bytes: int
    memory_free_bytes: int
    gpu_share: float | None = None
    gpu_used_bytes: int | None = None
    gpu_free_bytes: int | None = None


class Machine:
    """Looks at the hardware, without torch."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._cards: list[Any] | None = None  # NVML handles; asked for once, the driver's start takes a moment

    def facts(self) -> MachineFacts:
        """Return what this machine has."""
        name, flags = processor()
        total, free = memory()
        gpu = self._gpu()
        bf16 = gpu.bf16 if gpu else bool(flags & BF16_FLAGS)
        return MachineFacts(
            processor=name,
            cores=cores(),
            memory_bytes=total,
            memory_free_bytes=free,
            disk_free_bytes=psutil.disk_usage(str(_existing(self.home.root))).free,
            gpu=gpu,
            bf16=bf16,
            words=words(gpu, total, cores(), bf16),
        )

    def live(self) -> Live:
        """Return the cheap numbers for the page."""
        total, free = memory()
        live = Live(processor_share=psutil.cpu_percent() / 100, memory_used_bytes=total - free, memory_free_bytes=free)
        if self._gpu():
            import pynvml

            handle = self.cards()[0]
            with suppress(pynvml.NVMLError):  # a slice of a card does not tell its load
                held = pynvml.nvmlDeviceGetMemoryInfo(handle)
                live.gpu_used_bytes, live.gpu_free_bytes = int(held.used), int(held.free)
                live.gpu_share = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return live

    def cards(self) -> list[Any]:
        """Return the NVIDIA cards the driver shows to this process, whether torch can use them or not."""
        if self._cards is None:
            import pynvml

            try:
                pynvml.nvmlInit()
                indexes: list[Any] = list(range(pynvml.nvmlDeviceGetCount()))
                if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
                    indexes = [int(i) for i in chosen.split(",") if i.strip().isdigit() and int(i) in indexes]
                self._cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in indexes]
            except pynvml.NVMLError:  # no card, or no driver
                self._cards = []
        return self._cards

    def card_room(self) -> dict[str, int]:
        """Return the free bytes of each card, by the name that CUDA_VISIBLE_DEVICES takes."""
        import pynvml

        room = {}
        for card in self.cards():
            with suppress(pynvml.NVMLError):  # it fell off the bus
                room[str(pynvml.nvmlDeviceGetUUID(card))] = int(pynvml.nvmlDeviceGetMemoryInfo(card).free)
        return room

    def _gpu(self) -> Gpu | None:
        if not self.cards() or torch_version().endswith("+cpu"):
            return None
        import pynvml

        handle = self.cards()[0]
        try:
            held = pynvml.nvmlDeviceGetMemoryInfo(handle)
            capability, _ = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            name = str(pynvml.nvmlDeviceGetName(handle))
        except pynvml.NVMLError:  # the card fell off the bus, or the driver was replaced
            return None
        # bf16 arithmetic came with compute capability 8
        return Gpu(name=name, memory_bytes=held.total, memory_free_bytes=held.free, bf16=capability >= 8)


def torch_version() -> str:
    """Return the installed torch's version, without importing it; it ends in `+cpu` in the build without CUDA."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def words(gpu: Gpu | None, memory_bytes: int, cores: int, bf16: bool) -> str:
    """Say how large a model can be trained here."""
    if gpu:
        plain = step((gpu.memory_bytes - RESERVE) / BYTES_BF16)
        small = step((gpu.memory_bytes - RESERVE) / BYTES_NF4)
        return f"up to {short(plain)}, up to {short(small)} in 4 bits" if small > plain else f"up to {short(plain)}"
    room = (memory_bytes - RESERVE) / (BYTES_BF16 if bf16 else BYTES_FP32)
    patience = cores * (PATIENCE_BF16 if bf16 else PATIENCE_FP32) * 1e9
    return f"up to {short(step(min(room, patience)))} · slow without a graphics card"


def step(parameters: float) -> float:
    """Return the largest usual model size that is not above this many parameters."""
    return max((size * 1e9 for size in SIZES if size * 1e9 <= parameters), default=SIZES[0] * 1e9)


def processor() -> tuple[str, set[str]]:
    """Return the processor's name and its flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine(), set()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags") or facts.get("Features", "")
    return facts.get("model name") or platform.machine(), set(flags.split())


def cores() -> int:
    """Return how many cores this process may use: fewer than the machine has, in a container."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else None
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    limit = min(physical, allowed or physical)
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return max(1, min(limit, round(int(quota) / int(period)))) if quota.isdigit() and period.isdigit() else limit


def memory() -> tuple[int, int]:
    """Return the memory this process may use and how much of it is free, in bytes."""
    whole = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if not (limit.isdigit() and used.isdigit()) or int(limit) >= whole.total:
        return whole.total, whole.available
    return int(limit), max(0, min(int(limit) - int(used), whole.available))


def _cgroup(name: str) -> str:
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:  # no container, or not Linux
        return ""


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
