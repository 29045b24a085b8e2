"""Folding events into the state of a run: the same however they were cut, and an honest time left."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain import events
from studio.domain.events import Phase
from studio.services import progress as progress_module
from studio.services.progress import Progress, words


def step(number, elapsed, loss=1.0):
    return events.Step(
        step=number,
        loss=loss,
        learning_rate=1e-4,
        grad_norm=1,
        tokens=100 * number,
        tokens_per_second=50,
        memory_bytes=10,
        elapsed=elapsed,
    )


def started(steps=10):
    return events.Started(
        steps=steps, rows=9, eval_rows=1, tokens_per_epoch=5, trainable_parameters=3, device="cpu", precision="fp32"
    )


def folded(*all_events):
    progress = Progress()
    progress.feed("".join(map(events.dump, all_events)).encode())
    return progress


def state(progress):
    return {name: value for name, value in vars(progress).items()} | {"left": progress.seconds_left}


LINES = st.sampled_from(
    [
        events.dump(started()),
        events.dump(step(1, 1.5)),
        events.dump(step(2, 2.25)),
        events.dump(Phase(words="Prüfen … 読む", done=3, total=7)),
        events.dump(events.Evaluated(step=0, loss=3)),
        events.dump(events.Evaluated(step=2, loss=2)),
        events.dump(events.Saved(step=2, path="adapter", bytes=9)),
        events.dump(events.Warned(words="hm")),
        events.dump(events.Finished(step=2, stopped=True)),
        "\n",
        "not json\n",
        '{"type":"of another time"}\n',
    ]
)


@given(st.lists(LINES, max_size=12), st.data())
def test_any_cut_of_the_bytes_gives_the_same_state(lines, data):
    whole = "".join(lines).encode() + b'{"type":"phase","words":"half'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    at_once, in_pieces = Progress(), Progress()
    at_once.feed(whole)
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        in_pieces.feed(whole[begin:end])
    assert state(in_pieces) == state(at_once)


def test_the_time_left_is_unknown_before_three_steps_and_then_an_interval():
    progress = folded(started(), step(1, 10), step(2, 12))
    assert progress.seconds_left is None
    progress.feed(events.dump(step(3, 15)).encode())
    low, high = progress.seconds_left
    assert low < 7 * 2.5 < high  # seven steps to go, which took 2 and 3 seconds


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=60))
def test_the_time_left_is_ordered_and_never_negative(times):
    moments = [sum(times[: n + 1]) for n in range(len(times))]
    low, high = folded(started(1000), *[step(n + 1, moment) for n, moment in enumerate(moments)]).seconds_left
    assert 0 <= low <= high < math.inf


def test_steady_steps_narrow_the_interval_to_the_truth():
    low, high = folded(started(100), *[step(n, 2.0 * n) for n in range(1, 41)]).seconds_left
    assert (low, high) == (120, 120)


def test_an_engine_that_goes_on_after_another_does_not_spoil_the_time_left():
    before = [started(20), *[step(n, 100 + n) for n in range(1, 6)]]
    after = [started(20), *[step(n, 3 + n) for n in range(6, 10)]]  # its clock began anew
    low, high = folded(*before, *after).seconds_left
    assert low == high == 11


@pytest.mark.parametrize("end", [events.Paused(step=3, elapsed=4), None])
def test_an_engine_that_comes_up_again_is_not_evaluating(end):
    before = [started(), *[step(n, n) for n in range(1, 4)], *([end] if end else [])]
    progress = folded(*before, Phase(words="Starting the engine", elapsed=0.1))
    assert (progress.training, progress.evaluating, progress.end) == (False, False, None)
    progress = folded(*before, Phase(words="Starting the engine", elapsed=0.1), started())
    assert (progress.training, progress.evaluating) == (True, False)
    assert folded(*before[:4], Phase(words="Saving the adapter", elapsed=5)).evaluating


def test_no_time_is_left_while_evaluating_or_at_the_end():
    base = [started(), *[step(n, n) for n in range(1, 8)]]
    assert folded(*base, Phase(words="Comparing", elapsed=8)).seconds_left is None
    assert folded(*base, events.Finished(step=7)).seconds_left is None


def test_base_and_held_out_loss_are_told_apart():
    progress = folded(started(), events.Evaluated(step=0, loss=3), step(1, 1), events.Evaluated(step=1, loss=2))
    assert (progress.base_loss, progress.eval_loss) == (3, 2)


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        (Phase(words="Loading the model"), "Loading the model"),
        (Phase(words="Reading", done=1200, total=4000, unit="rows"), "Reading, 1,200 of 4,000 rows"),
        (Phase(words="Reading", done=1200, unit="rows"), "Reading, 1,200 rows"),
        (Phase(words="Fetching", done=2.1e9, total=8e9, unit="bytes"), "Fetching, 2.1 GB of 8.0 GB"),
    ],
)
def test_a_phase_reads_as_one_line(phase, line):
    assert words(phase) == line


@given(
    st.lists(
        st.one_of(
            st.floats(0.01, 9).map(lambda seconds: ("step", seconds)),
            st.sampled_from([("check", 0.0), ("engine", 0.0), ("torn", 0.0)]),
        ),
        max_size=60,
    )
)
def test_steps_that_are_skipped_leave_no_trace(happened):
    lines, number, elapsed = [events.dump(started(99))], 0, 0.0
    for kind, seconds in happened:
        if kind == "step":
            number, elapsed = number + 1, elapsed + seconds
            lines.append(events.dump(step(number, elapsed)))
        elif kind == "check":
            lines.append(events.dump(events.Evaluated(step=number, loss=2, elapsed=elapsed)))
        elif kind == "torn":
            lines.append('{"type":"warned","words":\n')
        else:
            elapsed = 0.0
            lines += [events.dump(Phase(words="Loading")), events.dump(started(99))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_module, "RECENT", 4)
        at_once, each = Progress(), Progress()
        at_once.feed("".join(lines).encode())
        for line in lines:
            each.feed(line.encode())
    assert state(at_once) == state(each)
