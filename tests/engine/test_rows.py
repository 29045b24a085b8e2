"""Rows in files, brought to length, packed."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.errors import DataError
from studio.engine.rows import Row, Table, Writer, labels_of, pack, spread


def test_labels_are_the_next_token_where_it_is_trained():
    row = Row(np.array([5, 6, 7, 8], np.int32), np.array([False, False, True, True]))
    assert labels_of(row).tolist() == [-100, 7, 8, -100]


def row_of(length, source=0):
    return Row(np.arange(length, dtype=np.int32), np.ones(length, bool), source)


def test_rows_over_the_limit_ask_drop_or_split():
    rows = [row_of(5, 1), row_of(25, 2)]
    with pytest.raises(DataError, match=r"1 examples are longer than 10 tokens \(rows 2\); 15 tokens"):
        Table.of(rows).fit(10, "ask")
    kept, longer = Table.of(rows).fit(10, "drop")
    assert ([len(row) for row in kept], longer) == ([5], 1)
    split, longer = Table.of(rows).fit(10, "split")
    assert [len(row) for row in split] == [5, 10, 10, 5]
    assert [row.ids.tolist() for row in split][1:] == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]
    assert [row.source for row in split] == [1, 2, 2, 2]
    assert longer == 1


@given(st.lists(st.integers(0, 9), max_size=20))
def test_what_is_written_is_read_back(lengths):
    rows = [row_of(length, index) for index, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as folder:
        with Writer(Path(folder) / "kept") as writer:
            for row in rows:
                writer.add([row])
        table = Table.load(Path(folder) / "kept")
        assert [(row.ids.tolist(), row.source) for row in table] == [(row.ids.tolist(), row.source) for row in rows]
        assert table.labels().tolist() == [max(0, length - 1) for length in lengths]
        assert [path.name for path in Path(folder).iterdir()] == ["kept"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "kept"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(8, 64))
def test_packing_keeps_every_row_once_and_fills_no_batch_over(lengths, size):
    rows = [row_of(length, index) for index, length in enumerate(lengths)]
    bins = pack(rows, size)
    assert sorted(row.source for group in bins for row in group) == list(range(len(rows)))
    assert all(sum(map(len, group)) <= size or len(group) == 1 for group in bins)
    # best fit leaves at most one batch half empty: two such would have been joined
    halves = [group for group in bins if sum(map(len, group)) <= size // 2]
    assert len(halves) <= 1


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(64, 1024), st.integers(1, 8))
def test_rows_are_spread_evenly_and_none_is_lost(lengths, size, lanes):
    rows = [row_of(length, index) for index, length in enumerate(lengths)]
    bins = spread(rows, size, lanes)
    assert sorted(row.source for each in bins for row in each) == list(range(len(rows)))
    assert all(sum(map(len, each)) <= max(size // lanes, max(lengths)) for each in bins)
    assert len(bins) % lanes == 0 or len(bins) == len(rows)
