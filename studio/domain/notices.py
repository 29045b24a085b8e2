"""What the user wants to be told of, how, and when not; and one thing that is told."""

import re
from datetime import time
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

WHOLE = 100  # percent


class NotifySettings(BaseModel):
    """Which events are told, and on which ways. Nothing leaves the page until a way is switched on.

    Quiet hours run from one clock time to another, over midnight too; both empty when there are none.
    """

    model_config = ConfigDict(extra="ignore")
    quarters: bool = True
    failed: bool = True
    paused: bool = True
    desktop: bool = False
    webhook: str = ""
    quiet_from: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^$")] = ""
    quiet_to: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^$")] = ""

    @field_validator("webhook")
    @classmethod
    def _address(cls, value: str) -> str:
        value = value.strip()
        found = urlsplit(value)  # a ValueError of its own when it is none
        if value and (found.scheme not in ("http", "https") or not found.hostname or re.search(r"\s", value)):
            raise ValueError("an address begins with https:// or http://")
        return value

    def wants(self, event: str) -> bool:
        """Whether this kind of event is told at all."""
        kinds = {"progress": self.quarters, "finished": self.quarters, "paused": self.paused}
        return kinds.get(event, self.failed)

    def quiet(self, now: time) -> bool:
        """Whether this clock time lies in the quiet hours."""
        if not self.quiet_from or not self.quiet_to or self.quiet_from == self.quiet_to:
            return False
        start, end = time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_to)
        return start <= now < end if start < end else now >= start or now < end


class Notice(BaseModel):
    """One thing to tell; it holds no data, no prompt and no message of the engine. `key` tells it from the others."""

    key: str
    run: str
    event: Literal["progress", "finished", "failed", "interrupted", "paused", "test"]
    percent: int
    words: str
