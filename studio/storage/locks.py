"""The lock of the studio that serves a home folder: one at a time, and who has it can be told to the next."""

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from studio.domain.errors import StudioError, Taken
from studio.storage.paths import Home, write_atomic

if TYPE_CHECKING:
    from filelock import FileLock

# By file: the locks of this process. A page that is built anew in the same process is no second studio.
_held: dict[Path, "FileLock"] = {}


class Holder(BaseModel):
    """Content of `serving.json`: which studio serves the home folder. `bell` is the port it is woken by."""

    pid: int
    host: str
    started: str
    address: str = ""
    bell: int = 0


class Lock:
    """Held from `take` until the process ends, however it ends: the system itself lets go of it then."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.file, self.facts = home.root / "studio.lock", home.root / "serving.json"

    def take(self) -> None:
        """Become the studio of this home folder, or raise `Taken`; a file system without locks is refused."""
        from filelock import FileLock, Timeout

        if self.file in _held:
            return
        # no second kind of lock where this one fails: a marker file would outlive its studio
        lock = FileLock(self.file, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise self._taken() from error
        except OSError as error:
            raise StudioError(
                f"The home folder {self.home.root} cannot be locked: {error.strerror or error}.",
                "Set PEFT_STUDIO_HOME to a folder on a local disk: some network disks have no locks.",
            ) from error
        _held[self.file] = lock
        self.tell()

    def _taken(self) -> Taken:
        holder = self.holder()
        who = f", process {holder.pid} on {holder.host}," if holder else ""
        address = holder.address if holder else ""
        return Taken(
            f"Another PEFT Studio{who} serves the home folder {self.home.root}{f' at {address}' if address else ''}.",
            f"Open {address or 'that one'}, or set PEFT_STUDIO_HOME to another folder.",
            address,
        )

    def tell(self, address: str = "", bell: int = 0) -> None:
        """Write down who holds the lock, where its page is, and how it is woken."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(pid=os.getpid(), host=socket.gethostname(), started=started, address=address, bell=bell)
        write_atomic(self.facts, holder.model_dump_json())

    def holder(self) -> Holder | None:
        """Return who took the lock last; it may have ended since."""
        with suppress(OSError, ValidationError):
            return Holder.model_validate_json(self.facts.read_bytes())
        return None

    def release(self) -> None:
        """Let the next studio in before this process ends."""
        if lock := _held.pop(self.file, None):
            self.facts.unlink(missing_ok=True)
            lock.release()
