"""Versions over time and beside one another: notes, tags, archive, rule, the way back, comparison."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from studio.domain import words
from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.errors import StudioError
from studio.domain.metrics import lines
from studio.domain.records import Adapter
from studio.services import about, policy
from studio.services.adapters import Adapters
from studio.services.compare import Row, measured_row, of_settings

OTHER_ROWS = "They were measured on different rows, so losses and answers say little about which is better."


class Comparison(BaseModel):
    """Two versions side by side; every row has its values in the order of `versions`."""

    versions: list[str]
    results: list[Row]
    settings: list[Row]
    notes: list[str]


class Versions:
    """What is done with versions that exist."""

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters

    def describe(self, ref: str, note: str | None = None, tags: Sequence[str] | None = None) -> Adapter:
        """Keep a note and tags with a version; what is None stays as it was."""
        values = {"note": note, "tags": None if tags is None else list(tags)}
        return self._write(ref, **{key: value for key, value in values.items() if value is not None})

    def archive(self, ref: str) -> Adapter:
        """Hide a version from the lists. It stays on the disk, and can be named and brought back."""
        with self.adapters.store.exclusive():
            adapter = self.adapters.kept(ref)
            if adapter.active:
                raise StudioError(f"{adapter.ref} is the active version.", "Make another one active first.")
            return self._write(ref, archived=True)

    def restore(self, ref: str) -> Adapter:
        """Bring an archived version back."""
        return self._write(ref, archived=False)

    def rule(self, name: str) -> float | None:
        """Return the points of the general score a new version of a name may lose; None for no rule."""
        return policy.read(self._folder(name)).most_lost

    def set_rule(self, name: str, most_lost: float | None) -> None:
        """Set or end the rule. It decides about versions made from now on."""
        try:
            with self.adapters.store.exclusive():
                policy.write(self._folder(name), most_lost=most_lost)
        except ValidationError as error:
            raise StudioError(f"{most_lost:g} points cannot be the rule.", "Say 0 to 100, as 1.") from error

    def before(self, name: str) -> int | None:
        """Return the version that was active before the one now, if it can still be."""
        known = {each.version for each in self.adapters.list(name)}
        found = policy.read(self._folder(name)).before
        return found if found in known else None

    def rollback(self, name: str) -> Adapter:
        """Make the version active that was so before; a second time leads back again."""
        with self.adapters.store.exclusive():
            before = self.before(name)
            if before is None:
                raise StudioError(
                    f"{name} has no version to go back to.", "`peft-studio adapters activate NAME@vN` chooses one."
                )
            return self.adapters.activate(f"{name}@v{before}")

    def compare(self, one: str, other: str) -> Comparison:
        """Set two versions beside one another: what was measured of each, and which settings differ."""
        sides = [self.adapters.get(one), self.adapters.get(other)]
        if sides[0].path == sides[1].path:
            raise StudioError(f"{sides[0].ref} is the same as itself.", "Name two versions.")
        same = len({side.lineage.get("dataset_sha256") for side in sides}) == 1
        known = [config for side in sides if (config := _config(side))]
        return Comparison(
            versions=[side.ref for side in sides],
            results=list(_results(sides, same)),
            settings=[row for row in of_settings(known) if len(set(row.words)) > 1] if len(known) == 2 else [],
            notes=[] if same else [OTHER_ROWS],
        )

    def _folder(self, name: str) -> Path:
        return Path(self.adapters.kept(name).path).parent

    def _write(self, ref: str, **values: Any) -> Adapter:
        with self.adapters.store.exclusive():
            adapter = self.adapters.kept(ref)
            about.write(Path(adapter.path), **values)
        return self.adapters.get(adapter.ref)


def _config(adapter: Adapter) -> TrainingConfig | None:
    """Return the settings a version was trained with; None where it was made elsewhere."""
    try:
        return from_document(yaml.safe_load((Path(adapter.path) / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, StudioError):
        return None


def _results(sides: Sequence[Adapter], same: bool) -> Iterable[Row]:
    yield Row(
        name="Verdict",
        values=[side.metrics.get("verdict") for side in sides],
        words=[str(side.metrics.get("verdict", "")).partition(":")[0] for side in sides],
    )
    measured = [{line.key: line for line in lines(side.metrics)} for side in sides]
    for key, line in {key: line for side in measured for key, line in side.items()}.items():
        better = (max if line.metric.share else min) if same or key in ("score", "accuracy") else None
        values = [side[key].adapter if key in side else None for side in measured]
        yield measured_row(line.metric.name, values, line.metric.value, better)
    yield measured_row("Size", [side.bytes for side in sides], words.size)
    yield measured_row("Made", [side.created or None for side in sides], words.when)
