"""Tells the user how runs are doing: which marks are passed, each told once, on the ways that were switched on."""

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from studio.domain.errors import StudioError
from studio.domain.notices import WHOLE, Notice, NotifySettings
from studio.domain.records import Run, Status
from studio.domain.words import count, duration, interval, run_title
from studio.services.runs import Runs
from studio.storage.paths import Home, write_atomic

log = logging.getLogger(__name__)
QUARTERS = (75, 50, 25)
LOOK = 5.0  # seconds between two looks while a run is at work
FRESH = 600.0  # seconds a page may still tell what happened: a hidden one looks every half minute
DAY = timedelta(days=1)  # what ended while nobody looked is told when it was not longer ago
TIMEOUT, TRIES, PAUSE = 5.0, 3, 1.0  # of a webhook: seconds to answer, attempts, seconds between them
TOLD = "notified.json"  # in a run's folder
SCRIPT = "on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run"


class Outbox(BaseModel):
    """Content of `notices.json`: what quiet hours hold back, and which ways failed the last time, in words."""

    held: list[Notice] = []
    failed: dict[str, str] = {}


class Notify:
    """Looks at the runs of a home folder and tells what is new. Marks stand in each run's folder, so that of several
    studios and commands one tells a mark, once.

    `clock` returns the local time.
    """

    def __init__(self, home: Home, runs: Runs, clock: Callable[[], datetime] = datetime.now) -> None:
        self.runs, self.clock = runs, clock
        self.file, self.outbox_file = home.root / "notify.json", home.root / "notices.json"
        self._known: dict[tuple[str, str], set[str]] = {}  # by run: the marks told before, or by this process
        self._recent: deque[tuple[float, Notice]] = deque(maxlen=20)
        self._lock = threading.RLock()

    @property
    def settings(self) -> NotifySettings:
        """What the user chose; the usual where nothing was chosen yet, or the file cannot be read."""
        try:
            return NotifySettings.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.warning("%s is not used: %s", self.file, type(error).__name__)
        return NotifySettings()

    def change(self, **values: Any) -> NotifySettings:
        """Change some of the settings."""
        with self._lock:
            try:
                changed = NotifySettings.model_validate(self.settings.model_dump() | values)
            except ValidationError as error:
                field = error.errors()[0]
                raise StudioError(
                    f"{field['loc'][0]} cannot be {field['input']!r}.", field["msg"].removeprefix("Value error, ")
                ) from error
            write_atomic(self.file, changed.model_dump_json(indent=1), mode=0o600)  # a webhook's address is often a key
            self._note_failure("webhook", "")
        return changed

    @property
    def outbox(self) -> Outbox:
        with suppress(OSError, ValidationError):
            return Outbox.model_validate_json(self.outbox_file.read_bytes())
        return Outbox()

    def recent(self) -> list[Notice]:
        """Return what a page may still tell by itself."""
        since = time.monotonic() - FRESH
        return [notice for at, notice in list(self._recent) if at > since]

    def look(self, known: Sequence[Run] | None = None) -> float | None:
        """Tell what is new; return the seconds to the next look, None when there is nothing to wait for."""
        try:
            with self._lock:
                runs = self.runs.list() if known is None else known
                for run in runs:
                    self._look_at(run)
                waits = self._release()
        except (StudioError, OSError) as error:  # a full disk, a locked database
            log.warning("Nothing can be told now: %s", error)
            return LOOK
        return LOOK if any(run.status.working for run in runs) else waits

    def _look_at(self, run: Run) -> None:
        key, file, notice = (run.id, run.created), Path(run.path) / TOLD, notice_of(run)
        if key not in self._known:
            self._known[key] = set(_marks(file))
            if run.status.active:  # also one that waits: it may fail before the next look
                with suppress(FileExistsError), open(file, "x", encoding="utf-8") as new:
                    new.write("[]")  # from now on its end is told, whoever sees it first
            elif notice and not _missed(run, file):
                self._known[key].add(notice.key)
        known = self._known[key]
        if notice is None or _passed(notice.key, known):
            return
        claimed = self._claim(file, notice.key)
        known.add(notice.key)
        self._tell(notice, ways=claimed)  # what another process told goes to our pages only

    def _claim(self, file: Path, mark: str) -> bool:
        """Write down that a mark is told; False when it was before, or a later one."""
        with self.runs.alone():
            told = _marks(file)
            if _passed(mark, told):
                return False
            write_atomic(file, json.dumps([*told, mark]))
        return True

    def _tell(self, notice: Notice, ways: bool) -> None:
        chosen = self.settings
        if not chosen.wants(notice.event):
            return
        if chosen.quiet(self.clock().time()):
            if ways:
                self._hold(notice)
            return
        self._recent.append((time.monotonic(), notice))
        if ways and (chosen.desktop or chosen.webhook):
            self._pool.submit(self._send, notice, chosen)

    def _hold(self, notice: Notice) -> None:
        """Keep a notice until the quiet hours are over, of each run the last."""
        with self.runs.alone():
            box = self.outbox
            box.held = [*(each for each in box.held if each.run != notice.run), notice]
            write_atomic(self.outbox_file, box.model_dump_json())

    def _release(self) -> float | None:
        """Tell what was held back once it is not quiet any more; return the seconds until then, if anything is held."""
        if not self.outbox.held:
            return None
        now, chosen = self.clock(), self.settings
        if chosen.quiet(now.time()):
            left = (datetime.combine(now, clock_time.fromisoformat(chosen.quiet_to)) - now).total_seconds()
            return left % DAY.total_seconds() + 1
        with self.runs.alone():
            box = self.outbox
            held, box.held = box.held, []
            write_atomic(self.outbox_file, box.model_dump_json())
        for notice in held:
            self._tell(notice, ways=True)
        return None

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # one thread: notices arrive in order, and a command that ends waits until the last is sent
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="notify")

    def _send(self, notice: Notice, chosen: NotifySettings) -> dict[str, str]:
        """Send on every way that is switched on; return what went wrong on each, "" where nothing did."""
        found = {}
        if chosen.desktop:
            found["desktop"] = desktop(notice)
        if chosen.webhook:
            found["webhook"] = webhook(chosen.webhook, notice)
        for way, wrong in found.items():
            if wrong:
                log.warning("The %s was not told of %s: %s", way, notice.key, wrong)
            self._note_failure(way, wrong)
        return found

    def _note_failure(self, way: str, words: str) -> None:
        """Keep what went wrong the last time, for the Settings tab."""
        with suppress(StudioError, OSError):
            if self.outbox.failed.get(way, "") == words:
                return
            with self.runs.alone():
                box = self.outbox
                box.failed = {each: said for each, said in box.failed.items() if each != way}
                if words:
                    box.failed[way] = words
                write_atomic(self.outbox_file, box.model_dump_json())

    def test(self) -> dict[str, str]:
        """Send a test on every way that is switched on, also in quiet hours; return what went wrong on each."""
        notice = Notice(key="test", run="", event="test", percent=0, words="This is a test. Notices arrive here.")
        return self._pool.submit(self._send, notice, self.settings).result()


def _marks(file: Path) -> list[str]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_bytes())
        return [str(each) for each in found] if isinstance(found, list) else []
    return []


def _passed(mark: str, told: Iterable[str]) -> bool:
    """Whether a mark was told, or a later one: a run that was resumed from a checkpoint passes some again."""
    return mark in told or (mark.isdigit() and any(int(each) >= int(mark) for each in told if each.isdigit()))


def _missed(run: Run, file: Path) -> bool:
    """Whether a run that was looked at ended lately, while nobody looked."""
    return bool(run.ended) and file.exists() and datetime.now(UTC) - datetime.fromisoformat(str(run.ended)) < DAY


def notice_of(run: Run) -> Notice | None:
    """Return what there is to tell of a run in its present state."""
    title = run_title(run.id)
    percent = min(WHOLE, WHOLE * run.step // run.steps) if run.steps else 0
    at = f" at step {count(run.step)} of {count(run.steps)}" if run.steps else ""

    def notice(key: str, event: Any, percent: int, words: str) -> Notice:
        return Notice(key=key, run=run.id, event=event, percent=percent, words=words)

    match run.status:
        case Status.FINISHED:
            return notice(str(WHOLE), "finished", WHOLE, f"{title} has finished after {duration(run.seconds)}.")
        case Status.FAILED:
            return notice(f"failed {run.ended}", "failed", percent, f"{title} failed{at}. Its page says why.")
        case Status.INTERRUPTED:
            words = f"{title} was interrupted{at}. Its page says why."
            return notice(f"interrupted {run.ended}", "interrupted", percent, words)
        case Status.PAUSED if run.error:  # else the user paused it
            return notice(f"paused {run.ended}", "paused", percent, f"{title} paused itself{at}. Its page says why.")
        case Status.TRAINING | Status.EVALUATING:
            left = f", {interval(*run.seconds_left)} left" if run.seconds_left else ""
            passed = next((quarter for quarter in QUARTERS if percent >= quarter), 0)
            words = f"{title} has passed {passed} %{left}."
            return notice(str(passed), "progress", passed, words) if passed else None
    return None


def desktop_command(notice: Notice) -> list[str] | None:
    """Return the command that shows a notice on this desktop, or None where there is none."""
    if tool := shutil.which("notify-send"):
        urgency = "critical" if notice.event in ("failed", "interrupted") else "normal"
        return [tool, "--app-name=PEFT Studio", f"--urgency={urgency}", "--", "PEFT Studio", notice.words]
    if sys.platform == "darwin" and (tool := shutil.which("osascript")):
        return [tool, *(part for line in SCRIPT for part in ("-e", line)), "PEFT Studio", notice.words]
    return None


def has_desktop() -> bool:
    """Whether this machine has a way to show notices outside the page."""
    return desktop_command(Notice(key="", run="", event="test", percent=0, words="")) is not None


def desktop(notice: Notice) -> str:
    """Show a notice on the desktop; return what went wrong, or ""."""
    command = desktop_command(notice)
    if command is None:
        return "This machine has no notify-send."
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{Path(command[0]).name} did not work: {type(error).__name__}."
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{Path(command[0]).name} said: {said[-1]}"


def webhook(address: str, notice: Notice) -> str:
    """Post a notice as JSON; return what went wrong in the last attempt, or "". The address is never logged."""
    import httpx

    host, wrong = urlsplit(address).hostname, ""
    body = notice.model_dump(include={"run", "event", "percent", "words"})
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        try:
            answer = httpx.post(address, json=body, timeout=TIMEOUT, follow_redirects=False)
        except httpx.TimeoutException:
            wrong = f"{host} did not answer within {TIMEOUT:.0f} s."
        except httpx.ConnectError:
            wrong = f"{host} cannot be reached."
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            wrong = f"Posting to {host} failed: {type(error).__name__}."
        else:
            if answer.is_success:
                return ""
            wrong = f"{host} answered {answer.status_code} {answer.reason_phrase}."
            if answer.status_code < 500 and answer.status_code != 429:  # asking again would not help
                break
    return wrong
