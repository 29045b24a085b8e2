"""What a run's electricity costs: the power of what it runs on, and the price the user was asked for once."""

import logging
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from studio.domain.errors import StudioError
from studio.domain.quote import Quote
from studio.services.machine import Machine
from studio.storage.paths import Home, write_atomic

log = logging.getLogger(__name__)
JOULES = 3.6e6  # a kWh


class PowerSettings(BaseModel):
    """What the user was asked: the price of a kWh, and what the machine takes while it trains, in watts."""

    price: Annotated[float, Field(gt=0, le=100)] | None = None
    currency: Annotated[str, Field(max_length=8)] = ""
    watts: Annotated[float, Field(gt=0, le=100_000)] | None = None


class Power:
    """Reckons energy and cost; unknown stays unknown."""

    def __init__(self, home: Home, machine: Machine) -> None:
        self.machine, self.file = machine, home.root / "power.json"

    @property
    def settings(self) -> PowerSettings:
        try:
            return PowerSettings.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.warning("%s is not used: %s", self.file, type(error).__name__)
        return PowerSettings()

    def change(self, **values: Any) -> PowerSettings:
        """Change some of the settings."""
        try:
            changed = PowerSettings.model_validate(self.settings.model_dump() | values)
        except ValidationError as error:
            field = error.errors()[0]
            raise StudioError(f"{field['loc'][0]} cannot be {field['input']!r}.", field["msg"]) from error
        write_atomic(self.file, changed.model_dump_json(indent=1))
        return changed

    def watts(self, on_card: bool) -> float | None:
        """Return what training takes: as the user says, else the limit of the card."""
        if self.settings.watts or not on_card:
            return self.settings.watts
        import pynvml

        for card in self.machine.cards()[:1]:
            with suppress(pynvml.NVMLError):  # some do not tell
                return float(pynvml.nvmlDeviceGetEnforcedPowerLimit(card)) / 1000
        return None

    def priced(self, quote: Quote) -> Quote:
        """Return the quote with energy and cost, as far as they are known."""
        chosen, watts = self.settings, self.watts(quote.device != "processor")
        energy = watts * quote.seconds / JOULES if watts else None
        cost = energy * chosen.price if energy and chosen.price else None
        return quote.model_copy(update={"energy_kwh": energy, "cost": cost, "currency": chosen.currency})
