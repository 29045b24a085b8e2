"""The database: one writer at a time, never an older program on newer data, and rebuilt from the folders."""

import sqlite3
import threading

import pytest

from studio.domain.errors import StudioError
from studio.storage import store as module
from studio.storage.store import Store


@pytest.fixture
def store(home):
    return Store(home)


def make(home, name, *numbers):
    for number in numbers:
        (home.adapters / name / f"v{number}").mkdir(parents=True)


def test_the_active_version_is_kept(home, store):
    store.activate("support-desk", 2)
    store.activate("other", 1)
    store.activate("support-desk", 3)
    assert Store(home).active() == {"support-desk": 3, "other": 1}


def test_a_number_is_given_once_even_after_its_folder_is_gone(home, store):
    make(home, "a", 1, 2)
    assert store.next_version("a") == 3
    assert store.next_version("a") == 4
    assert store.next_version("b") == 1


def test_numbers_are_not_given_twice_to_racing_threads(store):
    given = []
    threads = [threading.Thread(target=lambda: given.append(store.next_version("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(1, 9))


def test_an_error_inside_takes_everything_back(store):
    def half():
        with store.exclusive():
            store.activate("a", 7)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert store.active() == {}
    assert store.next_version("a") == 1


def test_a_second_writer_is_told_who_is_in_the_way(home, store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    store.active()
    other = sqlite3.connect(home.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StudioError, match="Another PEFT Studio is writing"):
        store.activate("a", 1)
    other.execute("ROLLBACK")
    other.close()
    store.activate("a", 1)


def test_a_newer_database_is_refused_and_left_as_it_is(home, store):
    store.activate("a", 1)
    with sqlite3.connect(home.database) as connection:
        connection.execute(f"PRAGMA user_version = {module.SCHEMA + 1}")
    before = home.database.read_bytes()
    for call in (store.active, store.reindex, lambda: store.activate("a", 2)):
        with pytest.raises(StudioError, match="newer PEFT Studio"):
            call()
    assert home.database.read_bytes() == before


def test_a_damaged_database_is_named_and_rebuilt_from_the_folders(home, store):
    make(home, "a", 1, 4)
    make(home, "b", 2)
    home.database.write_bytes(b"not a database, at all" * 100)
    with pytest.raises(StudioError) as caught:
        store.active()
    assert "doctor --reindex" in caught.value.hint
    assert store.reindex() == 2
    assert store.next_version("a") == 5
    assert home.database.with_suffix(".damaged").exists()


def test_reindex_forgets_a_choice_whose_folder_is_gone_but_not_its_number(home, store):
    make(home, "a", 1)
    store.activate("a", 3)
    store.next_version("a")
    store.activate("b", 2)
    store.reindex()
    assert store.active() == {"a": 1}  # the newest there is
    assert store.next_version("a") == 5


def test_a_home_that_cannot_hold_the_database_is_named(home, store):
    home.database.mkdir()
    with pytest.raises(StudioError, match="cannot be used"):
        store.active()
