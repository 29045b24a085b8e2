"""A run's events as curves: read in columns, and thinned so that memory and drawing stay the same in a long run."""

import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from studio.domain.events import AnyEvent, Evaluated, Paused, Sampled, Saved, Started, Step, Warned, parse

Point = tuple[float, float]
Bucket = tuple[float, float, float, int, Point, Point]  # first and last step, sum, count, lowest, highest
Columns = list[list[float]]  # those of COLUMNS, of the same length

CHUNK = 1 << 16  # bytes read at a time
PATIENCE = 0.3  # seconds of reading before what was read so far is shown
BATCH = 1 << 15  # steps taken in at a time: in a long file most need never be in small buckets
BUCKETS = 1024  # a line has at most twice as many
RECENT = 256  # the last points as they are, for "down 0.03 in 100 steps"
SMOOTH = 15  # steps that the strong line averages
LIMIT = 1e9  # beyond any loss or gradient worth drawing
NO_STEP = re.compile(rb'\n(?!\{"type":"step",)')  # where a line begins that is none, as the engine writes them
COLUMNS = ("step", "loss", "learning_rate", "grad_norm")
KEPT = "adapter"  # the path of the weights that were kept; the others are checkpoints


class Series:
    """One value by step. Each bucket holds as many steps as the others: its ends, sum, lowest and highest point.

    When there are too many buckets, two neighbours become one. Up to 2,048 steps every bucket is one step.
    """

    def __init__(self) -> None:
        self.width = 1  # steps in a bucket
        self.lost = 0  # values that cannot be drawn
        self.recent: deque[Point] = deque(maxlen=RECENT)
        self._buckets: list[Bucket] = []
        self._xs: list[float] = []  # those that do not fill a bucket yet
        self._ys: list[float] = []

    def extend(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Append values at rising steps."""
        if not ys:
            return
        if not (sum(ys) < LIMIT and min(ys) > -LIMIT):  # a large sum may have small parts: those stay
            drawn = [(x, y) for x, y in zip(xs, ys, strict=True) if abs(y) < LIMIT]
            self.lost += len(ys) - len(drawn)
            xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
        self.recent.extend(zip(xs[-RECENT:], ys[-RECENT:], strict=True))
        self._xs += xs
        self._ys += ys
        while len(self._buckets) + len(self._xs) // self.width > 2 * BUCKETS:
            pairs = zip(self._buckets[::2], self._buckets[1::2], strict=False)
            odd = self._buckets[-1:] if len(self._buckets) % 2 else []
            self._buckets, self.width = [_merge(a, b) for a, b in pairs] + odd, 2 * self.width
        whole = len(self._xs) // self.width * self.width
        for start in range(0, whole, self.width):
            self._buckets.append(_bucket(self._xs, self._ys, start, start + self.width))
        del self._xs[:whole], self._ys[:whole]

    def drop(self, after: float) -> None:
        """Forget the values of later steps. In a long run the bucket this falls into keeps its mean."""
        keep = sum(x <= after for x in self._xs)
        del self._xs[keep:], self._ys[keep:]
        while self._buckets and self._buckets[-1][1] > after:
            first, _, total, count, low, high = self._buckets.pop()
            if first <= after:
                mean = (first, total / count)
                low, high = (point if point[0] <= after else mean for point in (low, high))
                self._buckets.append((first, after, total, count, low, high))
        self.recent = deque((point for point in self.recent if point[0] <= after), RECENT)

    @property
    def points(self) -> list[Point]:
        """The values, of each bucket the lowest and the highest."""
        found = [point for *_, low, high in self._all() for point in ((low,) if low == high else sorted((low, high)))]
        return [point for before, point in zip([None, *found], found, strict=False) if point != before]

    @property
    def means(self) -> list[Point]:
        """The mean of each bucket, at its middle."""
        return [((first + last) / 2, total / count) for first, last, total, count, *_ in self._all()]

    def __len__(self) -> int:
        return sum(bucket[3] for bucket in self._buckets) + len(self._xs)

    def _all(self) -> list[Bucket]:
        return [*self._buckets, _bucket(self._xs, self._ys, 0, len(self._xs))] if self._xs else self._buckets


def _bucket(xs: list[float], ys: list[float], start: int, end: int) -> Bucket:
    if end - start == 1:
        point = (xs[start], ys[start])
        return xs[start], xs[start], ys[start], 1, point, point
    values = ys[start:end]
    low, high = min(values), max(values)
    at_low, at_high = xs[start + values.index(low)], xs[start + values.index(high)]
    return xs[start], xs[end - 1], sum(values), end - start, (at_low, low), (at_high, high)


def _merge(a: Bucket, b: Bucket) -> Bucket:
    return a[0], b[1], a[2] + b[2], a[3] + b[3], min(a[4], b[4], key=_value), max(a[5], b[5], key=_value)


def _value(point: Point) -> float:
    return point[1]


def downsample(points: Sequence[Point], n: int) -> list[Point]:
    """Keep at most n points (n ≥ 2), the first and last among them, that hold the line's shape.

    Largest-triangle-three-buckets: of each bucket the point that spans the largest triangle with its neighbours.
    """
    if len(points) <= n:
        return list(points)
    kept = [points[0]]
    size = (len(points) - 2) / max(n - 2, 1)
    edges = [1 + int(i * size) for i in range(n - 1)] + [len(points)]
    for start, end, after in zip(edges, edges[1:], edges[2:], strict=False):
        ahead = points[end:after]
        x, y = sum(p[0] for p in ahead) / len(ahead), sum(p[1] for p in ahead) / len(ahead)
        x0, y0 = kept[-1]
        kept.append(max(points[start:end], key=lambda p: abs((x0 - x) * (p[1] - y0) - (x0 - p[0]) * (y - y0))))
    return [*kept, points[-1]]


class Curve:
    """What the events of one run say so far. `offset` is the byte its next reading starts at."""

    def __init__(self) -> None:
        self.offset = 0
        self.behind = False  # there is more to read than was read the last time
        self.started: Started | None = None
        self.losses, self.rates, self.norms = Series(), Series(), Series()
        self.checks: dict[int, float] = {}  # held-out loss by step
        self.samples: dict[int, list[dict[str, str]]] = {}  # answers to the fixed questions by step
        self.saved: list[int] = []  # steps a checkpoint was written at
        self.kept: int | None = None  # the step whose weights became the adapter
        self.resumed: list[int] = []
        self.paused: Paused | None = None
        self.warnings: list[Warned] = []

    def read(self, path: Path) -> None:
        """Take in what was appended to the events file at `path`, of a very long file only a part: then `behind`."""
        steps: Columns = [[] for _ in COLUMNS]
        end = time.monotonic() + PATIENCE
        self.behind = False
        for found, self.offset in chunks(path, self.offset):  # noqa: B020 - where it begins, then where it goes on
            for lines, line in found:
                if lines:
                    for column, more in zip(steps, columns(lines), strict=True):
                        column += more
                event = parse(line) if line else None
                if event or len(steps[0]) > BATCH:
                    self._extend(steps)
                if event:
                    self._take(event)
            self.behind = time.monotonic() > end
            if self.behind:
                break
        self._extend(steps)

    def _extend(self, steps: Columns) -> None:
        for series, column in zip((self.losses, self.rates, self.norms), steps[1:], strict=True):
            series.extend(steps[0], column)
        for column in steps:
            column.clear()

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, Step):  # written by another hand
            self._extend([[getattr(event, key)] for key in COLUMNS])
        elif isinstance(event, Evaluated):
            self.checks.setdefault(event.step, event.loss)  # the final report repeats the kept step, on fewer rows
        elif isinstance(event, Sampled):
            self.samples[event.step] = event.answers
        elif isinstance(event, Started):
            self.started, self.paused = event, None
            if event.resumed_from is not None:
                self._go_on(event.resumed_from)
        elif isinstance(event, Saved):
            if event.path == KEPT:
                self.kept = event.step
            else:
                self.saved.append(event.step)
        elif isinstance(event, Paused):
            self.paused = event
        elif isinstance(event, Warned):
            self.warnings.append(event)

    def _go_on(self, step: int) -> None:
        """Forget what was told of later steps: they come again. What the guard did about one stays."""
        for series in (self.losses, self.rates, self.norms):
            series.drop(step)
        self.checks = {at: loss for at, loss in self.checks.items() if at <= step}
        self.samples = {at: answers for at, answers in self.samples.items() if at <= step}
        self.saved = [at for at in self.saved if at <= step]
        self.warnings = [it for it in self.warnings if it.did != "told" or it.step is None or it.step <= step]
        self.resumed = [*(at for at in self.resumed if at < step), step]

    @property
    def held(self) -> list[tuple[int, float]]:
        """The held-out checks in order, none beyond the step whose weights were kept."""
        return [(step, loss) for step, loss in sorted(self.checks.items()) if self.kept is None or step <= self.kept]

    @property
    def base(self) -> float | None:
        """The base model's held-out loss."""
        return self.checks.get(0)


def chunks(path: Path, offset: int = 0) -> Iterator[tuple[list[tuple[bytes, bytes]], int]]:
    """Yield the `parts` of what was written since `offset`, and the offset to go on; a torn last line is left."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; a run that has not begun has no file
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        torn = b""
        while data := file.read(CHUNK):
            whole, newline, torn = (torn + data).rpartition(b"\n")
            offset += len(whole) + len(newline)
            yield parts(newline + whole), offset


def parts(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return steps in one piece, each line after a line break, with the line of another event that follows them."""
    found, at = [], 0
    for match in NO_STEP.finditer(lines):
        steps, start = lines[at : match.start()], match.end()
        end = lines.find(b"\n", start)
        at = len(lines) if end < 0 else end
        found.append((steps, lines[start:at]))
    return [*found, (lines[at:], b"")]


def columns(lines: bytes) -> Columns:
    """Return the numbers of steps that are drawn. All are parsed as one JSON list: a tenth of the time of each line."""
    try:
        steps = orjson.loads(b"[" + lines[1:].replace(b"\n", b",") + b"]")
        found: Columns = [[each[key] for each in steps] for key in COLUMNS]
        for column in found:
            sum(column)  # of numbers alone
        return found
    except (orjson.JSONDecodeError, KeyError, TypeError):  # one of them is torn, or no step
        events = [event for line in lines.split(b"\n") if isinstance(event := parse(line), Step)]
        return [[getattr(event, key) for event in events] for key in COLUMNS]
