"""Starting engine processes, knowing them again, and reading what they say."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

import studio
from studio.domain.errors import EngineError
from studio.domain.events import AnyEvent, Failed, Phase, Report, parse
from studio.storage.paths import write_atomic

ENGINE = (sys.executable, "-m", "studio.engine")
TOKEN = "PEFT_STUDIO_TOKEN"  # the run's token in the engine's environment; the engine copies it to process.json
RECORD = "process.json"
POLL = 0.25  # seconds between two looks at a file that grows
FATAL = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b|[Ff]atal|[Ss]egmentation fault|[Aa]bort|[Kk]illed")
SECRET = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

if sys.platform == "win32":
    OWN_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    OWN_GROUP = 0

_children: dict[str, subprocess.Popen[str]] = {}  # by directory: the engines this process started


class Process(BaseModel):
    """Content of `process.json`.

    `exit_code` is added by the studio that started the engine and saw it end, `cause` by one that ended it. `next` is
    the token of an engine that is about to be started: who is killed meanwhile leaves that to know it by.
    """

    pid: int
    started: float
    token: str = ""
    exit_code: int | None = None
    cause: str = ""
    next: str = ""


def now() -> str:
    """Return the time as events and records carry it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def environment(token: str = "", card: str | None = None) -> dict[str, str]:
    """Return the engine's environment: the studio's own without secrets, no network for model files, one `card`."""
    kept = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    # PYTHONSAFEPATH: the working folder may hold files of others, which must not be imported
    kept |= {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    # threads that wait spin shortly, then sleep: never spinning slowed a lone engine, and GNU OpenMP's default slows
    # two on the same cores (figures and their limits: docs/reference/benchmarks.md)
    kept.setdefault("GOMP_SPINCOUNT", "20000")
    # large pages for large tensors: a tenth of the time of a step (Linux with glibc reads this, others do not)
    # and each such tensor's memory goes back at once: packs differ in length, and what one leaves the next seldom fits
    kept.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576")
    # what oneDNN made for a shape is kept by itself and by torch, 1,024 of each, and packs are of ever new lengths
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        kept.setdefault(name, "64")
    package = Path(studio.__file__).resolve().parents[1]
    paths = [os.path.abspath(path) for path in kept.pop("PYTHONPATH", "").split(os.pathsep) if path]
    if package.name not in ("site-packages", "dist-packages"):  # run from a checkout
        paths.insert(0, str(package))
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    if token:
        kept[TOKEN] = token
    if card:
        kept["CUDA_VISIBLE_DEVICES"] = card
    return kept


def spawn(
    job: str,
    directory: Path,
    log: Path,
    *,
    command: Sequence[str] = ENGINE,
    pipes: bool = False,
    token: str = "",
    card: str | None = None,
) -> subprocess.Popen[str]:
    """Start `command JOB DIRECTORY` in a session of its own; its words go to `log`, with `pipes` only stderr does."""
    try:
        with open(log, "ab") as file:
            child = subprocess.Popen(
                [*command, job, str(directory)],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else file,
                stderr=file,
                text=True,
                encoding="utf-8",
                errors="replace",
                cwd=log.parent,
                env=environment(token, card),
                start_new_session=True,
                creationflags=OWN_GROUP,
            )
    except OSError as error:
        raise EngineError(
            f"The engine for {job} could not be started: {error.strerror or error}.", "Run `peft-studio doctor`."
        ) from error
    _children[str(directory)] = child
    threading.Thread(target=child.wait, daemon=True).start()  # whoever looks or not, none stays a zombie
    return child


def spawn_recorded(
    job: str, directory: Path, log: Path, command: Sequence[str] = ENGINE, card: str | None = None
) -> None:
    """Start an engine that may outlive this process, and write `process.json` so that any studio can adopt it."""
    token = uuid.uuid4().hex
    before = recorded(directory) or Process(pid=0, started=0)
    write_atomic(directory / RECORD, before.model_copy(update={"next": token}).model_dump_json())
    try:
        child = spawn(job, directory, log, command=command, token=token, card=card)
    except EngineError:
        write_atomic(directory / RECORD, before.model_dump_json())
        raise
    try:
        started = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:  # only where ended processes leave at once
        started = time.time()
    # the engine writes the same when it is up; one that dies before that is known all the same
    write_atomic(directory / RECORD, Process(pid=child.pid, started=started, token=token).model_dump_json())


def recorded(directory: Path) -> Process | None:
    """Read `process.json`, or None when no engine was started here.

    An engine whose starter was killed before it could write down which it is, is looked for by its token.
    """
    try:
        record = Process.model_validate_json((directory / RECORD).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    if record.next and (found := _with_token(record.next, directory)):
        return found
    return record if record.pid else None


def _with_token(token: str, directory: Path) -> Process | None:
    """Find the engine of a directory by its token; what it started has the token too, and another command."""
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if str(directory) in each.cmdline() and each.environ().get(TOKEN) == token and _runs(each):
                return Process(pid=each.pid, started=each.create_time(), token=token)
    return None


def alive(record: Process) -> bool:
    """Whether the engine of this record still runs: the same process, not one that got its number later."""
    try:
        found = psutil.Process(record.pid)
        if not _runs(found):
            return False
        if record.token:
            with suppress(psutil.AccessDenied):  # some systems show no process's environment
                return found.environ().get(TOKEN) == record.token
        # reckoned from the wall clock, in whole seconds on some systems: it may differ a little from look to look
        return abs(found.create_time() - record.started) < 2
    except psutil.Error:
        return False


def exit_code(directory: Path, record: Process) -> int | None:
    """Return how an ended engine ended, if it was this process's child, and write it down for later readers."""
    child = _children.get(str(directory))
    if child and record.exit_code is None:
        with suppress(subprocess.TimeoutExpired):
            record.exit_code = child.wait(5)  # it is dead: at most the thread that collects it needs a moment
        with suppress(OSError):  # a full disk: it is known here, and asked for again
            write_atomic(directory / RECORD, record.model_dump_json())
    return record.exit_code


def end(pid: int, grace: float = 5) -> None:
    """End an engine and everything it started: politely, after `grace` seconds by force."""
    try:
        leader = psutil.Process(pid)
        family = [*leader.children(recursive=True), leader]
    except psutil.Error:
        return
    for member in family:
        with suppress(psutil.Error):  # it is gone
            member.terminate()
    limit = time.monotonic() + grace
    # looked at, not waited for: psutil would take the exit code from the Popen whose child it is
    while (left := [member for member in family if _runs(member)]) and time.monotonic() < limit:
        time.sleep(0.05)
    for member in left:
        with suppress(psutil.Error):
            member.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_events(path: Path, offset: int = 0) -> tuple[list[AnyEvent], int]:
    """Return the events written since `offset` and the new offset; a torn last line is left for the next time."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole, newline, _ = data.rpartition(b"\n")
    events = [event for line in whole.split(b"\n") if line and (event := parse(line)) is not None]
    return events, offset + len(whole) + len(newline)


def tail(path: Path, lines: int = 200) -> str:
    """Return the last lines of a log as plain text: no colour codes, of a progress bar only its last state."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2000 * lines))  # bytes; no log line worth reading is longer
            data = file.read()
    except FileNotFoundError:
        return ""
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n").rstrip("\n")
    return "\n".join(CONTROL.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]) for line in text.split("\n")[-lines:])


def died(code: int | None, log: Path) -> str:
    """Say why an engine is gone without a word of its own."""
    if code in (-signal.SIGTERM, -signal.SIGINT):
        return "The engine was ended from outside."
    if code is not None and code in (-9, 137):
        return "The engine was ended by the system, most often for lack of memory."
    if code == errno.ENOSPC:
        return "The disk is full."
    lines = [line.strip() for line in tail(log, 40).splitlines() if line.strip()]
    if code is None:  # it was started by another process; what a library prints on the way is no reason
        last = next((line for line in reversed(lines) if FATAL.search(line)), "")
        how = "The engine is gone"
        unknown = f"{how} and did not say why: the system ends one for lack of memory most often."
    else:
        last, how = lines[-1] if lines else "", f"The engine ended with code {code}"
        unknown = f"{how}, without a word in its log."
    return f"{how}. Its last words: {last[:300]}" if last else unknown


def follow(events: Path, running: Callable[[], bool]) -> Iterator[AnyEvent]:
    """Yield the events of a file as they come, until nothing runs any more and all is read."""
    offset = 0
    while True:
        going = running()  # asked before reading, so that nothing written in between is missed
        new, offset = read_events(events, offset)
        yield from new
        if not going:
            return
        time.sleep(POLL)


def run(job: str, directory: Path, log: Path, report: Report, command: Sequence[str] = ENGINE) -> None:
    """Run a short job to its end, passing its phases on; raise what it failed with."""
    child = spawn(job, directory, log, command=command)
    try:
        for event in follow(directory / "events.jsonl", lambda: child.poll() is None):
            if isinstance(event, Phase):
                report(event)
            elif isinstance(event, Failed):
                raise EngineError(event.message, event.hint)
    finally:
        end(child.pid)
        child.wait()
        _children.pop(str(directory), None)
    if child.returncode:
        raise EngineError(died(child.returncode, log), f"The log is in {log}.")
