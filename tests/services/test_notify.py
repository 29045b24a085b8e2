"""Notices: each mark once and in order, whoever looks; the ways they go, what they hold, and quiet hours."""

import json
import logging
import os
import stat
import tempfile
import threading
import time as clock
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.errors import StudioError
from studio.domain.notices import Notice, NotifySettings
from studio.domain.records import Run, Status
from studio.services import notify
from studio.services.notify import LOOK, Notify, notice_of
from studio.storage.paths import Home
from studio.studio import Studio
from tests.commands import played

NIGHT, MORNING = datetime(2026, 1, 5, 23, 30), datetime(2026, 1, 6, 7, 0)
QUIET = {"quiet_from": "22:00", "quiet_to": "07:00"}


class Paper:
    """Runs that are what the test says; the lock of all writers is a lock of this process."""

    def __init__(self, *runs: Run) -> None:
        self.runs = list(runs)

    def list(self) -> list[Run]:
        return self.runs

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


class Server:
    """A webhook on this machine: answers with these codes in turn, then 200, and keeps what it got."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.got: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = outer.codes.pop(0) if outer.codes else 200
                outer.got.append(body)
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/services/secret-part"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(notify, "PAUSE", 0.01)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A notify-send on the path that writes down its arguments; returns them a line each."""
    folder, heard = tmp_path / "bin", tmp_path / "heard"
    folder.mkdir()
    tool = folder / "notify-send"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {heard}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: heard.read_text().splitlines() if heard.exists() else []


def run(home: Path, id: str = "desk-1", status: Status = Status.TRAINING, step: int = 0, **facts: Any) -> Run:
    folder = home / "runs" / id
    folder.mkdir(parents=True, exist_ok=True)
    ended = None if status.active else datetime.now(UTC).isoformat()
    shown: dict[str, Any] = {"name": "desk", "model": "m", "dataset": "d", "method": "lora", "created": "2026"}
    return Run(id=id, path=str(folder), status=status, step=step, steps=100, **({"ended": ended} | shown | facts))


def teller(home: Home, paper: Paper, **options: Any) -> Notify:
    return Notify(home, paper, **options)  # type: ignore[arg-type]


def finish(told: Notify) -> None:
    """Wait until everything is sent."""
    told._pool.submit(lambda: None).result()


@pytest.mark.spec("U29.1")
def test_a_webhook_gets_each_quarter_once(home: Home, server: Server) -> None:
    paper = Paper(run(home.root))
    told = teller(home, paper)
    told.change(webhook=server.address)
    for step in (0, 10, 25, 30, 50, 74, 75, 99, 100):
        paper.runs[0].step = step
        assert told.look() == LOOK
    paper.runs[0].status, paper.runs[0].seconds = Status.FINISHED, 90.0
    assert told.look() is None
    told.look()
    finish(told)
    assert [each["percent"] for each in server.got] == [25, 50, 75, 100]
    assert server.got[0] == {
        "run": "desk-1",
        "event": "progress",
        "percent": 25,
        "words": "desk, run 1 has passed 25 %.",
    }
    assert server.got[-1]["event"] == "finished"


def test_a_restart_tells_nothing_again_and_nothing_is_left_out(home: Home, server: Server) -> None:
    paper = Paper(run(home.root, step=60))
    first = teller(home, paper)
    first.change(webhook=server.address)
    first.look()
    finish(first)
    second = teller(home, paper)
    second.look()
    assert not second.recent()
    paper.runs[0] = run(home.root, status=Status.FINISHED, step=100)
    third = teller(home, paper)  # it ended while nobody looked
    third.look()
    finish(third)
    assert [each["percent"] for each in server.got] == [50, 100]


def test_what_ended_before_the_studio_could_tell_stays_untold(home: Home) -> None:
    paper = Paper(run(home.root, status=Status.FINISHED, step=100))
    told = teller(home, paper)
    told.look()
    told.look()
    assert not told.recent()


def test_of_two_studios_one_sends_and_both_tell_their_pages(home: Home, server: Server) -> None:
    paper = Paper(run(home.root, step=10))
    one, other = teller(home, paper), teller(home, paper)
    one.change(webhook=server.address)
    one.look(), other.look()
    paper.runs[0].step = 26
    one.look(), other.look()
    finish(one), finish(other)
    assert len(server.got) == 1
    assert [each.key for each in one.recent()] == [each.key for each in other.recent()] == ["25"]


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=30))
def test_each_mark_at_most_once_and_in_order(moves: list[tuple[int, bool]]) -> None:
    """However the steps go, back after a resume too, and however often the studio is started anew."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder).prepare()
        paper = Paper(run(home.root))
        told, marks = teller(home, paper), []
        for step, restarted in moves:
            if restarted:
                told = teller(home, paper)
            before = len(told.recent())
            paper.runs[0].step = step
            told.look()
            marks += [notice.percent for notice in told.recent()[before:]]
        assert marks == sorted(set(marks))
        reached = max((step for step, _ in moves), default=0)
        assert (marks[-1] if marks else 0) == min(75, reached // 25 * 25)


@pytest.mark.spec("U29.2")
def test_a_failure_is_urgent_and_holds_nothing_of_the_data(home: Home, desktop: Callable[[], list[str]]) -> None:
    paper = Paper(run(home.root, step=41))
    told = teller(home, paper)
    told.change(desktop=True)
    told.look()
    finish(told)
    paper.runs[0] = run(home.root, status=Status.FAILED, step=41, error="Row 7, 'my secret', is no number.")
    told.look()
    finish(told)
    heard = desktop()
    assert "--urgency=normal" in heard[:5]
    assert "--urgency=critical" in heard[5:]
    assert heard[-1] == "desk, run 1 failed at step 41 of 100. Its page says why."
    assert "secret" not in "".join(heard)


@pytest.mark.spec("U16.4")
@pytest.mark.parametrize(("status", "event"), [(Status.FAILED, "failed"), (Status.FINISHED, "finished")])
def test_what_ends_right_after_it_left_the_queue_is_told(home: Home, status: Status, event: str) -> None:
    paper = Paper(run(home.root, status=Status.QUEUED))
    told = teller(home, paper)
    told.look()
    paper.runs = [run(home.root, status=status)]
    told.look()
    assert [each.event for each in told.recent()] == [event]


def test_only_a_pause_nobody_asked_for_is_told(home: Home) -> None:
    asked = run(home.root, status=Status.PAUSED, step=5)
    assert notice_of(asked) is None
    by_itself = notice_of(asked.model_copy(update={"error": "The disk is full."}))
    assert by_itself
    assert by_itself.event == "paused"
    assert notice_of(run(home.root, status=Status.STOPPED, step=5)) is None


@pytest.mark.spec("U29.5")
def test_nothing_is_sent_that_was_not_switched_on(home: Home, server: Server, desktop: Callable[[], list[str]]) -> None:
    paper = Paper(run(home.root))
    told = teller(home, paper)
    assert told.test() == {}
    told.look()
    paper.runs[0].step = 30
    told.look()
    finish(told)
    assert not desktop()
    told.change(webhook=server.address, quarters=False)
    paper.runs[0].step = 60
    told.look()
    finish(told)
    assert not server.got
    assert [each.percent for each in told.recent()] == [25]


@pytest.mark.spec("U29.5")
def test_quiet_hours_hold_back_and_tell_the_last_of_each_run_after(home: Home, server: Server) -> None:
    at = NIGHT
    paper = Paper(run(home.root, step=30), run(home.root, "sql-2", step=60))
    told = teller(home, paper, clock=lambda: at)
    told.change(webhook=server.address, **QUIET)
    told.look()
    paper.runs = [run(home.root, status=Status.FINISHED, step=100), run(home.root, "sql-2", Status.STOPPED, 61)]
    waits = told.look()
    finish(told)
    assert not server.got
    assert not told.recent()
    assert waits == pytest.approx(timedelta(hours=7, minutes=30).total_seconds(), abs=2)
    at = MORNING
    again = teller(home, paper, clock=lambda: at)  # another studio, the next morning
    assert again.look() is None
    finish(again)
    assert {each["run"]: each["percent"] for each in server.got} == {"desk-1": 100, "sql-2": 50}
    again.look()
    finish(again)
    assert len(server.got) == 2


@given(st.times(), st.times(), st.times())
def test_quiet_hours_and_the_rest_of_the_day_are_the_whole_day(now: time, start: time, end: time) -> None:
    a, b = start.strftime("%H:%M"), end.strftime("%H:%M")
    one, rest = NotifySettings(quiet_from=a, quiet_to=b), NotifySettings(quiet_from=b, quiet_to=a)
    assert one.quiet(now) is not rest.quiet(now) or a == b
    assert not NotifySettings(quiet_from=a).quiet(now)


def test_a_webhook_is_asked_again_where_that_may_help(home: Home, server: Server) -> None:
    told = teller(home, Paper())
    told.change(webhook=server.address)
    server.codes = [503, 500]
    assert told.test() == {"webhook": ""}
    assert len(server.got) == 3
    server.codes = [404]
    assert told.test() == {"webhook": "127.0.0.1 answered 404 Not Found."}
    assert len(server.got) == 4
    assert told.outbox.failed == {"webhook": "127.0.0.1 answered 404 Not Found."}
    told.test()
    assert told.outbox.failed == {}, "it works again"


def test_a_dead_webhook_is_shown_and_logged_without_its_address(
    home: Home, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.http.shutdown()
    server.http.server_close()
    told = teller(home, Paper())
    told.change(webhook=server.address)
    with caplog.at_level(logging.WARNING):
        found = told.test()
    assert found == {"webhook": "127.0.0.1 cannot be reached."}
    assert "secret-part" not in caplog.text
    assert "127.0.0.1 cannot be reached" in caplog.text


def test_a_desktop_that_refuses_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "notify-send"
    tool.write_text("#!/bin/sh\necho no session bus >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (
        notify.desktop(Notice(key="", run="", event="test", percent=0, words="")) == "notify-send said: no session bus"
    )


def test_words_are_never_read_by_a_shell(home: Home, desktop: Callable[[], list[str]], tmp_path: Path) -> None:
    words = f"$(touch {tmp_path}/owned); --help"
    assert notify.desktop(Notice(key="", run="", event="test", percent=0, words=words)) == ""
    assert desktop()[-1] == words
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("address", ["ftp://host/x", "file:///etc/passwd", "http://", "host/x", "http://a b/"])
def test_other_addresses_are_refused(home: Home, address: str) -> None:
    told = teller(home, Paper())
    with pytest.raises(StudioError):
        told.change(webhook=address)
    assert told.settings.webhook == ""


def test_settings_are_kept_privately_and_a_broken_file_is_as_none(home: Home) -> None:
    told = teller(home, Paper())
    told.change(desktop=True, quiet_from="22:00")
    assert stat.S_IMODE(told.file.stat().st_mode) == 0o600
    assert teller(home, Paper()).settings == NotifySettings(desktop=True, quiet_from="22:00")
    told.file.write_text("{")
    assert told.settings == NotifySettings()


def test_the_queue_is_woken_only_while_something_is_watched(home: Home) -> None:
    studio = Studio()
    assert studio.notify.look() is None
    assert studio.queue.watch() is None


def test_a_studio_without_a_page_tells_of_a_run_that_another_process_started(
    home: Home, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LOOK", 0.05)
    monkeypatch.setenv("PLAN", json.dumps(played.PAUSING))
    data = tmp_path / "desk.csv"
    data.write_text("question,answer\n" + played.ROWS)
    serving, other = played.Studio(home.root), played.Studio(home.root)
    serving.lock.take()
    try:
        serving.lock.tell("", serving.queue.keep())
        serving.notify.change(webhook=server.address)
        config = {"model": {"id": "starter"}, "data": {"path": str(data)}}
        made = other.runs.prepare(TrainingConfig.model_validate(config))
        other.runs.start(made.id)
        until(lambda: server.got)
        assert (server.got[0]["run"], server.got[0]["percent"]) == (made.id, 25)
        other.runs.pause(made.id)
        until(lambda: not other.runs.get(made.id).status.active)
        Path(made.path, "plan.json").write_text(json.dumps(played.WELL[2:]))
        other.runs.resume(made.id)  # rings as well
        until(lambda: server.got[-1]["event"] == "finished")
    finally:
        serving.lock.release()


def until(condition: Callable[[], Any]) -> None:
    limit = clock.monotonic() + 30
    while not condition():
        assert clock.monotonic() < limit, "it did not come to that"
        clock.sleep(0.05)
