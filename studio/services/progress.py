"""How far a run is: its events folded into one state, fed piece by piece so that a poll costs what is new."""

import json
import math
import statistics
from collections import deque
from datetime import datetime
from pathlib import Path

import yaml

from studio.domain.document import from_document
from studio.domain.errors import StudioError
from studio.domain.events import AnyEvent, Evaluated, Failed, Finished, Paused, Phase, Saved, Started, Step, parse
from studio.domain.records import Adapter, Run, Status
from studio.domain.words import count, size
from studio.services.curve import parts
from studio.services.past import quoted

YAML = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # ten times faster, which a long list feels
OUT_OF_MEMORY = "Lower train.batch_tokens, or train with QLoRA, and start again."
SMALLER = ", best with half the train.batch_tokens"
AGAIN = "The log says more. The same settings can be started again as a new run."
RECENT = 50  # step times that the time left is reckoned from
CHUNK = 1 << 22  # bytes read at a time


class Progress:
    """The state after the events so far."""

    def __init__(self) -> None:
        self._torn = b""  # the beginning of a line whose end is not written yet
        self._seconds_a_step: deque[float] = deque(maxlen=RECENT)
        self._step_end: float | None = None  # on the engine's clock, which starts anew with each engine
        self.started: Started | None = None
        self.step: Step | None = None
        self.end: Finished | Failed | Paused | None = None
        self.phase = ""
        self.training = False  # this engine has said `started`, and has not ended
        self.saved = False
        self.eval_loss: float | None = None
        self.base_loss: float | None = None
        self.time = ""
        self.elapsed = 0.0  # seconds at work, over all its engines
        self._before, self._clock = 0.0, 0.0  # of engines that have ended; of this one

    def resumed_at(self, started: float) -> bool:
        """Whether another engine has begun then, since the run told its end, and has not said a word yet."""
        told = isinstance(self.end, Failed | Paused) and self.time
        return bool(told) and started > datetime.fromisoformat(self.time).timestamp()

    def feed(self, data: bytes) -> None:
        """Take what was appended to `events.jsonl`, wherever it was cut."""
        whole, newline, self._torn = (self._torn + data).rpartition(b"\n")
        telling: list[tuple[list[bytes], bytes]] = []
        left = RECENT  # of many steps in a row only the last ones matter, and the last before another event
        for steps, other in reversed(parts(newline + whole)):
            telling.append((steps.rsplit(b"\n", left + 1), other))
            left = max(0, left - len(telling[-1][0]) + 2)
        for (skipped, *some), other in reversed(telling):
            if skipped:
                self._step_end = None
            for line in [*some, other]:
                if line and (event := parse(line)) is not None:
                    self._take(event)

    def _take(self, event: AnyEvent) -> None:
        if event.elapsed < self._clock:  # another engine, with a clock of its own
            self._before += self._clock
            self.training = False
        match event:
            case Phase():
                self.phase = words(event)
                self.end = None  # whoever speaks again after an end was resumed
            case Started():
                self._start(event)
            case Step():
                if self._step_end is not None:
                    self._seconds_a_step.append(event.elapsed - self._step_end)
                self.step, self.phase, self._step_end = event, "", event.elapsed
            case Evaluated():
                if event.step == 0:
                    self.base_loss = event.loss
                else:
                    self.eval_loss = event.loss
            case Saved():
                self.saved = self.saved or event.path == "adapter"
            case Finished() | Failed() | Paused():
                self.end, self.phase, self.training = event, "", False
            case _:
                pass
        self.time, self._clock = event.time, event.elapsed
        self.elapsed = self._before + event.elapsed

    def _start(self, event: Started) -> None:
        self.started, self.phase, self._step_end = event, "", None
        self.training, self.end = True, None
        again = event.resumed_from
        if again is not None and self.step and self.step.step > again:
            self.step = self.step.model_copy(update={"step": again}) if again else None

    @property
    def evaluating(self) -> bool:
        """Whether it is past its last step: a phase has come after it."""
        return self.training and self.step is not None and bool(self.phase)

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """The time the remaining steps take at work, as an interval of two standard deviations; None before 3 steps."""
        recent = self._seconds_a_step
        over = isinstance(self.end, Finished | Failed)
        if not self.started or not self.step or over or self.evaluating or len(recent) < 2:
            return None
        left = max(0, self.started.steps - self.step.step)
        middle = left * statistics.fmean(recent)
        # of the sum of `left` steps to come, and of the mean itself, which is known from a few steps only
        spread = 2 * statistics.stdev(recent) * math.sqrt(left + left * left / len(recent))
        return round(max(0.0, middle - spread), 1), round(middle + spread, 1)


class Known:
    """What is remembered of a run directory between two looks at it."""

    def __init__(self, path: Path, stamp: int) -> None:
        try:
            lineage = json.loads((path / "lineage.json").read_text(encoding="utf-8"))
            config = from_document(yaml.load((path / "config.yaml").read_bytes(), YAML))
            self.constant = {
                "id": path.name,
                "path": str(path),
                "name": config.name,
                "model": lineage["model"]["id"],
                "dataset": lineage["dataset"]["name"],
                "method": config.method.name,
                "created": lineage["created"],
            }
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise StudioError(
                f"{path} cannot be read as a run: {error}.", "Delete the folder, or repair it."
            ) from error
        self.path = path
        self.stamp = stamp
        self.progress = Progress()
        self.offset = 0
        self.cause = ""  # why the engine is gone without a word, once it is
        self.adapter: Adapter | StudioError | None = None  # the version made of this run, or why there is none

    def catch_up(self) -> Progress:
        """Read what was appended since the last look."""
        try:
            with open(self.path / "events.jsonl", "rb") as file:
                file.seek(self.offset)
                while data := file.read(CHUNK):
                    self.offset += len(data)
                    self.progress.feed(data)
        except FileNotFoundError:
            pass
        return self.progress

    def record(self, status: Status) -> Run:
        """Return what is known as a record."""
        progress = self.progress
        step, end = progress.step, progress.end
        over = not status.active
        error, hint = self.cause, OUT_OF_MEMORY if "memory" in self.cause else AGAIN if self.cause else ""
        checkpoint = newest_checkpoint(self.path) if over and not isinstance(end, Finished) else None
        if isinstance(end, Failed):
            error, hint = end.message, end.hint
        elif isinstance(end, Paused):
            error, hint = end.words, end.hint
        elif status is Status.INTERRUPTED and checkpoint is not None and not progress.saved:
            hint = f"It can be resumed after step {checkpoint:,}{SMALLER if 'memory' in error else ''}."
        elif status is Status.INTERRUPTED and progress.saved:
            hint = f"The adapter was saved before: {self.path / 'adapter'} can be used by its path."
        if "memory" in error and (said := quoted(str(self.path), self.constant["created"])):
            error = f"{error} {size(said.peak_memory_bytes)} had been foretold."
        return Run(
            **self.constant,
            status=status,
            started=progress.started.time if progress.started else None,
            ended=progress.time or None if over else None,
            phase="" if over else progress.phase,
            step=step.step if step else 0,
            steps=progress.started.steps if progress.started else 0,
            loss=step.loss if step else None,
            eval_loss=progress.eval_loss,
            base_loss=progress.base_loss,
            learning_rate=step.learning_rate if step else None,
            tokens=step.tokens if step else 0,
            tokens_per_second=step.tokens_per_second if step else None,
            memory_bytes=step.memory_bytes if step else None,
            seconds=progress.elapsed,
            seconds_left=progress.seconds_left if status.active or status is Status.PAUSED else None,
            checkpoint=checkpoint,
            error=error,
            hint=hint,
            result=end.result if isinstance(end, Finished) else {},
        )


def newest_checkpoint(run: Path) -> int | None:
    """Return the step of the newest checkpoint; if it is damaged, the engine takes the one before."""
    return max(kept_steps(run), default=None)


def kept_steps(run: Path) -> list[int]:
    """Return the steps there are checkpoints of, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def words(phase: Phase) -> str:
    """Return a phase as one line: "Reading the examples, 1,200 of 4,000 rows"."""
    if phase.done is None:
        return phase.words
    amount = size if phase.unit == "bytes" else count
    of = f" of {amount(phase.total)}" if phase.total else ""
    unit = "" if phase.unit == "bytes" else f" {phase.unit}"
    return f"{phase.words}, {amount(phase.done)}{of}{unit}".rstrip()
