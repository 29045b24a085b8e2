"""What the machine can take at this moment beside the runs at work."""

import json
import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import yaml

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.records import Run
from studio.domain.shape import Shape
from studio.domain.words import duration, run_title, size
from studio.services.footprint import Load, footprint
from studio.services.machine import Machine, MachineFacts
from studio.services.past import quoted
from studio.services.place import place_of
from studio.services.progress import YAML

CORES = 4  # for each engine on the processor, where there are several


class Room:
    """Room for one more engine: on a card nobody trains on, or on the processor."""

    def __init__(self, machine: Machine, working: Sequence[Run]) -> None:
        self.machine, self.working = machine, working

    @cached_property
    def facts(self) -> MachineFacts:
        return self.machine.facts()

    @cached_property
    def cards(self) -> dict[str, int]:
        """The free bytes of each card, by its name for CUDA."""
        return self.machine.card_room() if self.facts.gpu else {}

    @property
    def engines(self) -> int:
        """How many engines may be at work on the processor at once."""
        return max(1, self.facts.cores // CORES)

    @property
    def places(self) -> int:
        """How many runs with the usual settings may be at work at once."""
        return len(self.cards) or self.engines

    def on_card(self, run: Run) -> bool:
        return bool(self.cards) and _settled(run)[0].hardware.device != "cpu"

    def lacks(self, run: Run) -> str:
        """Say why a run cannot start now; nothing when it can."""
        on_card = self.on_card(run)
        working = [each for each in self.working if self.on_card(each) == on_card]
        if not working:
            return ""  # one always may: an estimate is no reason never to start
        card = self.free_card()
        if card is None if on_card else len(working) >= self.engines:
            return goes_first(soonest(working))
        # those that have just started have not taken yet what they need
        left = self.facts.memory_bytes - sum(need(each, self.facts.bf16) for each in working)
        free = self.cards[card] if on_card and card else max(0, min(self.facts.memory_free_bytes, left))
        needed = need(run, self.facts.bf16)
        return f"it needs about {size(needed)}, {size(free)} are free" if needed > free else ""

    def free_card(self) -> str | None:
        """Return a card nobody trains on. An engine that was not given one is on the first."""
        places = [place_of(run.path) for run in self.working if self.on_card(run)]
        taken = {place.card if place and place.card else next(iter(self.cards)) for place in places}
        return next((card for card in self.cards if card not in taken), None)


def need(run: Run, bf16: bool = True) -> int:
    """Return roughly the bytes a run takes at its peak: as it was quoted, else by its settings and its base's size."""
    if said := quoted(run.path, run.created):
        return said.peak_memory_bytes
    config, parameters = _settled(run)
    half = config.train.precision == "bf16" or (config.train.precision == "auto" and bf16)
    load = Load(longest=1, step=math.inf, half=half, card=False, cores=1, free=math.inf)
    return footprint(Shape.of({}, parameters), config, load).peak


def soonest(working: Sequence[Run]) -> Run:
    """Return the run that ends first, as far as that is known, else the oldest."""
    return min(working, key=lambda run: (run.seconds_left[1] if run.seconds_left else math.inf, run.created))


def goes_first(run: Run) -> str:
    left = f", about {duration(sum(run.seconds_left) / 2)}" if run.seconds_left else ""
    return f"{run_title(run.id)} goes first{left}"


def _settled(run: Run) -> tuple[TrainingConfig, int]:
    """Return a run's settings and its model's parameters."""
    path = Path(run.path)
    return _read(path, (path / "config.yaml").stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _read(path: Path, stamp: int) -> tuple[TrainingConfig, int]:
    config = from_document(yaml.load((path / "config.yaml").read_bytes(), YAML))
    return config, max(1, json.loads((path / "lineage.json").read_bytes())["model"]["parameters"])
