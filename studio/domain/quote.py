"""What a run will need: memory, time and cost before it starts, and the changes that would make it fit."""

from typing import Any, Literal

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
    """Memory in bytes, time in seconds, energy in kWh. `low` and `high` bound the time, `parts` add up to the peak."""

    peak_memory_bytes: int
    room_bytes: int  # what a run may use here
    fits: bool
    margin_bytes: int  # the peak may be this much higher or lower
    seconds: float
    low: float
    high: float
    steps: int
    tokens: int
    disk_bytes: int
    parts: dict[str, int]
    memory_basis: Basis = "rough"
    time_basis: Basis = "rough"
    energy_kwh: float | None = None  # None where the power is not known
    cost: float | None = None  # None until a price is set
    currency: str = ""
    ladder: list[Rung] = []
