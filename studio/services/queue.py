"""The queue: prepared runs that wait, in which order they start, and how many the machine carries at once."""

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.domain.errors import NotFound, StudioError
from studio.domain.events import AnyEvent
from studio.domain.records import Run, Status
from studio.domain.words import run_title
from studio.services import jobs
from studio.services.capacity import Room, goes_first, soonest
from studio.services.machine import Machine
from studio.services.place import Place, place_of, put
from studio.storage.locks import Lock

if TYPE_CHECKING:
    from studio.services.runs import Runs

log = logging.getLogger(__name__)

SPEAKS = 60.0  # seconds in which an engine that was started says its first word
LOOK = 2.0  # seconds between two looks while something waits


class Queue:
    """The runs that wait. The truth is in their directories: whoever looks sees the same queue, and may start from it.

    Exactly one starts a run, as every change is made under the lock of all writers.
    """

    def __init__(
        self, runs: "Runs", machine: Machine, lock: Lock, watch: Callable[[], float | None] = lambda: None
    ) -> None:
        """`watch` is called where the queue is kept going; it returns the seconds until it wants to be, if it does."""
        self.runs, self.machine, self.lock, self.watch = runs, machine, lock, watch

    def submit(self, run_id: str, priority: int | None = None, after: str | None = None) -> Run:
        """Start a prepared run now if the machine has room, else let it wait; or change the place of one that waits.

        `after` is the id of a run that has to end first; "" takes such a wish back.
        """
        with self.runs.alone():
            run = self.runs.get(run_id)
            if run.status is not Status.QUEUED:
                raise StudioError(
                    f"{run_title(run.id)} does not wait to start: it is {run.status}.",
                    f"Start a new run from {Path(run.path) / 'config.yaml'}.",
                )
            if after:
                self._refuse_circle(run, self.runs.get(after))
            place = place_of(run.path) or Place(since=jobs.now())
            place.priority = place.priority if priority is None else priority
            place.after = place.after if after is None else after or None
            put(run.path, place)
            self._start()
        self.ring()
        return self.get(run_id)

    def resume(self, run_id: str, edit: dict[str, Any] | None = None) -> Run:
        """Let a run go on from its last good checkpoint now if the machine has room, else let it wait for that."""
        with self.runs.alone():
            run = self.runs.ready_to_resume(run_id, edit)
            before = place_of(run.path)
            put(run.path, Place(since=jobs.now(), priority=before.priority if before else 0, resume=True))
            self._start()
        self.ring()
        return self.get(run_id)

    def list(self) -> Sequence[Run]:
        """Return the runs that wait, the next one first. `phase` says what each waits for."""
        return self.look()[1]

    def look(self) -> tuple[Sequence[Run], Sequence[Run]]:
        """Return all runs, the newest first, and those of them that wait, as `list` does."""
        runs = self.runs.list()
        return runs, self._look(runs)[0]

    def _look(self, runs: Sequence[Run] | None = None) -> "tuple[Sequence[Run], Room]":
        known = {run.id: run for run in (self.runs.list() if runs is None else runs)}
        waiting = sorted((run for run in known.values() if run.status is Status.QUEUED and run.since), key=turn)
        room = Room(self.machine, [run for run in known.values() if run.status.working])
        heads: dict[bool, Run] = {}  # the first that may start once there is room: on a card, on the processor
        for run in waiting:
            on_card = room.on_card(run)
            other = known.get(run.after or "")
            if other and (other.status.active or other.status is Status.PAUSED):
                run.phase = f"after {run_title(other.id)}"
                if other.status is Status.PAUSED:
                    run.phase += ", which is paused"
                elif other.status is Status.QUEUED and not other.since:
                    run.phase += ", which was never started"
            elif on_card in heads:  # in strict order, or small runs would keep a large one waiting for ever
                run.phase = f"{run_title(heads[on_card].id)} goes first"
            else:
                run.phase = room.lacks(run)
                heads[on_card] = run
        return waiting, room

    def get(self, run_id: str) -> Run:
        """Return a run; if it waits, `phase` says for what."""
        run = self.runs.get(run_id)
        waits = run.status is Status.QUEUED and run.since
        return next((each for each in self.list() if each.id == run_id), run) if waits else run

    def ahead(self) -> str:
        """Say who goes before a run that is added now; nothing when it would start at once."""
        waiting, room = self._look()
        if not waiting and len(room.working) < room.places:
            return ""
        first = soonest(room.working) if room.working else waiting[0]
        more = len(waiting) - (not room.working)
        return f"{run_title(first.id)} and {more} more go first" if more else goes_first(first)

    def up(self, run_id: str) -> None:
        """Let a run that waits change places with the one before it."""
        with self.runs.alone():
            waiting = self.list()
            number = self._number(waiting, run_id)
            if number:
                one, other = waiting[number], waiting[number - 1]
                mine, theirs = place_of(one.path), place_of(other.path)
                assert mine
                assert theirs
                key = {"priority": theirs.priority, "since": theirs.since}
                put(other.path, theirs.model_copy(update={"priority": mine.priority, "since": mine.since}))
                put(one.path, mine.model_copy(update=key))

    def first(self, run_id: str) -> None:
        """Let a run that waits be the next one."""
        with self.runs.alone():
            waiting = self.list()
            if self._number(waiting, run_id):
                self.submit(run_id, priority=waiting[0].priority + 1)

    def advance(self) -> bool:
        """Start what may start now; return whether something still waits. What goes wrong is tried again later."""
        try:
            waiting = self.list()
            if all(run.phase for run in waiting):
                return bool(waiting)  # without the lock: most looks find nothing to do
            with self.runs.alone():
                return self._start()
        except (StudioError, OSError) as error:  # a full disk, a locked database
            log.warning("The queue stands still: %s", error)
            return True

    def follow(self, run_id: str) -> Iterator[AnyEvent]:
        """Yield a run's events until its engine ends, as `Runs.follow` does, and keep the queue going meanwhile."""
        looked = -math.inf

        def running() -> bool:
            nonlocal looked
            if time.monotonic() - looked > LOOK:
                self.advance()
                self.watch()
                looked = time.monotonic()
            return self.runs.get(run_id).status.active

        yield from jobs.follow(Path(self.runs.get(run_id).path) / "events.jsonl", running)
        self.advance()
        self.watch()

    def keep(self) -> int:
        """Keep the queue going from a thread of this process, and return the port it is woken by.

        While nothing waits or is watched the thread sleeps, without looking, until `ring`, here or in another process.
        """
        bell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bell.bind(("127.0.0.1", 0))
        threading.Thread(target=self._keep, args=(bell,), daemon=True).start()
        return int(bell.getsockname()[1])

    def _keep(self, bell: socket.socket) -> None:
        rung = -math.inf
        while True:
            starts = time.monotonic() - rung < SPEAKS  # a resumed run looks paused until its engine speaks
            times = [LOOK if self.advance() or starts else None, self.watch()]
            bell.settimeout(min((each for each in times if each is not None), default=None))
            with suppress(TimeoutError):
                bell.recv(16)
                rung = time.monotonic()

    def ring(self) -> None:
        """Wake the studio that serves this home folder, if there is one."""
        holder = self.lock.holder()
        if holder and holder.bell:
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                line.sendto(b"queue", ("127.0.0.1", holder.bell))

    def _start(self) -> bool:
        """Start what may start, one after the other as each takes room; the caller holds the lock of all writers."""
        while True:
            waiting, room = self._look()
            chosen = next((run for run in waiting if not run.phase), None)
            if chosen is None:
                return bool(waiting)
            place = place_of(chosen.path)
            if place and room.on_card(chosen) and len(room.cards) > 1:
                put(chosen.path, place.model_copy(update={"card": room.free_card()}))
            try:
                self.runs.start(chosen.id)
            except StudioError:
                if self.runs.get(chosen.id).status is Status.QUEUED:  # else it was cancelled this moment
                    raise

    def _refuse_circle(self, run: Run, after: Run) -> None:
        """Refuse to let a run wait for one that waits for it."""
        chain = [after]
        while chain[-1].id != run.id:
            if not chain[-1].after or chain[-1].status is not Status.QUEUED:
                return
            try:
                chain.append(self.runs.get(chain[-1].after))
            except NotFound:
                return
        why = "a run does not wait for itself" if run.id == after.id else f"that one waits for {run_title(run.id)}"
        raise StudioError(
            f"{run_title(run.id)} cannot wait for {run_title(after.id)}: {why}.", "Choose another run, or none."
        )

    def _number(self, waiting: Sequence[Run], run_id: str) -> int:
        """Return how many go before a run; refuse one that does not wait."""
        for number, run in enumerate(waiting):
            if run.id == run_id:
                return number
        raise StudioError(f"{run_title(run_id)} is not in the queue any more.", "The list of runs shows what it does.")


def turn(run: Run) -> tuple[int, str, str]:
    """Return what the queue is sorted by."""
    return (-run.priority, run.since or "", run.id)
