"""The curves of the runs that are looked at: read once, drawn once for every page that watches."""

import threading
import time
from collections import OrderedDict
from pathlib import Path

from studio.domain.records import Run
from studio.services.curve import Curve
from studio.ui import chart

KEPT = 4  # runs held in memory
REST = 0.4  # seconds between two parts of a very long file, in which what was read is shown
# What the guard did, in the two words that stand beside its line in the chart.
FLAGS = {
    "invalid": "no number",
    "divergence": "loss climbs",
    "explosion": "gradients explode",
    "flat": "nothing learned",
    "overfitting": "held-out rises",
    "memory": "batch halved",
}


class Drawn(Curve):
    """A curve with its charts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0.0
        self.drawn: tuple[int, str] = (-1, "")
        self.lock = threading.Lock()
        self.figures = ""

    def look(self, run: Run) -> None:
        """Take in what is new, and draw again if there is any."""
        with self.lock:
            if self.behind and time.monotonic() - self.seen < REST:
                return
            self.read(Path(run.path) / "events.jsonl")
            self.seen = time.monotonic()
            if self.drawn != (self.offset, run.status):
                self.figures, self.drawn = self._draw(run), (self.offset, run.status)

    def _draw(self, run: Run) -> str:
        over = not run.status.active
        loss = chart.loss(self.losses, sorted(self.checks.items()), run.steps, self.base, self.flags(), over)
        rest = chart.learning_rate(self.rates, run.steps, over), chart.gradient(self.norms, run.steps, over)
        return "".join((loss, *rest))

    def flags(self) -> list[tuple[float, str]]:
        """Return what happened on the way, each at its step."""
        last = self.losses.recent[-1][0] if self.losses.recent else 0
        happened = [(step, "resumed") for step in self.resumed if step]
        for warned in self.warnings:
            if warned.step is not None and warned.rule in FLAGS:
                happened.append((warned.step, FLAGS[warned.rule]))
        if self.kept and self.kept < last:
            happened.append((self.kept, "kept"))
        return list(dict.fromkeys(happened))


class Watch:
    """The curves of the runs looked at last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.curves: OrderedDict[tuple[str, str], Drawn] = OrderedDict()

    def __call__(self, run: Run) -> Drawn:
        """Return the run's curve, up to date."""
        key = (run.id, run.created)  # a number is given again when a run's folder was deleted
        with self.lock:
            curve = self.curves.setdefault(key, Drawn())
            self.curves.move_to_end(key)
            while len(self.curves) > KEPT:
                self.curves.popitem(last=False)
        curve.look(run)
        return curve

    def behind(self, run: Run) -> bool:
        """Whether there is more to read of the curve than was read so far."""
        curve = self.curves.get((run.id, run.created))
        return curve is not None and curve.behind
