"""The charts: what is drawn stands for the data, whatever the data is."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.services.curve import Series
from studio.ui import chart

POINTS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400).map(
    lambda ys: [(float(i), y) for i, y in enumerate(ys)]
)


@given(POINTS, st.integers(1, 31))
def test_the_average_stays_within_the_values(points, width):
    values = [y for _, y in points]
    mean = chart.average(points, width)
    assert [x for x, _ in mean] == [x for x, _ in points]
    assert all(min(values) - 1e-3 <= y <= max(values) + 1e-3 for _, y in mean)


def series(points):
    """Return points as the curve keeps them."""
    made = Series()
    points = list(points)
    made.extend([x for x, _ in points], [y for _, y in points])
    return made


def loss(train, *rest):
    return chart.loss(series(train), *rest)


def pictures(figure):
    """The figure's two pictures, parsed; a number that is not one would show as nan or inf."""
    assert not re.search(r"\b(nan|inf)\b", figure.split("<svg", 1)[1])
    return {svg.attrib["class"]: svg for svg in ET.fromstring(figure).iter("svg")}


@given(
    st.lists(st.floats(0, 1e8) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=60),
    st.lists(st.floats(0, 1e8) | st.just(math.nan), max_size=8),
    st.integers(0, 500),
    st.none() | st.floats(allow_nan=True),
)
def test_any_loss_can_be_drawn(train, held, steps, base):
    figure = loss(
        [(float(i + 1), y) for i, y in enumerate(train)], [(i * 10.0, y) for i, y in enumerate(held)], steps, base
    )
    if not any(map(math.isfinite, [*train, *held])):
        assert figure == ""
    else:
        assert set(pictures(figure)) == {"desk", "phone"}


@pytest.mark.parametrize("values", [[1.5], [2.0] * 40, [0.0] * 3])
def test_one_point_and_equal_values_are_visible(values):
    figure = loss([(i + 1, v) for i, v in enumerate(values)], [], 100)
    for picture in pictures(figure).values():
        paths = [node.attrib["d"] for node in picture.iter("path")]
        assert paths
        assert all("L" in d for d in paths)


def test_the_empty_part_is_what_is_left():
    figure = loss([(float(i), 2.0 - i / 500) for i in range(1, 101)], [(0, 2.2), (80, 1.9)], 1000, 2.2)
    assert "900 steps to go" in figure
    desk = pictures(figure)["desk"]
    drawn = [float(x) for d in desk.iter("path") for x in re.findall(r"[ML]([\d.]+) ", d.attrib["d"])]
    assert max(drawn) < 980 * 0.2


def test_zones_need_the_base_models_loss():
    held = [(0, 2.0), (50, 1.5)]
    with_base = loss([(1, 2.1), (50, 1.4)], held, 50, 2.0)
    assert "Problem: no better than the base model, 2.00" in with_base
    assert "Good: a fifth below the base model" in with_base
    assert "Problem" not in loss([(1, 2.1)], held, 50)


def test_without_held_out_rows_the_caption_says_so():
    assert "No held-out rows" in loss([(1, 2.0), (2, 1.9)], [], 10)


def test_steps_without_a_finite_loss_are_counted_not_drawn():
    assert "2 steps without a finite loss" in loss([(1, 2.0), (2, math.nan), (3, math.inf)], [], 10)


def test_the_text_alternative_and_the_readout_tell_the_values():
    figure = loss([(i, 3 - i / 100) for i in range(1, 101)], [(100, 2.05)], 100)
    desk = pictures(figure)["desk"]
    assert "held-out 2.050 at step 100" in desk.attrib["aria-label"]
    assert "Step 100 · training" in ET.fromstring(figure).attrib["data-points"]
    assert desk.attrib["data-scale"] == "[52,914,100]"


def test_last_values_do_not_cover_each_other():
    figure = loss([(i, 2.0) for i in range(1, 101)], [(0, 2.4), (100, 2.001)], 100)
    texts = [t for t in pictures(figure)["desk"].iter("text") if "font-weight" in t.attrib.get("style", "")]
    assert abs(float(texts[0].attrib["y"]) - float(texts[1].attrib["y"])) >= 14


@pytest.mark.spec("U34.1")
def test_at_most_300_points_are_drawn():
    figure = loss([(i, 2 + math.sin(i)) for i in range(1, 20_001)], [], 20_000)
    for picture in pictures(figure).values():
        assert all(path.attrib["d"].count("L") < 300 for path in picture.iter("path"))


def test_the_learning_rate_reads_as_two_digits():
    assert "learning rate 1.6e-4 at step 1" in chart.learning_rate(series([(1, 1.634e-4)]), 10)


def test_a_flag_stands_at_its_step():
    figure = loss([(i, 2.0 + i / 100) for i in range(1, 101)], [(0, 2.4), (40, 2.1)], 100, 2.4, [(40, "kept")])
    desk = pictures(figure)["desk"]
    (flag,) = [line for line in desk.iter("line") if line.attrib["stroke"] == "var(--warn)"]
    check = list(desk.iter("circle"))[-1]
    assert flag.attrib["x1"] == check.attrib["cx"]


def test_the_gradient_norm_has_its_chart():
    figure = chart.gradient(series((i, 1 + i % 7) for i in range(1, 200)), 300)
    assert "gradient norm" in pictures(figure)["desk"].attrib["aria-label"]


def test_words_of_close_flags_stand_one_above_the_other():
    figure = loss(
        [(i, 2.0) for i in range(1, 101)], [], 100, None, [(50, "resumed"), (51, "batch halved"), (99, "kept")]
    )
    words = {text.text: text for text in pictures(figure)["desk"].iter("text") if "--warn" in text.get("style", "")}
    assert float(words["resumed"].get("y")) - float(words["batch halved"].get("y")) >= 14
    assert words["kept"].get("anchor", words["kept"].get("text-anchor")) == "end"  # else it leaves the picture


@pytest.mark.parametrize(("steps", "said"), [(200, "every step. Strong: average of 15."), (9000, "lowest and highest")])
def test_the_caption_says_what_the_lines_are(steps, said):
    assert f"Faint: {said}" in loss([(i, 2 + math.sin(i)) for i in range(1, steps + 1)], [], steps)
