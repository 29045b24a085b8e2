"""The losses of several runs over one another as SVG text: a colour and a dash each, named at its end."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studio.domain.words import short
from studio.services.compare import value_at
from studio.ui.chart import Frame, Points, average, downsample, ticks, window

# A run keeps its style in every chart and table. Dashes: lengths of line and gap in turn, none for a whole line.
STYLES = (
    ("var(--accent)", ()),
    ("var(--data-2)", (7, 3)),
    ("var(--data-3)", (2, 3)),
    ("var(--data-4)", (10, 3, 2, 3)),
    ("var(--muted)", (16, 4)),
)
DRAWN = 150  # points of one line
READ = 60  # places where the pointer reads all lines
APART = 15  # between two names at the ends


@dataclass(frozen=True)
class Trace:
    """One run's line: `place` is its place among those compared, `points` are (tokens seen, loss)."""

    name: str
    place: int
    points: Points


def held_out(traces: Sequence[Trace]) -> str:
    """Draw the held-out losses over the tokens learned from, a dot for each check."""
    return _figure("Held-out loss", traces, "Across: tokens learned from.", dots=True)


def training(traces: Sequence[Trace]) -> str:
    """Draw the averaged training losses over the tokens learned from."""
    smooth = [Trace(each.name, each.place, average(each.points, window(len(each.points)))) for each in traces]
    return _figure("Training loss", smooth, "Averaged over up to 15 steps.")


def swatch(place: int) -> str:
    """Return a short piece of a run's line, for a legend or the head of a column."""
    colour, dashes = STYLES[place]
    if not dashes:
        return f'<i class="swatch" style="background:{colour}"></i>'
    stops, at = [], 0
    for i, length in enumerate(dashes):
        stops.append(f"{'transparent' if i % 2 else colour} {at}px {at + length}px")
        at += length
    return f'<i class="swatch" style="background:repeating-linear-gradient(90deg,{",".join(stops)})"></i>'


def _figure(title: str, traces: Sequence[Trace], rest: str, dots: bool = False) -> str:
    drawn = [Trace(each.name, each.place, downsample(_finite(each.points), DRAWN)) for each in traces]
    drawn = [each for each in drawn if each.points]
    if not drawn:
        return ""
    values = [y for each in drawn for _, y in each.points]
    low, high = min(values), max(values)
    pad = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    limits = max(0.0, low - pad) if low >= 0 else low - pad, high + pad
    most = max(max(x for x, _ in each.points) for each in drawn) or 1.0
    frames = (Frame("desk", 980, 260, 165, most, *limits), Frame("phone", 350, 220, 8, most, *limits))
    keys = "".join(f"<span>{swatch(each.place)}{html.escape(each.name)}</span>" for each in drawn)
    pictures = "".join(_draw(frame, title, drawn, dots) for frame in frames)
    points = html.escape(json.dumps(_readouts(drawn, most), ensure_ascii=False))
    return (
        f'<figure data-points="{points}"><figcaption><b>{title}</b>{keys}'
        f'<span class="read num" data-rest="{rest}">{rest}</span></figcaption>{pictures}</figure>'
    )


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y) and abs(y) < 1e9]


def _draw(frame: Frame, title: str, traces: Sequence[Trace], dots: bool) -> str:
    parts = list(_grid(frame))
    for each in traces:
        colour, dashes = STYLES[each.place]
        places = [(frame.across(x), frame.down(y)) for x, y in each.points]
        if len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            dash = f' stroke-dasharray="{" ".join(map(str, dashes))}"' if dashes else ""
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if dots or len(places) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
    if frame.wide:
        parts += _names(frame, traces)
    parts.append(f'<line class="cross" y1="{frame.top}" y2="{frame.floor}" stroke="var(--muted)" style="opacity:0"/>')
    return (
        f'<svg class="{frame.css}" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'data-scale="[{frame.left},{frame.edge},{frame.steps:g}]" '
        f'aria-label="{html.escape(_in_words(title, traces))}">{"".join(parts)}</svg>'
    )


def _grid(frame: Frame) -> Iterable[str]:
    for level in ticks(frame.low, frame.high, 4):
        y = frame.down(level)
        yield f'<line x1="{frame.left}" x2="{frame.edge}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        yield f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>'
    for tokens in ticks(0, frame.steps, 5 if frame.wide else 3):
        anchor = "start" if tokens == 0 else "end" if tokens >= frame.steps * 0.97 else "middle"
        yield (
            f'<text x="{frame.across(tokens):.1f}" y="{frame.height - 6}" text-anchor="{anchor}">{short(tokens)}</text>'
        )


def _names(frame: Frame, traces: Sequence[Trace]) -> Iterable[str]:
    """Name each line beside the picture, at its last value, no two names on one another."""
    ends = sorted(((frame.down(each.points[-1][1]), each) for each in traces), key=lambda end: end[0])
    at, lines = -math.inf, []
    for y, _ in ends:
        at = max(y, at + APART)
        lines.append(at)
    limit = float(frame.floor)
    for i in reversed(range(len(lines))):  # what would stand below the picture moves up, and those above with it
        lines[i] = min(lines[i], limit)
        limit = lines[i] - APART
    for y, (_, each) in zip(lines, ends, strict=True):
        colour = STYLES[each.place][0]
        value = each.points[-1][1]
        yield (
            f'<text x="{frame.edge + 8:.1f}" y="{y + 4:.1f}" '
            f'class="name" style="fill:{colour}">{html.escape(_cut(each.name))} {value:.3f}</text>'
        )


def _cut(name: str, most: int = 14) -> str:
    """Shorten a name to its end, where the number of the run stands."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _readouts(traces: Sequence[Trace], most: float) -> list[tuple[float, str]]:
    """What the pointer reads at evenly spaced amounts of tokens: [tokens, the loss of every run that got there]."""
    result: list[tuple[float, str]] = []
    for i in range(READ + 1):
        tokens = round(most * i / READ)
        read = [(each.name, value_at(each.points, tokens)) for each in traces]
        said = [f"{name} {value:.3f}" for name, value in read if value is not None]
        if said:
            result.append((tokens, " · ".join([f"{short(tokens)} tokens", *said])))
    return result or [(0, "")]


def _in_words(title: str, traces: Sequence[Trace]) -> str:
    """The chart as a sentence, for those who do not see it."""
    said = [
        f"{each.name} {each.points[-1][1]:.3f} after {short(each.points[-1][0])} tokens, from {each.points[0][1]:.3f}"
        for each in traces
    ]
    return f"{title}: {'; '.join(said)}."
