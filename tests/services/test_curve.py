"""The curve of a run: read the same however it was cut, thinned without losing a peak, going back when a run does."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain import events
from studio.services import curve as curves
from studio.services.curve import Curve, Series

POINTS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400).map(
    lambda ys: [(float(i), y) for i, y in enumerate(ys)]
)
LOSSES = st.lists(st.floats(0, 1e8), min_size=1, max_size=300)


def step(number, loss=2.0):
    facts = {"learning_rate": 1e-4, "grad_norm": 1.5, "tokens": 9, "tokens_per_second": 9, "memory_bytes": 9}
    return events.Step(step=number, loss=loss, **facts)


def started(again=None):
    facts = {"rows": 9, "eval_rows": 1, "tokens_per_epoch": 5, "trainable_parameters": 3, "device": "processor"}
    return events.Started(steps=100, precision="fp32", resumed_from=again, **facts)


def write(path, *happened):
    with open(path, "a") as file:
        file.writelines(each if isinstance(each, str) else events.dump(each) for each in happened)


@pytest.mark.spec("U34.1")
@given(LOSSES, st.data())
def test_a_thinned_line_has_few_points_and_keeps_the_peaks_and_the_mean(losses, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "BUCKETS", 8)
        series = Series()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(losses)), max_size=5)))
        for start, end in zip([0, *cuts], [*cuts, len(losses)], strict=True):
            series.extend(list(range(start, end)), losses[start:end])
    points = series.points
    assert len(points) <= 2 * (2 * 8 + 1)
    assert set(points) <= set(enumerate(losses))
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert max(y for _, y in points) == max(losses)
    assert min(y for _, y in points) == min(losses)
    assert len(series) == len(losses)
    means = series.means
    assert [x for x, _ in means] == sorted(x for x, _ in means)
    assert all(min(losses) - 1 <= y <= max(losses) + 1 for _, y in means)


def test_a_short_line_is_kept_as_it_is():
    series = Series()
    series.extend(list(range(2000)), [float(i % 7) for i in range(2000)])
    assert series.points == [(i, float(i % 7)) for i in range(2000)]
    assert series.width == 1


@given(st.lists(st.floats(0, 1e8) | st.sampled_from([math.inf, -math.inf, math.nan, 1e12]), max_size=40))
def test_what_cannot_be_drawn_is_counted(values):
    series = Series()
    series.extend(list(range(len(values))), values)
    drawn = [y for y in values if abs(y) < 1e9]
    assert [y for _, y in series.points] == drawn
    assert series.lost == len(values) - len(drawn)


@given(st.integers(1, 300), st.integers(0, 300))
def test_going_back_forgets_what_came_after(count, after):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "BUCKETS", 8)
        series = Series()
        series.extend(list(range(1, count + 1)), [1.0] * count)
        series.drop(after)
        assert all(x <= after for x, _ in [*series.points, *series.means, *series.recent])
        assert bool(series.points) == (after >= 1)
        more = list(range(after + 1, after + 50))
        series.extend(more, [2.0] * len(more))
    assert [x for x, _ in series.points] == sorted(x for x, _ in series.points)
    assert series.points[-1][0] > after


@given(POINTS, st.integers(2, 80))
def test_downsampling_keeps_the_ends_and_invents_nothing(points, n):
    kept = curves.downsample(points, n)
    assert len(kept) <= max(n, 2)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert set(kept) <= set(points)
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})


def test_downsampling_keeps_a_spike():
    points = [(float(i), 1.0) for i in range(1000)]
    points[437] = (437.0, 9.0)
    assert (437.0, 9.0) in curves.downsample(points, 50)


EVENTS = st.sampled_from(
    [
        step(1),
        step(2, 1.25),
        events.Evaluated(step=0, loss=3),
        events.Evaluated(step=2, loss=2),
        events.Sampled(step=2, answers=[{"prompt": "Where?", "expected": "", "text": "Here."}]),
        events.Saved(step=2, path="checkpoints/step-2", bytes=9),
        events.Warned(words="hm"),
        "\n",
        "not json\n",
        "7\n",
        '{"type":"of another time"}\n',
        '{"type":"step","step":3,"loss":null,"learning_rate":1,"grad_norm":1}\n',
        '{"type":"step"}\n',
        '{"type":"warned","words":"torn',  # the next line is appended to it
    ]
)


def state(curve):
    named = {name: value for name, value in vars(curve).items() if not isinstance(value, Series)}
    return named | {"points": [s.points for s in (curve.losses, curve.rates, curve.norms)]}


@given(st.lists(EVENTS, max_size=15), st.data())
def test_any_cut_of_the_file_gives_the_same_curve(tmp_path_factory, happened, data):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    whole = "".join(each if isinstance(each, str) else events.dump(each) for each in happened).encode()
    expected = [event for line in whole.split(b"\n")[:-1] if (event := events.parse(line))]
    in_pieces = Curve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "CHUNK", data.draw(st.integers(1, 400)))
        for end in sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4))):
            path.write_bytes(whole[:end])
            in_pieces.read(path)
    path.write_bytes(whole)
    in_pieces.read(path)
    at_once = Curve()
    at_once.read(path)
    assert state(in_pieces) == state(at_once)
    assert len(at_once.losses) == sum(isinstance(event, events.Step) for event in expected)
    assert at_once.warnings == [event for event in expected if isinstance(event, events.Warned)]


def test_a_run_without_a_file_has_an_empty_curve(tmp_path):
    curve = Curve()
    curve.read(tmp_path / "events.jsonl")
    assert (len(curve.losses), curve.offset) == (0, 0)


def test_the_final_report_does_not_bend_the_held_out_line(tmp_path):
    path = tmp_path / "events.jsonl"
    report = events.Evaluated(step=40, loss=1.7, final={"rows": 9})
    write(path, events.Evaluated(step=0, loss=2.0), events.Evaluated(step=40, loss=1.5), step(80))
    write(path, events.Evaluated(step=80, loss=1.6), events.Saved(step=40, path="adapter", bytes=9), report)
    curve = Curve()
    curve.read(path)
    assert sorted(curve.checks.items()) == [(0, 2.0), (40, 1.5), (80, 1.6)]
    assert curve.held == [(0, 2.0), (40, 1.5)]
    assert curve.base == 2.0


def test_a_resumed_run_tells_its_later_steps_again(tmp_path):
    path = tmp_path / "events.jsonl"
    answers = [{"prompt": "Where?", "text": "Here."}]
    write(path, started(), *[step(n, 9.0) for n in range(1, 9)], events.Evaluated(step=8, loss=9))
    write(path, events.Saved(step=4, path="checkpoints/step-4", bytes=1), events.Sampled(step=8, answers=answers))
    write(path, events.Saved(step=8, path="checkpoints/step-8", bytes=1), events.Warned(words="told", step=7))
    write(path, events.Warned(words="mended", step=8, did="acted"), events.Paused(step=8, memory_bytes=5))
    curve = Curve()
    curve.read(path)
    assert curve.paused.memory_bytes == 5
    write(path, started(again=4), *[step(n, 1.0) for n in range(5, 7)], events.Evaluated(step=6, loss=1))
    curve.read(path)
    assert curve.losses.points == [(1, 9.0), (2, 9.0), (3, 9.0), (4, 9.0), (5, 1.0), (6, 1.0)]
    assert (curve.checks, curve.samples, curve.saved, curve.resumed) == ({6: 1}, {}, [4], [4])
    assert [warned.words for warned in curve.warnings] == ["mended"]
    assert curve.paused is None


def test_memory_stays_the_same_however_long_the_run(tmp_path):
    path = tmp_path / "events.jsonl"
    line = json.loads(events.dump(step(1)))
    with open(path, "w") as file:
        for number in range(1, 30_001):
            line["step"], line["loss"] = number, 3 + math.sin(number)
            file.write(json.dumps(line) + "\n")
    curve = Curve()
    curve.read(path)
    while curve.behind:
        curve.read(path)
    assert len(curve.losses) == 30_000
    assert len(curve.losses.points) <= 4 * curves.BUCKETS + 2
    assert max(y for _, y in curve.losses.points) == max(3 + math.sin(n) for n in range(1, 30_001))
