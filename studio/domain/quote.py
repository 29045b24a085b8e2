"""What a run will need: memory, time and cost before it starts, and the changes that would make it fit."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

Basis = Literal["rough", "calculated", "measured"]  # closed form; the traced step; a real step on this machine


class Rung(BaseModel):
    """One change of settings that makes a run smaller, with what it would need then."""

    words: str
    effect: str  # on speed and on how well it learns
    edit: dict[str, Any]  # settings key → value, as `document.with_edit` takes it
    peak_memory_bytes: int
    seconds: float
    fits: bool
    recommended: bool = False


class Quote(BaseModel):
    """Memory in bytes, time in seconds. `low` and `high` bound the time, `breakdown` adds up to the peak."""

    peak_memory_bytes: int
    room_bytes: int  # what a run may use here
    fits: bool
    margin_bytes: int  # the peak may be this much higher or lower
    seconds: float  # from the start to the finished adapter
    low: float
    high: float
    train_seconds: float  # of them, in the steps themselves
    load_seconds: float  # of them, to start and to load the model
    steps: int
    tokens: int  # of all steps together
    disk_bytes: int
    recomputed_layers: int
    breakdown: dict[str, int]
    memory_basis: Basis = "rough"
    time_basis: Basis = "rough"
    device: str  # the card's name, or processor
    parameters: int  # of the base
    quantization: str
    uncorrected_bytes: int  # the peak before earlier runs corrected it
    energy_kwh: float | None = None  # None where the power is not known
    cost: float | None = None  # None until a price is set
    currency: str = ""
    work: float  # floating-point operations of all steps
    ladder: list[Rung] = []

    def spent(self, seconds: float) -> "Spent":
        """Return what a run that took so long has used, as far as it is known."""
        share = seconds / self.seconds if self.seconds else 0.0
        return Spent(*(value * share if value is not None else None for value in (self.energy_kwh, self.cost)))


class Spent(NamedTuple):
    """Electricity of a run, in kWh and in money."""

    energy_kwh: float | None
    cost: float | None
