"""Which new version becomes active: a better one, that did not forget more than the user's rule for its name allows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from studio.domain.words import signed
from studio.storage.paths import write_atomic

FILE = "policy.json"


class Policy(BaseModel):
    """What is kept of a name. `most_lost`: points of the general score a new version may lose against its base and
    still become active by itself; None for no such rule. `before`: the version that was active before the one now.
    """

    most_lost: float | None = Field(default=None, ge=0, le=100)
    before: int | None = None


def read(folder: Path) -> Policy:
    """Return the policy of the name whose versions lie in a folder."""
    try:
        return Policy.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return Policy()


def write(folder: Path, **values: Any) -> Policy:
    """Change some of it."""
    changed = Policy.model_validate(read(folder).model_dump() | values)
    write_atomic(folder / FILE, json.dumps(changed.model_dump()))
    return changed


def forget(folder: Path) -> None:
    """Drop it, with the last version of the name."""
    (folder / FILE).unlink(missing_ok=True)


def refusal(metrics: Mapping[str, Any], most_lost: float | None) -> str:
    """Return why a new version should not become active by itself; empty if it may."""
    if not str(metrics.get("verdict", "")).startswith("Better"):
        return "It is not better than the base."
    if most_lost is None:
        return ""
    score = ((metrics.get("general") or {}).get("difference") or {}).get("score")
    if score is None:
        return f"It was not measured on general texts, and may lose {most_lost:g} points there."
    lost = 100 * score["mean"]
    return f"General texts {signed(lost, 1)} points; {most_lost:g} may be lost." if lost < -most_lost else ""
