"""A repaired copy: the rows that need it differ, the others and the file do not."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import DataError
from studio.services.check import check_file
from studio.services.rewrite import rewrite

ROWS: list[dict[str, Any]] = [
    {"id": n, "question": f"Is {n} even?", "answer": "Yes." if n % 2 else "No."} for n in range(30)
]
ROWS[3] |= {"question": "Un cafÃ©?", "id": "cafÃ©"}
ROWS[4] |= {"answer": "N/A"}
ROWS[5] |= {"answer": "=1+1"}
KINDS = ["encoding", "empty-answer", "over-length"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl"])
def test_only_the_rows_that_need_it_change(table: Path, tmp_path: Path, name: str) -> None:
    before = table.read_bytes()
    made = rewrite(table, tmp_path / name, KINDS)
    assert (made.rows, made.written, made.changed, made.left_out) == (30, 29, {"encoding": 1}, {"empty-answer": 1})
    rows, expected = read(tmp_path / name), read(table)
    del expected[4]
    expected[3]["question"] = "Un café?"
    assert rows == expected
    assert table.read_bytes() == before
    again = rewrite(tmp_path / name, None, KINDS)
    assert (again.changed, again.left_out) == ({}, {})
    assert {finding.kind for finding in check_file(tmp_path / name).findings}.isdisjoint(KINDS)


def test_without_a_copy_the_difference_is_shown(table: Path, tmp_path: Path) -> None:
    made = rewrite(table, None, KINDS)
    assert [(each.row, each.after is None) for each in made.differences] == [(4, False), (5, True)]
    assert "Un café?" in (made.differences[0].after or "")
    assert list(tmp_path.iterdir()) == [table]


def test_plain_text_stays_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("One cafÃ©.\n\nTwo\nlines.\n\nOne cafÃ©.\n", encoding="utf-8")
    made = rewrite(path, tmp_path / "out.txt", ["encoding", "duplicates"])
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "One café.\n\nTwo\nlines.\n\n"
    assert made.left_out == {"duplicates": 1}


def test_bytes_of_unusual_rows_come_through(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "meta": {"half": "\\ud83d"}}\n{"text": "b", "meta": null}\nnot json\n' * 2)
    made = rewrite(path, tmp_path / "out.jsonl", ["duplicates"])
    assert (made.unreadable, made.written) == (2, 2)
    assert read(tmp_path / "out.jsonl")[0]["meta"] == {"half": "\ud83d"}


@pytest.mark.parametrize(
    ("name", "said"), [("rows.csv", "already"), ("out.xlsx", "cannot be written"), ("no/out.csv", "cannot")]
)
def test_a_copy_never_replaces_a_file(table: Path, tmp_path: Path, name: str, said: str) -> None:
    before = table.read_bytes()
    with pytest.raises(DataError, match=said):
        rewrite(table, tmp_path / name, KINDS)
    assert table.read_bytes() == before
    assert list(tmp_path.iterdir()) == [table]
