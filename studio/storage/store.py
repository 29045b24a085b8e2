"""studio.db: what the folders cannot say (the active version, the numbers used up), and the one lock of all writers."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from studio.domain.errors import StudioError
from studio.storage.paths import Home

SCHEMA = 1
PATIENCE = 30  # seconds one writer waits for another
TABLES = """
CREATE TABLE adapters (
    name TEXT PRIMARY KEY,
    active INTEGER,            -- the version that the name alone stands for
    last INTEGER NOT NULL      -- the highest number given so far: a removed one is not given again
) STRICT
"""


class Store:
    """The one database file, opened for each transaction: threads and processes may share the home folder."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._local = threading.local()

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """Hold the home folder's only write transaction: what is done inside is done once, whoever else tries."""
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held:
            yield held
            return
        with _in_words(self.home.database), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._local.connection = connection
            try:
                with connection:  # commits, or rolls back after an error
                    yield connection
            finally:
                self._local.connection = None

    def active(self) -> dict[str, int]:
        """Return the version chosen for each adapter that has one."""
        query = "SELECT name, active FROM adapters WHERE active IS NOT NULL"
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held:
            return dict(held.execute(query))
        with _in_words(self.home.database), closing(self._connect()) as connection:
            return dict(connection.execute(query))

    def activate(self, name: str, version: int | None) -> None:
        with self.exclusive() as connection:
            connection.execute(
                "INSERT INTO adapters VALUES (?1, ?2, coalesce(?2, 0)) ON CONFLICT DO UPDATE SET active = ?2",
                (name, version),
            )

    def next_version(self, name: str) -> int:
        """Return a number that no version of this adapter ever had, and note it."""
        with self.exclusive() as connection:
            row = connection.execute("SELECT last FROM adapters WHERE name = ?", (name,)).fetchone()
            number: int = max([*versions(self.home.adapters / name), row[0] if row else 0], default=0) + 1
            connection.execute(
                "INSERT INTO adapters VALUES (?1, NULL, ?2) ON CONFLICT DO UPDATE SET last = ?2", (name, number)
            )
            return number

    def reindex(self) -> int:
        """Bring the database in line with the folders; a damaged file is put aside. Return the number of adapters."""
        try:
            self.active()
        except Damaged:
            self.home.database.replace(self.home.database.with_suffix(".damaged"))
        folders = {folder.name: versions(folder) for folder in self.home.adapters.iterdir()}
        with self.exclusive() as connection:
            for name, numbers in folders.items():
                if numbers:  # with no choice on record, the newest version is the active one
                    connection.execute(
                        "INSERT INTO adapters VALUES (?1, ?2, ?2) "
                        "ON CONFLICT DO UPDATE SET last = max(last, ?2), active = coalesce(active, ?2)",
                        (name, max(numbers)),
                    )
            for name, active in self.active().items():
                if active not in folders.get(name, []):
                    self.activate(name, max(folders.get(name, []), default=None))
        return sum(map(bool, folders.values()))

    def _connect(self) -> sqlite3.Connection:
        # the rollback journal, SQLite's default: before 3.51.3 the write-ahead log can lose commits
        connection = sqlite3.connect(self.home.database, timeout=PATIENCE, isolation_level=None)
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    if connection.execute("PRAGMA user_version").fetchone() == (0,):  # nobody was quicker
                        connection.execute(TABLES)
                        connection.execute(f"PRAGMA user_version = {SCHEMA}")
            elif found > SCHEMA:
                raise StudioError(
                    f"{self.home.database} is from a newer PEFT Studio (schema {found}, this one knows {SCHEMA}).",
                    "Update PEFT Studio, or set PEFT_STUDIO_HOME to another folder.",
                )
        except BaseException:
            connection.close()
            raise
        return connection


class Damaged(StudioError):
    """The database file cannot be read."""


def versions(folder: Path) -> list[int]:
    """Return the version numbers in an adapter's folder, lowest first."""
    if not folder.is_dir():
        return []
    return sorted(
        int(entry.name[1:]) for entry in folder.iterdir() if entry.name[1:].isdecimal() and entry.name[0] == "v"
    )


@contextmanager
def _in_words(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StudioError(
                f"Another PEFT Studio is writing to {database.parent}.", "Try again in a moment."
            ) from error
        raise StudioError(
            f"{database} cannot be used: {error}.", "Set PEFT_STUDIO_HOME to a folder of yours on a local disk."
        ) from error
    except sqlite3.DatabaseError as error:
        raise Damaged(
            f"{database} is damaged: {error}.", "`peft-studio doctor --reindex` makes a new one from the folders."
        ) from error
