"""Every part of this machine and what it allows, in plain words; and the machine as if it had another card."""

import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from studio.domain.cards import Card
from studio.domain.words import plural, size
from studio.services.machine import BF16_FLAGS, Gpu, Machine, MachineFacts, processor, torch_version, words

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")  # worth telling
BF16_FROM, FP8_FROM = (8, 0), (8, 9)  # compute capability


class Part(BaseModel):
    """One part. `has` are its figures, bytes and counts; `words` says what it is, `allows` what can be done with it."""

    part: str
    words: str
    allows: str
    has: dict[str, Any]


def parts(machine: Machine) -> list[Part]:
    """Return every part of the machine."""
    facts = machine.facts()
    return [*_cards(machine, facts), _processor(facts), _memory(facts), _disk(facts)]


def as_if(facts: MachineFacts, card: Card) -> MachineFacts:
    """Return the machine as if it had this card, with nothing on it."""
    gpu = Gpu(name=card.name, memory_bytes=card.memory_bytes, memory_free_bytes=card.memory_bytes, bf16=card.bf16)
    told = words(gpu, facts.memory_bytes, facts.cores, card.bf16)
    return facts.model_copy(update={"gpu": gpu, "bf16": card.bf16, "words": told})


def _cards(machine: Machine, facts: MachineFacts) -> Iterator[Part]:
    import pynvml

    number = 0
    for handle in machine.cards():
        with suppress(pynvml.NVMLError):  # it fell off the bus
            number += 1
            yield _nvidia(number, handle, bool(facts.gpu))
    if sys.platform == "darwin" and platform.machine() == "arm64":
        yield Part(
            part="graphics card",
            words=f"Apple {facts.processor}, which shares the memory of the machine.",
            allows="Training runs on the processor here.",
            has={"name": facts.processor, "memory_bytes": facts.memory_bytes},
        )
    elif not number:
        yield Part(
            part="graphics card",
            words="None that a driver shows.",
            allows="Training runs on the processor: right for small models, slow for large ones.",
            has={},
        )


def _nvidia(number: int, handle: Any, usable: bool) -> Part:
    import pynvml

    held = pynvml.nvmlDeviceGetMemoryInfo(handle)
    capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    name, driver = str(pynvml.nvmlDeviceGetName(handle)), str(pynvml.nvmlSystemGetDriverVersion())
    bf16, fp8 = capability >= BF16_FROM, capability >= FP8_FROM
    able = "bf16, half the memory of fp32" if bf16 else "fp32 alone: it has no bf16"
    gpu = Gpu(name=name, memory_bytes=held.total, memory_free_bytes=held.free, bf16=bf16)
    reach = words(gpu, 0, 1, bf16)
    build = "" if usable else f" Not used: torch {torch_version()} was built without CUDA."
    return Part(
        part=f"graphics card {number}",
        words=f"{name}, {size(held.free)} of {size(held.total)} free, compute capability "
        f"{'.'.join(map(str, capability))}, driver {driver}.",
        allows=f"Trains models {reach}, in {able}{' (fp8 is there too)' if fp8 else ''}.{build}",
        has={
            "name": name,
            "memory_bytes": int(held.total),
            "memory_free_bytes": int(held.free),
            "compute_capability": ".".join(map(str, capability)),
            "driver": driver,
            "bf16": bf16,
            "fp8": fp8,
            "usable": usable,
        },
    )


def _processor(facts: MachineFacts) -> Part:
    name, flags = processor()
    told = [flag for flag in FLAGS if flag in flags]
    fast = bool(flags & BF16_FLAGS)
    able = "It is fast with bf16, too." if fast else "It has no fast bf16, so the engine tries which is faster."
    reach = words(None, facts.memory_bytes, facts.cores, fast)
    return Part(
        part="processor",
        words=f"{name}, {plural(facts.cores, 'core')}{', with ' + ', '.join(told) if told else ''}.",
        allows=f"Alone it trains models {reach.split(' · ')[0]}. {able}",
        has={"name": name, "cores": facts.cores, "features": told, "bf16": fast},
    )


def _memory(facts: MachineFacts) -> Part:
    return Part(
        part="memory",
        words=f"{size(facts.memory_free_bytes)} of {size(facts.memory_bytes)} are free.",
        allows="A model is loaded through it, and lies in it where there is no graphics card.",
        has={"memory_bytes": facts.memory_bytes, "memory_free_bytes": facts.memory_free_bytes},
    )


def _disk(facts: MachineFacts) -> Part:
    return Part(
        part="disk",
        words=f"{size(facts.disk_free_bytes)} are free at the home folder.",
        allows="A small model takes 0.3 GB, one of 8 B 16 GB; a run with its checkpoints seldom over 1 GB.",
        has={"disk_free_bytes": facts.disk_free_bytes},
    )
