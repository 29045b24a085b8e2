"""Line charts as SVG text, in two sizes switched by CSS: no dependency, and the colours follow the theme."""

import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from studio.domain.words import rate
from studio.services.curve import LIMIT, SMOOTH, Point, Series, downsample

Points = Sequence[Point]

MOST = 300  # points drawn in a line
FLAG_ROOM = 110  # the width of two words
TRAIN, HELD = "var(--accent)", "var(--data-2)"

# The pointer moves a line over the picture and reads the nearest step into the caption.
READOUT = """const rest = () => element.querySelectorAll('figure').forEach(f => {
  f.querySelectorAll('.cross').forEach(line => line.style.opacity = 0);
  const said = f.querySelector('.read'); said.textContent = said.dataset.rest;
});
element.addEventListener('pointermove', e => {
  const svg = e.target.closest('svg'); if (!svg) return rest();
  const box = svg.getBoundingClientRect(), x = (e.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
  const [left, edge, steps] = JSON.parse(svg.dataset.scale), step = (x - left) / (edge - left) * steps;
  const figure = svg.closest('figure'), points = JSON.parse(figure.dataset.points), line = svg.querySelector('.cross');
  const near = points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
  const at = left + near[0] / steps * (edge - left);
  line.setAttribute('x1', at); line.setAttribute('x2', at); line.style.opacity = 1;
  figure.querySelector('.read').textContent = near[1];
});
element.addEventListener('pointerleave', rest);"""


@dataclass(frozen=True)
class Line:
    """One line: `faint` are the raw values behind it, `dashed` also marks each point with a dot."""

    name: str
    points: Points
    colour: str
    faint: Points = ()
    dashed: bool = False


@dataclass(frozen=True)
class Zone:
    """A band of values with a meaning, from `low` to `high`."""

    name: str
    low: float
    high: float
    fill: str


@dataclass(frozen=True)
class Frame:
    """The drawing area of one picture, and where a step and a value lie in it."""

    css: str
    width: int
    height: int
    right: int  # room for the last values; none on a phone
    steps: float
    low: float
    high: float
    left: int = 52
    top: int = 8
    bottom: int = 24

    @property
    def wide(self) -> bool:
        return self.width > 500

    @property
    def floor(self) -> int:
        return self.height - self.bottom

    @property
    def edge(self) -> int:
        return self.width - self.right

    def across(self, step: float) -> float:
        return self.left + step / self.steps * (self.edge - self.left)

    def down(self, value: float) -> float:
        return self.top + (self.high - value) / (self.high - self.low) * (self.floor - self.top)


def average(points: Points, width: int) -> list[Point]:
    """Return the centred mean over `width` points, fewer at the ends."""
    sums = [0.0, *accumulate(y for _, y in points)]
    half = width // 2
    result = []
    for i, (x, _) in enumerate(points):
        start, end = max(0, i - half), min(len(points), i + half + 1)
        result.append((x, (sums[end] - sums[start]) / (end - start)))
    return result


def window(count: int) -> int:
    """How many steps the strong line averages: 15, fewer in a short run so that its shape stays."""
    return max(1, min(SMOOTH, count // 8 | 1))


def smooth(series: Series) -> tuple[list[Point], int]:
    """Return the strong line, and how many steps each of its points averages: in a thinned line at least a bucket."""
    buckets = (window(len(series)) // series.width) | 1
    return average(series.means, buckets), buckets * series.width


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round values between low and high."""
    raw = (high - low) / count
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(s * base for s in (1, 2, 2.5, 5, 10, 20) if s * base >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def zones(base: float | None) -> list[Zone]:
    """What a held-out loss means, relative to the base model's."""
    if base is None or not 0 < base < math.inf:
        return []
    return [
        Zone("Good: a fifth below the base model", 0, 0.8 * base, "var(--good-soft)"),
        Zone("Acceptable", 0.8 * base, base, "var(--warn-soft)"),
        Zone(f"Problem: no better than the base model, {base:.2f}", base, math.inf, "var(--bad-soft)"),
    ]


def loss(
    train: Series,
    held: Points,
    steps: int,
    base: float | None = None,
    flags: Sequence[tuple[float, str]] = (),
    over: bool = False,
) -> str:
    """Draw training and held-out loss over the whole planned run.

    `base` is the base model's held-out loss, `flags` are words at a step, `over` when no more steps will come.
    """
    line, rest = _averaged("training", train)
    if not held:
        rest = f"{rest} No held-out rows, so no zones.".strip()
    if train.lost:
        rest = f"{rest} {train.lost:,} {'step' if train.lost == 1 else 'steps'} without a finite loss.".strip()
    checks = [(x, y) for x, y in held if abs(y) < LIMIT]
    lines = [line, Line("held-out", downsample(checks, MOST), HELD, dashed=True)]
    return _figure("Loss", lines, steps, (270, 220), lambda value: f"{value:.3f}", rest, over, zones(base), flags)


def learning_rate(series: Series, steps: int, over: bool = False) -> str:
    """Draw the learning rate over the whole planned run."""
    lines = [Line("learning rate", downsample(series.points, MOST), TRAIN)]
    return _figure("Learning rate", lines, steps, (150, 130), rate, "How big each correction is.", over)


def gradient(series: Series, steps: int, over: bool = False) -> str:
    """Draw the norm of the gradient over the whole planned run."""
    line, _ = _averaged("gradient norm", series)
    rest = "How hard each step pulls. Steady is good."
    return _figure("Gradient norm", [line], steps, (150, 130), norm, rest, over)


def norm(value: float) -> str:
    """Return a gradient norm with two decimals, a very small or large one as a rate is written."""
    return f"{value:.2f}" if 0.01 <= value < 1000 else rate(value)


def _averaged(name: str, series: Series) -> tuple[Line, str]:
    """Return a line with its raw values behind it, and what it averages in words."""
    raw = series.points
    strong, wide = smooth(series)
    if wide == 1:
        return Line(name, downsample(raw, MOST), TRAIN), ""
    faint = "every step" if series.width == 1 else "lowest and highest"
    said = f"Faint: {faint}. Strong: average of {wide:,}."
    return Line(name, downsample(strong, MOST), TRAIN, downsample(raw, MOST)), said


def _figure(
    title: str,
    lines: list[Line],
    steps: int,
    heights: tuple[int, int],
    words: Callable[[float], str],
    rest: str,
    over: bool,
    bands: Sequence[Zone] = (),
    flags: Sequence[tuple[float, str]] = (),
) -> str:
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    keys = ""
    if len(lines) > 1:
        for line in lines:
            dash = " dash" if line.dashed else ""
            keys += f'<span class="k{dash}" style="--c:{line.colour}">{line.name}</span>'
    last = max(line.points[-1][0] for line in lines)
    total = max(steps, 1, last)
    to_go = "" if over or last > total * 0.8 else f"{total - last:,.0f} steps to go"
    limits = _limits([y for line in lines for _, y in (*line.points, *line.faint)])
    frames = (Frame("desk", 980, heights[0], 66, total, *limits), Frame("phone", 350, heights[1], 8, total, *limits))
    pictures = "".join(
        _draw(frame, title, lines, words, [*_bands(frame, bands), *_flags(frame, flags)], to_go) for frame in frames
    )
    readouts = html.escape(json.dumps(_readouts(lines, words), ensure_ascii=False))
    return (
        f'<figure data-points="{readouts}">'
        f'<figcaption><b>{title}</b>{keys}<span class="read num" data-rest="{rest}">{rest}</span></figcaption>'
        f"{pictures}</figure>"
    )


def _limits(values: list[float]) -> tuple[float, float]:
    """Pad the values by 12 % each way; a flat line gets room around it."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.12
    if pad <= abs(high) * 1e-6:  # equal values, or as good as equal
        pad = abs(high) * 0.1 or 1.0
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def _draw(
    frame: Frame, title: str, lines: list[Line], words: Callable[[float], str], behind: list[str], to_go: str
) -> str:
    parts = [*behind, *_grid(frame)]
    for line in lines:
        if line.faint:
            parts.append(_path(frame, line.faint, f'stroke="{line.colour}" stroke-width="1" opacity=".28"'))
        style = 'stroke-dasharray="5 3"' if line.dashed else 'stroke-linejoin="round"'
        parts.append(_path(frame, line.points, f'stroke="{line.colour}" stroke-width="2" {style}'))
        if line.dashed and len(line.points) <= 60:
            for x, y in line.points:
                parts.append(_dot(frame.across(x), frame.down(y), line.colour))
    if frame.wide:
        parts += _last_values(frame, lines, words)
        last = max(line.points[-1][0] for line in lines)
        parts.append(_text((frame.across(last) + frame.edge) / 2, frame.floor - 6, to_go, "middle"))
    parts.append(f'<line class="cross" y1="{frame.top}" y2="{frame.floor}" stroke="var(--muted)" style="opacity:0"/>')
    return (
        f'<svg class="{frame.css}" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'data-scale="[{frame.left},{frame.edge},{frame.steps:g}]" '
        f'aria-label="{_in_words(title, lines, words)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{words}</text>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'


def _path(frame: Frame, points: Points, style: str) -> str:
    if len(points) == 1:  # a path of one point draws nothing
        points = [points[0], (points[0][0] + frame.steps * 0.004, points[0][1])]
    d = "L".join(f"{frame.across(x):.1f} {frame.down(y):.1f}" for x, y in points)
    return f'<path d="M{d}" fill="none" {style}/>'


def _grid(frame: Frame) -> Iterable[str]:
    for level in ticks(frame.low, frame.high, 4):
        y = frame.down(level)
        yield f'<line x1="{frame.left}" x2="{frame.edge}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        yield _text(frame.left - 8, y + 4, rate(level) if 0 < abs(level) < 0.005 else f"{level:g}", "end")
    for step in ticks(0, frame.steps, 5 if frame.wide else 3):
        if step == int(step):
            anchor = "start" if step == 0 else "end" if step >= frame.steps * 0.97 else "middle"
            yield _text(frame.across(step), frame.height - 6, f"{step:,.0f}", anchor)


def _bands(frame: Frame, bands: Sequence[Zone]) -> Iterable[str]:
    levels = [frame.down(level) for level in ticks(frame.low, frame.high, 4)]
    for band in bands:
        start, end = frame.down(min(band.high, frame.high)), frame.down(max(band.low, frame.low))
        if end <= start:
            continue
        yield (
            f'<rect opacity=".6" x="{frame.left}" y="{start:.1f}" width="{frame.edge - frame.left}" '
            f'height="{end - start:.1f}" fill="{band.fill}"/>'
        )
        # a grid line would strike the words out: they go below it
        baseline = next((level + 15 for level in levels if -4 < start + 15 - level < 13), start + 15)
        if frame.wide and baseline < end - 2:
            yield _text(frame.edge - 8, baseline, band.name, "end")


def _flags(frame: Frame, flags: Sequence[tuple[float, str]]) -> Iterable[str]:
    """Dotted verticals with words at the foot; those of close neighbours stand one above the other."""
    last, row = -math.inf, 0
    for step, words in sorted(flags):
        x = frame.across(step)
        row = row + 1 if x - last < FLAG_ROOM and row < 4 else 0
        last = x
        anchor, aside = ("end", -5) if frame.edge - x < FLAG_ROOM else ("start", 5)
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{frame.floor}" stroke="var(--warn)" '
            f'stroke-dasharray="2 3"/>'
        )
        yield _text(x + aside, frame.floor - 6 - 14 * row, words, anchor, ' style="fill:var(--warn)"')


def _last_values(frame: Frame, lines: list[Line], words: Callable[[float], str]) -> Iterable[str]:
    """The last value at each line's end, in its colour, apart when the ends are close."""
    ends = [(frame.across(line.points[-1][0]), frame.down(line.points[-1][1])) for line in lines]
    shift = [0.0] * len(ends)
    if len(ends) == 2 and abs(ends[0][0] - ends[1][0]) < 44 and abs(gap := ends[0][1] - ends[1][1]) < 14:
        down = (14 - abs(gap)) / 2 * (1 if gap > 0 else -1)
        shift = [down, -down]
    for line, (x, y), by in zip(lines, ends, shift, strict=True):
        if len(line.points) == 1 < max(len(each.points) for each in lines):
            continue  # where the other line begins there is no room for it; the zones say it too
        style = f' style="fill:{line.colour};font-weight:600"'
        yield _text(x + 7, y + 4 + by, words(line.points[-1][1]), "start", style)


def _readouts(lines: list[Line], words: Callable[[float], str]) -> list[tuple[float, str]]:
    """What the pointer reads at each step: [step, text]."""
    at: dict[float, list[str]] = {}
    for line in lines:
        for step, value in line.points:
            at.setdefault(step, [f"Step {step:,.0f}"]).append(f"{line.name} {words(value)}")
    return [(step, " · ".join(said)) for step, said in sorted(at.items())]


def _in_words(title: str, lines: list[Line], words: Callable[[float], str]) -> str:
    """The chart as a sentence, for those who do not see it."""
    said = []
    for line in lines:
        first, last = line.points[0], line.points[-1]
        origin = f", from {words(first[1])} at step {first[0]:,.0f}" if len(line.points) > 1 else ""
        said.append(f"{line.name} {words(last[1])} at step {last[0]:,.0f}{origin}")
    return f"{title}: {'; '.join(said)}."
