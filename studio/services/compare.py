"""Runs side by side: what differs in their settings, how their results differ, and which is best in what."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from studio.domain import words
from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.errors import StudioError
from studio.domain.methods import METHODS
from studio.domain.metrics import METRICS
from studio.domain.records import Run, Status
from studio.services.curve import Curve, Point
from studio.services.past import quoted
from studio.services.runs import Runs

FEWEST, MOST = 2, 5  # runs side by side
ALIKE = 0.01  # share by which two amounts of tokens may differ and still be the same
ELSEWHERE = {"name", "model.id", "data.path", "data.map", "data.format"}  # in rows of their own, by what they stood for
ROWS_DIFFER = "They were tested on different rows, so losses and answers say little about which is better."
BASES_DIFFER = "Their base models cut text into different tokens, so their losses cannot be compared; answers can."
MACHINES_DIFFER = (
    "They ran on different hardware: time, speed and memory tell as much about that as about the settings. "
    "The curves and the loss after equal tokens can be compared."
)


class Row(BaseModel):
    """One line of a comparison, a value for each run; None where it is not known.

    `words` are the values as they are shown. `best` are the places of the best ones: none where neither way is better,
    where the values cannot be compared, or where all are the same.
    """

    name: str
    values: list[Any]
    words: list[str]
    best: list[int] = []


class Comparison(BaseModel):
    """Two to five runs side by side; every row has its values in the order of `runs`."""

    runs: list[str]
    settings: list[Row]
    results: list[Row]
    notes: list[str]


@dataclass(frozen=True)
class Side:
    """All that a comparison needs of one run; `dataset` is the id of its data set.

    Losses stand over the tokens learned from: those of every step alike, which is what shuffled examples come to.
    """

    run: Run
    config: TrainingConfig
    dataset: str
    curve: Curve

    @property
    def trained(self) -> list[Point]:
        """Training loss, thinned in a long run."""
        return self._over_tokens(self.curve.losses.means)

    @property
    def held(self) -> list[Point]:
        """Held-out loss, the base model's first."""
        return self._over_tokens(sorted(self.curve.checks.items()))

    @property
    def device(self) -> str:
        return self.curve.started.device if self.curve.started else ""

    @property
    def passes(self) -> float:
        """How often it went over its data; 0 where that is not known."""
        return self.run.tokens / self.curve.started.tokens_per_epoch if self.curve.started else 0.0

    def _over_tokens(self, points: Iterable[Point]) -> list[Point]:
        each = self.run.tokens / max(self.run.step, 1)
        return [(step * each, loss) for step, loss in points]


def load(runs: Runs, ids: Sequence[str]) -> list[Side]:
    """Read the runs to compare, in the order given."""
    chosen = list(dict.fromkeys(ids))
    if not FEWEST <= len(chosen) <= MOST:
        raise StudioError(f"{len(chosen)} cannot be compared.", "Name two to five different runs.")
    return [_side(runs, id) for id in chosen]


def _side(runs: Runs, id: str) -> Side:
    run = runs.get(id)
    curve = Curve()
    curve.read(Path(run.path) / "events.jsonl")
    while curve.behind:
        curve.read(Path(run.path) / "events.jsonl")
    return Side(run, *settings(run), curve)


def settings(run: Run) -> tuple[TrainingConfig, str]:
    """Return what a run was started with, and the id of its data set."""
    folder = Path(run.path)
    try:
        config = from_document(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        dataset = str(json.loads((folder / "lineage.json").read_text(encoding="utf-8"))["dataset"]["id"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise StudioError(f"The settings of {words.run_title(run.id)} cannot be read.", str(folder)) from error
    return config, dataset


def compare(sides: Sequence[Side]) -> Comparison:
    """Say what differs between the runs."""
    same_rows = len({side.dataset for side in sides}) == 1
    same_base = len({side.run.model for side in sides}) == 1
    same_machine = len({side.device for side in sides if side.device}) < 2
    notes = [
        said
        for said, alike in ((ROWS_DIFFER, same_rows), (BASES_DIFFER, same_base), (MACHINES_DIFFER, same_machine))
        if not alike
    ]
    return Comparison(
        runs=[side.run.id for side in sides],
        settings=[row for row in _settings(sides) if len(set(row.words)) > 1],
        results=[row for row in _results(sides, same_rows, same_base) if any(row.words)],
        notes=notes,
    )


def _settings(sides: Sequence[Side]) -> Iterable[Row]:
    named = [side.run.dataset for side in sides]
    data = [side.dataset for side in sides]
    models = [side.run.model for side in sides]
    yield Row(name="Base model", values=models, words=[words.model_name(model) for model in models])
    # two data sets may have one name
    yield Row(name="Data", values=data, words=data if len(set(named)) < len(set(data)) else named)
    yield Row(name="Ran on", values=[side.device or None for side in sides], words=[side.device for side in sides])
    yield from of_settings([side.config for side in sides])


def of_settings(configs: Sequence[TrainingConfig]) -> Iterable[Row]:
    """Yield a row for each setting, with its value in each configuration."""
    for key, title in _titles():
        group, name = key.split(".")
        values = [getattr(getattr(config, group), name) for config in configs]
        yield Row(name=title, values=values, words=[in_words(key, value) for value in values])


def _titles() -> Iterable[tuple[str, str]]:
    """Yield the key of every setting with what it is called, in the order of the document."""
    for group, its in TrainingConfig.model_fields.items():
        if isinstance(its.annotation, type) and issubclass(its.annotation, BaseModel):
            for name, field in its.annotation.model_fields.items():
                if f"{group}.{name}" not in ELSEWHERE:
                    yield f"{group}.{name}", field.title or name


def in_words(key: str, value: Any) -> str:
    """Return a setting's value as it is shown."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return words.rate(value) if key == "train.learning_rate" else f"{value:g}"
        case int():
            return f"{value:,}" if key != "train.seed" else str(value)
        case list():
            return ", ".join(value) or "none"
        case dict():
            return ", ".join(f"{name} = {column}" for name, column in value.items()) or "none"
        case "auto":
            return "automatic"
        case _:
            text = METHODS[value].title if key == "method.name" else str(value)
            return text[:7] if key == "model.revision" else text


def _results(sides: Sequence[Side], same_rows: bool, same_base: bool) -> Iterable[Row]:
    runs = [side.run for side in sides]
    checks = [[loss for tokens, loss in side.held if tokens] for side in sides]
    loss: Callable[[float], str] = "{:.3f}".format
    lower = min if same_rows and same_base else None
    states = [run.status for run in runs]
    yield Row(name="State", values=states, words=[state.capitalize() for state in states])
    yield measured_row("Held-out loss, lowest", [min(each, default=None) for each in checks], loss, lower)
    yield measured_row("Held-out loss, last", [each[-1] if each else None for each in checks], loss, lower)
    if (tokens := _shared(sides)) is not None:
        there = [value_at(side.held, tokens) for side in sides]
        yield measured_row(f"Held-out loss after {words.short(tokens)} tokens", there, loss, lower)
    for key in ("exact_match", "token_f1"):
        measured = [((run.result.get("eval") or {}).get("adapter") or {}).get(key) for run in runs]
        yield measured_row(METRICS[key].name, measured, METRICS[key].value, max if same_rows else None)
    yield measured_row("Training loss, last", [run.loss for run in runs], loss)
    yield measured_row("Steps", [run.step or None for run in runs], words.count)
    seen = [run.result.get("real_tokens") or run.tokens or None for run in runs]
    yield measured_row("Tokens learned from", seen, words.short)
    seconds = [run.result.get("train_seconds") or (run.seconds if run.step else None) for run in runs]
    whole = min if set(states) == {Status.FINISHED} else None  # a run that ended early is not a fast one
    yield measured_row("Training time", seconds, words.duration, whole)
    quotes = [quoted(run.path, run.created) for run in runs]
    spent = [quote.spent(run.seconds) if quote else None for quote, run in zip(quotes, runs, strict=True)]
    yield measured_row("Electricity", [each and each.energy_kwh for each in spent], "{:.2g} kWh".format, whole)
    if len(paid := {quote.currency for quote in quotes if quote and quote.cost is not None}) == 1:
        currency, costs = paid.pop(), [each and each.cost for each in spent]
        yield measured_row("Cost", costs, partial(words.price, currency=currency), whole)
        finely = partial(_finely, currency=currency)
        passes = [side.passes for side in sides]
        points = [(run.result.get("closing") or {}).get("score") or 0 for run in runs]
        yield measured_row("Cost of a pass over the data", list(map(_per, costs, passes)), finely, min)
        yield measured_row("Cost of a point of the score", list(map(_per, costs, points)), finely, lower)
    speed = [run.result.get("tokens_per_second") or run.tokens_per_second for run in runs]
    yield measured_row("Tokens a second", speed, words.count, max)
    memory = [run.result.get("peak_memory_bytes") or run.memory_bytes for run in runs]
    yield measured_row("Memory, highest", memory, words.size, min)


def _finely(cost: float, currency: str) -> str:
    """Two digits of a small cost, which are to be told apart: 0.000012 EUR."""
    return f"{Decimal(f'{cost:.2g}'):f} {currency}"


def _per(cost: float | None, amount: float) -> float | None:
    return cost / amount if cost is not None and amount > 0 else None


def measured_row(
    name: str,
    values: list[Any],
    say: Callable[[Any], str],
    better: Callable[[Iterable[Any]], Any] | None = None,
) -> Row:
    """Make a row; `better` is min or max where one way is better."""
    said = ["" if value is None else say(value) for value in values]
    known = [value for value in values if value is not None and value == value]
    best = []
    if better and len(known) > 1 and len(set(filter(None, said))) > 1:  # what reads the same is the same
        first = said[values.index(better(known))]
        best = [place for place, text in enumerate(said) if text == first]
    return Row(name=name, values=values, words=said, best=best)


def _shared(sides: Sequence[Side]) -> float | None:
    """Return the tokens up to which every run was tested, unless they all end there."""
    ends = [side.held[-1][0] if side.held else 0 for side in sides]
    return min(ends) if min(ends) and max(ends) > min(ends) * (1 + ALIKE) else None


def value_at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """Return the value at x on the line through the points; None before the first or after the last."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1
    return None
