"""The queue: who goes when, as many at once as fit, exactly one starter, and nothing lost whoever is killed."""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.errors import NotFound, StudioError
from studio.domain.records import Run, Status
from studio.services import jobs, queue
from studio.services.machine import Gpu, Machine, MachineFacts
from studio.services.place import place_of
from studio.services.queue import Queue
from studio.storage.locks import Lock
from studio.storage.paths import Home
from tests.commands import played

ROOT = Path(__file__).parents[2]
FINISHED = {"emit": {"type": "finished", "step": 1, "result": {}}}
FAILED = {"emit": {"type": "failed", "message": "No.", "hint": ""}}
WAITS = [{"wait": "go"}, FINISHED]
Make = Callable[[], played.Studio]
FACTS = MachineFacts(
    processor="",
    cores=2,
    memory_bytes=24 * 10**9,
    memory_free_bytes=20 * 10**9,
    disk_free_bytes=0,
    bf16=False,
    words="",
)


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> MachineFacts:
    """The machine as this test wants it: two cores and 20 of 24 GB free, to begin with."""
    shown = FACTS.model_copy()
    monkeypatch.setattr(Machine, "facts", lambda self: shown)
    return shown


@pytest.fixture
def make(home: Home, facts: MachineFacts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Build the studio anew, as a restart does. What engines are left is ended."""
    monkeypatch.setattr(queue, "LOOK", 0.05)
    yield lambda: played.Studio(home.root)
    for folder in home.runs.iterdir():
        if (record := jobs.recorded(folder)) and jobs.alive(record):
            jobs.end(record.pid)


@pytest.fixture
def prepared(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Prepare a run whose engine plays these steps; it is not in the queue yet."""
    data = tmp_path / "desk.csv"
    data.write_text("question,answer\n" + played.ROWS)
    dataset = make().datasets.add(data, name="desk")

    def ready(*steps: dict[str, Any], **changes: Any) -> str:
        monkeypatch.setenv("PLAN", json.dumps(steps or WAITS))
        document = {"model": {"id": "starter"}, "data": {"path": dataset.id}} | changes
        return make().runs.prepare(TrainingConfig.model_validate(document)).id

    return ready


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def go(studio: played.Studio, run_id: str) -> None:
    """Let an engine that waits finish, and see it end."""
    Path(studio.runs.get(run_id).path, "go").touch()
    until(lambda: not studio.runs.get(run_id).status.active)


def test_a_run_starts_when_nothing_is_at_work_else_it_waits_and_says_why(make: Make, prepared: Any) -> None:
    one, two, three = prepared(), prepared(), prepared()
    studio = make()
    assert studio.queue.ahead() == ""
    assert studio.queue.submit(one).status is Status.STARTING
    assert studio.queue.ahead() == "desk, run 1 goes first"
    waiting = studio.queue.submit(two)
    assert (waiting.status, waiting.phase) == (Status.QUEUED, "desk, run 1 goes first")
    assert studio.queue.submit(three).phase == "desk, run 2 goes first"
    assert studio.queue.ahead() == "desk, run 1 and 2 more go first"
    go(studio, one)
    assert studio.queue.advance()
    assert [studio.runs.get(each).status for each in (two, three)] == [Status.STARTING, Status.QUEUED]
    with pytest.raises(StudioError, match="desk, run 2 does not wait to start: it is starting"):
        studio.queue.submit(two)


def test_a_run_that_is_only_prepared_is_not_in_the_queue(make: Make, prepared: Any) -> None:
    run = prepared()
    assert make().queue.list() == []
    assert not make().queue.advance()
    assert (make().runs.get(run).status, make().runs.get(run).since) == (Status.QUEUED, None)


def test_the_queue_survives_a_restart(make: Make, prepared: Any) -> None:
    runs = [prepared() for _ in range(4)]
    for run, priority in zip(runs, (0, 0, 1, 5), strict=True):
        make().queue.submit(run, priority)
    assert [run.id for run in make().queue.list()] == [runs[3], runs[2], runs[1]]
    assert [run.priority for run in make().queue.list()] == [5, 1, 0]


def test_places_are_changed(make: Make, prepared: Any) -> None:
    first, *runs = [prepared() for _ in range(4)]
    for run in (first, *runs):
        make().queue.submit(run)
    a, b, c = runs

    def order() -> list[str]:
        return [run.id for run in make().queue.list()]

    make().queue.up(c)
    assert order() == [a, c, b]
    make().queue.up(a)
    assert order() == [a, c, b]
    make().queue.first(b)
    assert order() == [b, a, c]
    make().queue.submit(c, priority=9)
    assert order() == [c, b, a]
    with pytest.raises(StudioError, match="desk, run 1 is not in the queue"):
        make().queue.up(first)


def test_as_many_at_once_as_cores_and_memory_allow(make: Make, prepared: Any, facts: MachineFacts) -> None:
    facts.cores = 8
    studio = make()
    one, two, three, four = [prepared() for _ in range(4)]
    assert studio.queue.submit(one).status is Status.STARTING
    assert studio.queue.submit(two).status is Status.STARTING
    assert studio.queue.submit(three).phase == "desk, run 1 goes first"
    go(studio, two)
    facts.memory_free_bytes = 10**9
    studio.queue.advance()
    assert "it needs about" in studio.queue.get(three).phase
    assert "1.0 GB are free" in studio.queue.get(three).phase
    assert studio.queue.submit(four).phase == "desk, run 3 goes first"
    go(studio, one)
    studio.queue.advance()  # one always may
    assert studio.runs.get(three).status is Status.STARTING
    facts.memory_free_bytes, facts.memory_bytes = 20 * 10**9, 2 * 10**9  # the one just started has taken nothing yet
    studio.queue.advance()
    assert "it needs about" in studio.queue.get(four).phase


def test_each_card_takes_one_run(
    make: Make, prepared: Any, facts: MachineFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.gpu = Gpu(name="Card", memory_bytes=24 * 10**9, memory_free_bytes=20 * 10**9, bf16=True)
    cards = {"GPU-a": 20 * 10**9, "GPU-b": 20 * 10**9}
    monkeypatch.setattr(Machine, "card_room", lambda self: cards)
    studio = make()
    one, two, three = [prepared() for _ in range(3)]
    beside = prepared(hardware={"device": "cpu"})
    found = [studio.queue.submit(run).status for run in (one, two, three, beside)]
    assert found == [Status.STARTING, Status.STARTING, Status.QUEUED, Status.STARTING]

    def card_of(run: str) -> str:
        record = jobs.recorded(Path(studio.runs.get(run).path))
        assert record
        return psutil.Process(record.pid).environ().get("CUDA_VISIBLE_DEVICES", "")

    assert [card_of(one), card_of(two)] == ["GPU-a", "GPU-b"]
    go(studio, one)
    cards["GPU-a"] = 10**8  # somebody else took it
    studio.queue.advance()
    assert "100 MB are free" in studio.queue.get(three).phase
    cards["GPU-a"] = 20 * 10**9
    studio.queue.advance()
    assert card_of(three) == "GPU-a"


def test_a_run_waits_for_another_to_end_however_it_ends(make: Make, prepared: Any, facts: MachineFacts) -> None:
    facts.cores = 8
    studio = make()
    one = prepared({"wait": "go"}, FAILED)
    after = prepared()
    studio.queue.submit(one)
    assert studio.queue.submit(after, after=one).phase == "after desk, run 1"
    studio.queue.advance()
    assert studio.runs.get(after).status is Status.QUEUED
    go(studio, one)
    assert studio.runs.get(one).status is Status.FAILED
    studio.queue.advance()
    assert studio.runs.get(after).status is Status.STARTING


def test_a_wish_to_wait_that_can_never_be_granted_is_refused_or_said(make: Make, prepared: Any) -> None:
    busy, a, b, c, idle = [prepared() for _ in range(5)]
    studio = make()
    studio.queue.submit(busy)
    studio.queue.submit(a)
    studio.queue.submit(b, after=a)
    studio.queue.submit(c, after=b)
    with pytest.raises(StudioError, match="desk, run 2 cannot wait for desk, run 4: that one waits for desk, run 2"):
        studio.queue.submit(a, after=c)
    with pytest.raises(StudioError, match="a run does not wait for itself"):
        studio.queue.submit(a, after=a)
    with pytest.raises(NotFound):
        studio.queue.submit(a, after="none-1")
    assert studio.queue.submit(a, after=idle).phase == "after desk, run 5, which was never started"
    assert studio.queue.submit(a, after="").phase == "desk, run 1 goes first"


def paused_beside_another(make: Make, prepared: Any) -> tuple[str, str]:
    """One run that was paused and asked to go on, and one at work before it."""
    paused = prepared({"emit": {"type": "paused", "step": 1, "checkpoint": "checkpoints/step-1", "memory_bytes": 1}})
    other = prepared()
    studio = make()
    studio.queue.submit(paused)
    until(lambda: studio.runs.get(paused).status is Status.PAUSED)
    studio.queue.submit(other)
    Path(studio.runs.get(paused).path, "plan.json").write_text(json.dumps(WAITS))
    waiting = studio.queue.resume(paused)
    assert (waiting.status, waiting.phase) == (Status.QUEUED, "desk, run 2 goes first")
    return paused, other


def test_a_resumed_run_waits_for_its_turn(make: Make, prepared: Any) -> None:
    paused, other = paused_beside_another(make, prepared)
    studio = make()
    assert [run.id for run in studio.queue.list()] == [paused]
    with pytest.raises(StudioError, match="is queued: it cannot be resumed"):
        studio.queue.resume(paused)
    go(studio, other)
    studio.queue.advance()
    until(lambda: studio.runs.get(paused).status.working)
    place = place_of(studio.runs.get(paused).path)
    assert place
    assert not place.resume
    go(studio, paused)
    assert studio.runs.get(paused).status is Status.FINISHED


@pytest.mark.parametrize("way", ["pause", "stop"])
def test_a_run_that_waits_to_go_on_is_paused_again_when_it_is_to_wait_no_more(
    make: Make, prepared: Any, way: str
) -> None:
    paused, other = paused_beside_another(make, prepared)
    studio = make()
    assert getattr(studio.runs, way)(paused).status is Status.PAUSED
    go(studio, other)
    assert not studio.queue.advance()
    assert studio.runs.get(paused).status is Status.PAUSED
    assert studio.queue.resume(paused).status is Status.STARTING


def test_cancelled_twice_is_cancelled_once(make: Make, prepared: Any) -> None:
    one, two = prepared(), prepared()
    studio = make()
    studio.queue.submit(one)
    studio.queue.submit(two)
    assert studio.runs.stop(two).status is Status.STOPPED
    assert studio.runs.stop(two).status is Status.STOPPED
    go(studio, one)
    assert not studio.queue.advance()
    assert place_of(studio.runs.get(two).path)
    assert jobs.recorded(Path(studio.runs.get(two).path)) is None
    with pytest.raises(StudioError, match="it is stopped"):
        studio.queue.submit(two)


def test_cancelled_while_it_starts_it_ends_stopped(make: Make, prepared: Any) -> None:
    def submit(studio: played.Studio, run: str) -> None:
        with suppress(StudioError):  # it was cancelled before
            studio.queue.submit(run)

    stop = {"wait": "control/stop"}, {"emit": {"type": "finished", "step": 0, "stopped": True, "result": {}}}
    for _ in range(6):
        run = prepared(*stop)
        studio = make()
        work = [
            threading.Thread(target=submit, args=(make(), run)),
            threading.Thread(target=make().runs.stop, args=(run,)),
        ]
        random.shuffle(work)
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        until(lambda studio=studio, run=run: studio.runs.get(run).status is Status.STOPPED)


def test_several_starters_start_each_run_once_in_the_right_order(
    make: Make, prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty runs, random priorities and links, three studios that look all the time, one place."""
    chance = random.Random(7)
    names = [prepared({"append": '{"type":"phase","words":"here"}\n'}, FINISHED) for _ in range(21)]
    blocker, *names = names
    Path(make().runs.get(blocker).path, "plan.json").write_text(json.dumps(WAITS))
    studio = make()
    studio.queue.submit(blocker)
    links: dict[str, str] = {}
    priority = {}
    for place, run in enumerate(names):
        priority[run] = chance.randint(0, 3)
        if place and chance.random() < 0.5:
            links[run] = chance.choice(names[:place])
        studio.queue.submit(run, priority[run], links.get(run))
    expected: list[str] = []
    while len(expected) < len(names):
        free = [run for run in names if run not in expected and links.get(run) in (None, *expected)]
        expected.append(max(free, key=lambda run: (priority[run], -names.index(run))))
    started: list[str] = []
    crowded: list[str] = []
    begin = jobs.spawn_recorded

    def spawn(job: str, directory: Path, *args: Any) -> None:
        crowded.extend(run.id for run in studio.runs.list() if run.status.working)  # there is one place
        started.append(directory.name)
        begin(job, directory, *args)

    monkeypatch.setattr(jobs, "spawn_recorded", spawn)
    go(studio, blocker)
    others = [make() for _ in range(3)]

    def look(other: played.Studio) -> None:
        while other.queue.advance():
            time.sleep(0.01)

    threads = [threading.Thread(target=look, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (started, crowded) == (expected, [])
    until(lambda: not any(run.status.active for run in studio.runs.list()))
    for run in names:
        assert [event.type for event in jobs.read_events(Path(studio.runs.get(run).path, "events.jsonl"))[0]] == [
            "phase",
            "finished",
        ]


STUDIO = """
import sys
from studio.services import queue
from tests.commands import played
queue.LOOK = 0.05
studio = played.Studio()
studio.lock.take()
studio.lock.tell("", studio.queue.keep())
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def serving() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps the queue going, as one that serves the page does."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUDIO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_serving_studio_is_woken_and_a_killed_one_is_followed_by_the_next(make: Make, prepared: Any) -> None:
    one, two, three = prepared(), prepared(), prepared()
    studio = make()
    with serving() as process:  # it sleeps: nothing waits
        studio.queue.submit(one)
        studio.queue.submit(two)  # rings
        studio.queue.submit(three)
        go(studio, one)
        until(lambda: studio.runs.get(two).status is Status.STARTING)
        process.kill()
    assert studio.runs.get(two).status is Status.STARTING  # its engine goes on
    go(studio, two)
    assert studio.runs.get(three).status is Status.QUEUED  # nobody is alive to start it
    with serving():
        until(lambda: studio.runs.get(three).status is Status.STARTING)


def test_nothing_looks_while_nothing_waits(make: Make, prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "SPEAKS", 0.0)  # the engines here have spoken by then
    studio, looks = make(), []
    look = studio.queue._look
    monkeypatch.setattr(studio.queue, "_look", lambda *given: looks.append(1) or look(*given))
    studio.lock.tell("", studio.queue.keep())
    until(lambda: looks)
    time.sleep(6 * queue.LOOK)
    assert len(looks) == 1
    one, two = prepared(), prepared()
    make().queue.submit(one)
    make().queue.submit(two)
    until(lambda: len(looks) > 4)
    go(studio, one)
    until(lambda: studio.runs.get(two).status is Status.STARTING)
    time.sleep(6 * queue.LOOK)
    seen = len(looks)
    time.sleep(6 * queue.LOOK)
    assert len(looks) == seen


def test_who_follows_a_run_keeps_the_queue_going(make: Make, prepared: Any) -> None:
    one, two = prepared(), prepared(FINISHED)
    studio = make()
    studio.queue.submit(one)
    studio.queue.submit(two)
    threading.Timer(0.3, Path(studio.runs.get(one).path, "go").touch).start()
    assert [event.type for event in make().queue.follow(two)] == ["finished"]


def test_a_queue_that_cannot_start_says_so_and_tries_again(
    make: Make, prepared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = prepared(), prepared()
    studio = make()
    studio.queue.submit(one)
    studio.queue.submit(two)
    go(studio, one)
    command, studio.runs.command = studio.runs.command, ("/nowhere/python",)
    assert studio.queue.advance()
    assert "could not be started" in caplog.text
    studio.runs.command = command
    studio.queue.advance()
    assert studio.runs.get(two).status is Status.STARTING


# Without engines: every order of things


class Paper:
    """Runs on paper: a run at work is one that was started and not ended."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.states = root, {f"a-{n}": Status.QUEUED for n in range(number)}
        self.started: list[str] = []
        config = TrainingConfig.model_validate({"model": {"id": "starter"}, "data": {"path": "desk"}})
        for id in self.states:
            (root / id).mkdir()
            (root / id / "config.yaml").write_text(to_yaml(config, {}))
            (root / id / "lineage.json").write_text('{"model": {"parameters": 1000}}')

    def get(self, id: str) -> Run:
        place = place_of(self.root / id)
        facts = {"since": place.since, "priority": place.priority, "after": place.after} if place else {}
        known = {"name": "a", "model": "starter", "dataset": "d", "method": "lora", "created": "2026-01-01T00:00:00Z"}
        return Run(id=id, path=str(self.root / id), status=self.states[id], **known, **facts)

    def list(self) -> list[Run]:
        return [self.get(id) for id in self.states]

    def alone(self) -> Any:
        return nullcontext()

    def start(self, id: str) -> None:
        assert self.states[id] is Status.QUEUED
        self.states[id] = Status.TRAINING
        self.started.append(id)


ENDS = st.sampled_from([Status.FINISHED, Status.FAILED, Status.STOPPED, Status.INTERRUPTED])
RUNS = st.integers(0, 7)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), RUNS, st.integers(0, 3), st.none() | RUNS),
        st.tuples(st.just("end"), ENDS),
        st.tuples(st.sampled_from(["up", "first", "cancel"]), RUNS),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ACTS, st.sampled_from([2, 8, 12]))
def test_whatever_happens_the_right_one_goes_and_none_is_left(acts: list[Any], cores: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "facts", lambda self: FACTS.model_copy(update={"cores": cores}))
        home = Home(folder)
        home.runs.mkdir()
        paper = Paper(home.runs, 8)
        line = Queue(paper, Machine(home), Lock(home))  # type: ignore[arg-type]
        for act in acts:
            with suppress(StudioError):  # refused: a circle, or it is over
                match act:
                    case ("submit", run, priority, after):
                        line.submit(f"a-{run}", priority, after if after is None else f"a-{after}")
                    case ("end", how):
                        at_work = [id for id, state in paper.states.items() if state.working]
                        if at_work:
                            paper.states[at_work[0]] = how
                            line.advance()
                    case ("cancel", run):
                        if paper.states[f"a-{run}"] is Status.QUEUED:
                            paper.states[f"a-{run}"] = Status.STOPPED
                            line.advance()
                    case (verb, run):
                        getattr(line, verb)(f"a-{run}")
            at_work = [id for id, state in paper.states.items() if state.working]
            waiting = line.list()
            assert len(at_work) <= max(1, cores // 4)
            assert [(-run.priority, run.since, run.id) for run in waiting] == sorted(
                (-run.priority, run.since, run.id) for run in waiting
            )
            assert all(run.phase for run in waiting), "one could go and does not"
            free = [run for run in waiting if not run.phase.startswith("after")]
            assert not free or len(at_work) == max(1, cores // 4)
        assert len(paper.started) == len(set(paper.started))
        for _ in range(8):  # and then they all end: only what waits for a run that nobody started is left
            for id, state in paper.states.items():
                if state.working:
                    paper.states[id] = Status.FINISHED
            line.advance()
        left = {run.id: run for run in line.list()}
        for run in left.values():
            assert run.after in left or not paper.get(str(run.after)).since


def test_a_paused_run_is_waited_for_and_said(home: Home, facts: MachineFacts) -> None:
    paper = Paper(home.runs, 2)
    paper.states["a-0"] = Status.PAUSED
    line = Queue(paper, Machine(home), Lock(home))  # type: ignore[arg-type]
    assert line.submit("a-1", after="a-0").phase == "after a, run 0, which is paused"
    assert paper.started == []
