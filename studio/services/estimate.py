"""What a run will need, before it starts: memory, time, and the changes that would make it smaller."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.domain.cards import card
from studio.domain.config import TrainingConfig
from studio.domain.errors import NotFound
from studio.domain.events import Report, ignore
from studio.domain.quote import Quote, Rung
from studio.domain.records import Dataset, Model
from studio.domain.shape import Shape
from studio.services import besides, ladder, trial
from studio.services.besides import Held
from studio.services.datasets import Datasets
from studio.services.footprint import LAUNCH, Load, disk, footprint, in_flight, least_turn, shape_of
from studio.services.machine import Machine, MachineFacts
from studio.services.models import Models
from studio.services.past import Past, correction, free, past_of, slower_around
from studio.services.power import Power
from studio.services.prepare import Resolved
from studio.services.refine import refined
from studio.services.runs import Runs
from studio.storage.paths import Home

CONTEXT = 0.6e9  # bytes the driver takes of a card for a process
TEMPLATE = 30  # tokens a chat template adds to an example
TRAINED = 0.4  # share of an example's tokens that is usually trained
TRAINED_READ = 1_000_000  # tokens of an earlier run that are looked at to know it
ROUGH_MARGIN = 0.25  # of the peak
# The true time lies between the estimate divided and multiplied by it.
SAME, ALIKE, ROUGH = 1.2, 1.6, 3.0  # this model and method were trained here; another was; nothing was
FEW, ENOUGH = 2.0, 3  # a run may have shared the machine with other work; so many would show it
CORE_BF16, CORE_FP32 = 130e9, 60e9  # operations a second of a processor's core in training
CARD, USED = 60e12, 0.35  # operations a second of a card that is not in the table; the share training reaches
SLOWER = {"none": 1.0, "int8": 1.5, "nf4": 1.3}
START, READ = 8.0, 1e9  # seconds to start; bytes of a model read a second


@dataclass(frozen=True)
class Tokens:
    """How long the examples are, in tokens, and what share of them is trained."""

    mean: float
    p95: int
    longest: int
    answer: int  # the longest
    trained: float = TRAINED

    def at_most(self, rows: float) -> float:
        """The tokens of the largest of many steps of so many examples: four standard deviations above the mean one."""
        spread = max(0.0, self.p95 - self.mean) / 1.65
        return min(rows * self.longest, rows * self.mean + 4 * spread * math.sqrt(rows))


class Estimates:
    """Reckons from sizes, and from how the finished runs of this home folder went."""

    def __init__(
        self, home: Home, runs: Runs, models: Models, datasets: Datasets, machine: Machine, power: Power
    ) -> None:
        self.home, self.runs, self.models, self.datasets = home, runs, models, datasets
        self.machine, self.power = machine, power
        self._known: dict[str, Quote] = {}  # by settings: what an engine has found

    def quick(self, config: TrainingConfig, model: Model, dataset: Dataset, facts: MachineFacts) -> Quote:
        """Return what a run of resolved settings needs, with the ladder; in an instant, by closed forms."""
        tokens = self.tokens(config, model, dataset)
        past, room = self._past(), self._room(config, facts)

        def quote(config: TrainingConfig, model: Model) -> Quote:
            return _quote(config, model, dataset, facts, tokens, past, room)

        result = self.power.priced(quote(config, model))
        result.ladder = self._ladder(config, model, result, tokens, quote)
        return result

    def glance(self, configs: Iterable[TrainingConfig], model: Model, dataset: Dataset) -> Iterator[Quote]:
        """Yield what each of several settings needs here, without its ladder."""
        facts, past = self.machine.facts(), self._past()
        for config in configs:
            tokens, room = self.tokens(config, model, dataset), self._room(config, facts)
            yield _quote(config, model, dataset, facts, tokens, past, room)

    def of(self, resolved: Resolved, facts: MachineFacts | None = None) -> Quote:
        """Return the best that is known of a run without starting an engine; `facts` are of another machine."""
        known = None if facts else self._known.get(_key(resolved))
        return known or self.quick(resolved.config, resolved.model, resolved.dataset, facts or self.machine.facts())

    def thorough(self, resolved: Resolved, report: Report = ignore, measure: bool = False) -> Quote:
        """Return what an engine finds by tracing the largest step, or with `measure` by doing some steps."""
        rough = self.quick(resolved.config, resolved.model, resolved.dataset, self.machine.facts())
        found = trial.run(self.home, resolved, measure, report, self.runs.command)
        mine = [
            each
            for each in self._past()
            if each.key == key_of(resolved.config, resolved.model) and each.device == rough.device
        ]
        quote = self.power.priced(refined(rough, resolved, found, mine))
        if found.measured:
            trial.remember(self.home, _tried(rough, quote, resolved, found.measured))
        self._known[_key(resolved)] = quote
        return quote

    def _past(self) -> list[Past]:
        return past_of(self.runs.list()) + trial.remembered(self.home)

    def _ladder(
        self,
        config: TrainingConfig,
        model: Model,
        now: Quote,
        tokens: Tokens,
        quote: Callable[[TrainingConfig, Model], Quote],
    ) -> list[Rung]:
        smaller = [each for each in self.models.list() if each.parameters < model.parameters]
        return ladder.rungs(config, model, now, tokens.p95, tokens.longest, smaller, quote)

    def tokens(self, config: TrainingConfig, model: Model, dataset: Dataset) -> Tokens:
        """Return the lengths as an earlier run has counted them, else from the characters, cut at the limit."""
        limit = config.data.max_length if config.data.max_length != "auto" else model.context or math.inf
        kept = [each for each in Path(dataset.path).glob("tokens/train-*/lengths") if each.stat().st_size]
        if kept:
            newest = max(kept, key=lambda file: file.stat().st_mtime)
            lengths = np.fromfile(newest, np.int32)
            mean, p95, longest = float(lengths.mean()), int(np.quantile(lengths, 0.95)), int(lengths.max())
            some = np.fromfile(newest.with_name("trained"), np.bool_, TRAINED_READ)
            starts = np.cumsum(lengths) - lengths
            answer = int(np.add.reduceat(some, starts[starts < len(some)], dtype=np.int64).max())
            trained = float(some.mean())
        else:
            seen = self.datasets.profile(dataset.id)
            more = 0 if dataset.kind == "text" else TEMPLATE
            of = seen.characters
            mean, p95, longest = (round(each / of.a_token) + more for each in (of.mean, of.p95, of.longest))
            known = seen.answers.total > 0  # it was not counted in data sets of earlier releases
            trained = seen.answers.mean / of.a_token / mean if known else TRAINED
            answer = round(seen.answers.longest / of.a_token) if known else round(TRAINED * longest)
        if dataset.kind == "text":  # cut into pieces
            mean, trained = min(mean, limit), 1.0
        longest = int(max(1, min(longest, limit)))
        return Tokens(min(mean, limit), int(min(p95, limit)), longest, min(answer, longest), min(1.0, trained))

    def _room(self, config: TrainingConfig, facts: MachineFacts) -> int:
        """Return the bytes a run may use, as if the runs at work had ended: it would wait for them."""
        held = sum(run.memory_bytes or 0 for run in self.runs.list() if run.status.working)
        if on_card(config, facts) and facts.gpu:
            return round(min(facts.gpu.memory_bytes, facts.gpu.memory_free_bytes + held) - CONTEXT)
        return min(facts.memory_bytes, facts.memory_free_bytes + held)


def on_card(config: TrainingConfig, facts: MachineFacts) -> bool:
    return facts.gpu is not None and config.hardware.device != "cpu"


def key_of(config: TrainingConfig, model: Model) -> tuple[str, str, str]:
    return model.id, config.method.name, config.quantization


def _key(resolved: Resolved) -> str:
    """What a quote depends on; not how model and data are named."""
    named: Any = {"name": True, "data": {"path"}, "model": {"id", "revision"}}
    model = resolved.model
    return f"{model.path} {model.bytes} {resolved.dataset.id} {resolved.config.model_dump_json(exclude=named)}"


def _tried(rough: Quote, quote: Quote, resolved: Resolved, measured: trial.Measured) -> Past:
    memory: dict[Any, float] = {"rough": measured.peak / rough.uncorrected_bytes}
    if quote.memory_basis != "rough" and quote.uncorrected_bytes != rough.uncorrected_bytes:
        memory["calculated"] = measured.peak / quote.uncorrected_bytes
    return Past(
        key=key_of(resolved.config, resolved.model),
        device=quote.device,
        parameters=resolved.model.parameters,
        memory=memory,
        others=None,
        speed=free(quote.work / quote.train_seconds, measured.others),
    )


def plan(config: TrainingConfig, dataset: Dataset, tokens: Tokens) -> tuple[int, float]:
    """Return the steps of a run, and how many examples each takes."""
    rows = max(1, dataset.train_rows)
    limit = config.data.max_length
    if dataset.kind == "text" and limit != "auto":
        rows = max(1, round(rows * tokens.mean / min(limit, tokens.mean)))
    each = min(rows, 16 if config.train.effective_rows == "auto" else config.train.effective_rows)
    passes = 3 if config.train.epochs == "auto" else config.train.epochs
    steps, most = math.ceil(passes * math.ceil(rows / each)), config.train.max_steps
    if most:
        steps = most if config.train.epochs == "auto" else min(steps, most)
    return steps, rows / math.ceil(rows / each)


def _quote(
    config: TrainingConfig,
    model: Model,
    dataset: Dataset,
    facts: MachineFacts,
    tokens: Tokens,
    past: list[Past],
    room: int,
) -> Quote:
    """Put memory and time together, corrected by how runs like this one went."""
    shape, card = shape_of(model), on_card(config, facts)
    device = facts.gpu.name if card and facts.gpu else "processor"
    half = config.train.precision == "bf16" or (config.train.precision == "auto" and facts.bf16)
    steps, rows = plan(config, dataset, tokens)
    load = Load(tokens.longest, tokens.at_most(rows), half, card, facts.cores, room)
    found = footprint(shape, config, load)
    here = [each for each in past if each.device == device]
    same = [each for each in here if each.key == key_of(config, model)]
    ratio = correction(same, "rough")
    peak = round(found.peak * ratio)
    trained = max(1, round(steps * rows * tokens.mean))
    work = shape.flops(config, trained, trained * tokens.mean, trained * tokens.trained)
    again = 1 + found.recomputed / shape.layers / 3
    speed, spread = _speed(shape, config, same or here, facts, half, card)
    if card:
        passes = steps * max(1, rows * tokens.mean / in_flight(config, load)[0])
        train_seconds = again * max(work / speed, 0 if same else passes * shape.layers * LAUNCH)
    else:
        train_seconds = again * work / speed
    load_seconds = START + (2 if dataset.eval_rows else 1) * model.bytes / READ
    asked = min(config.evaluate.answers, dataset.eval_rows) if dataset.kind == "chat" else 0
    held = Held(dataset.eval_rows, tokens.mean, tokens.trained * tokens.mean, tokens.answer, asked)
    turn = least_turn(shape, card)
    others = load_seconds + besides.rough(config, held, train_seconds / trained, turn, steps, trained)
    seconds = train_seconds + others * slower_around(same or here)
    parts = {name: round(value * ratio) for name, value in found.parts.items()}
    return Quote(
        peak_memory_bytes=peak,
        room_bytes=room,
        fits=peak <= room,
        margin_bytes=round(ROUGH_MARGIN * peak * (0.4 if same else 1)),
        seconds=round(seconds, 2),
        low=round(seconds / spread, 1),
        high=round(seconds * spread, 1),
        train_seconds=round(train_seconds, 2),
        load_seconds=round(load_seconds, 1),
        steps=steps,
        tokens=trained,
        disk_bytes=disk(shape, config, dataset),
        recomputed_layers=found.recomputed,
        breakdown=parts | {"Programs": parts["Programs"] + peak - sum(parts.values())},
        time_basis="measured" if same else "rough",
        device=device,
        parameters=model.parameters,
        quantization=config.quantization,
        uncorrected_bytes=found.peak,
        work=work,
    )


def _speed(
    shape: Shape, config: TrainingConfig, past: list[Past], facts: MachineFacts, half: bool, card: bool
) -> tuple[float, float]:
    """Return operations a second, and how far off that may be: of the model of most like size trained here, if any."""
    if past:
        distance = [abs(math.log(each.parameters / max(shape.parameters, 1))) for each in past]
        near = [each.speed for each, far in zip(past, distance, strict=True) if far == min(distance)]
        middle = statistics.median(near)
        spread = max(SAME if min(distance) == 0 else ALIKE, max(near) / middle, middle / min(near))
        return middle, max(spread, FEW) if len(near) < ENOUGH else spread
    if card and facts.gpu:
        speed = USED * _fastest(facts.gpu.name)
    else:
        speed = facts.cores * (CORE_BF16 if half else CORE_FP32)
    return speed / SLOWER[config.quantization], ROUGH


def _fastest(name: str) -> float:
    """Return the operations a second that a card's maker names."""
    try:
        return card(name).tflops * 1e12
    except NotFound:
        return CARD
