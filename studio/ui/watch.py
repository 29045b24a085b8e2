"""A run's events as lines of points: read once from where the last reading ended, shared by every page that watches."""

import threading
from collections import OrderedDict

from studio.domain.events import Evaluated, Saved, Started, Step, Warned
from studio.domain.records import Run
from studio.services.runs import Runs
from studio.ui import chart

KEPT = 4  # runs held in memory


class Curve:
    """What the events of one run say so far. `offset` is the byte its next reading starts at."""

    def __init__(self) -> None:
        self.offset = 0
        self.drawn: tuple[int, str] = (-1, "")
        self.lock = threading.Lock()
        self.started: Started | None = None
        self.losses: list[chart.Point] = []
        self.rates: list[chart.Point] = []
        self.checks: dict[int, float] = {}
        self.kept: int | None = None
        self.warnings: list[Warned] = []
        self.figures = ""

    def read(self, runs: Runs, run: Run) -> None:
        """Take in what is new, and draw again if there is any."""
        with self.lock:
            events, self.offset = runs.events(run.id, self.offset)
            for event in events:
                self._take(event)
            if self.drawn != (self.offset, run.status):
                self.figures, self.drawn = self._draw(run), (self.offset, run.status)

    def _take(self, event: object) -> None:
        if isinstance(event, Step):
            self.losses.append((event.step, event.loss))
            self.rates.append((event.step, event.learning_rate))
        elif isinstance(event, Evaluated):
            self.checks.setdefault(event.step, event.loss)  # the final report repeats the kept step, on fewer rows
        elif isinstance(event, Started):
            self.started = event
        elif isinstance(event, Saved) and event.path == "adapter":
            self.kept = event.step
        elif isinstance(event, Warned):
            self.warnings.append(event)

    def _draw(self, run: Run) -> str:
        last = self.losses[-1][0] if self.losses else 0
        flags = [(self.kept, "kept")] if self.kept and self.kept < last else []
        over = not run.status.active
        losses = chart.loss(self.losses, sorted(self.checks.items()), run.steps, self.base, flags, over)
        return losses + chart.learning_rate(self.rates, run.steps, over)

    @property
    def held(self) -> list[tuple[int, float]]:
        """The held-out checks in order, none beyond the step whose weights were kept."""
        return [(step, loss) for step, loss in sorted(self.checks.items()) if self.kept is None or step <= self.kept]

    @property
    def base(self) -> float | None:
        """The base model's held-out loss."""
        return self.checks.get(0)


class Watch:
    """The curves of the runs looked at last."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.lock = threading.Lock()
        self.curves: OrderedDict[tuple[str, str], Curve] = OrderedDict()

    def __call__(self, run: Run) -> Curve:
        """Return the run's curve, up to date."""
        key = (run.id, run.created)  # a number is given again when a run's folder was deleted
        with self.lock:
            curve = self.curves.setdefault(key, Curve())
            self.curves.move_to_end(key)
            while len(self.curves) > KEPT:
                self.curves.popitem(last=False)
        curve.read(self.runs, run)
        return curve
