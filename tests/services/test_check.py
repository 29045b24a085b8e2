"""The check of a data file: one result whatever the container, counts that add up, warnings, real data."""

import csv
import gzip
import json
import string
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.domain.errors import DataError
from studio.domain.events import Phase
from studio.services.check import check_file, examples, open_file
from studio.services.datasets import sample_path

REAL = Path(__file__).parents[3] / "shared" / "data"
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\r,;|\"'\\"), max_size=30)


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"the real data {name} is not beside the project")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def in_every_container(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Write the rows as CSV (lists as JSON and as Python prints them), JSON, JSON lines and Parquet, some packed."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def flat(dump: Callable[[Any], str]) -> list[dict[str, Any]]:
        return [{key: dump(v) if isinstance(v, list | dict) else v for key, v in row.items()} for row in rows]

    made = [table(folder / "rows.csv", flat(json.dumps)), table(folder / "printed.csv", flat(repr))]
    for name, text in [
        ("rows.json", json.dumps(rows)),
        ("rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)),
        ("wrapped.json", json.dumps({"version": 1, "data": rows}, indent=1)),
    ]:
        made.append(folder / name)
        made[-1].write_text(text, encoding="utf-8")
    made.append(folder / "utf16.jsonl")
    made[-1].write_text(made[3].read_text(encoding="utf-8"), encoding="utf-16")
    made.append(folder / "rows.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), made[-1])
    for path in (made[0], made[3], made[-1]):
        made.append(path.with_name(f"{path.name}.gz"))
        made[-1].write_bytes(gzip.compress(path.read_bytes(), 1))
    made.append(folder / "rows.zip")
    with zipfile.ZipFile(made[-1], "w") as archive:
        archive.write(made[3], "rows.jsonl")
    return made


ROLES = st.sampled_from(["system", "user", "assistant"])
TURNS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": WORDS}), min_size=1, max_size=5)
SHARED = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "observation"]), "value": WORDS}),
    min_size=1,
    max_size=5,
)
STRUCTURES = {
    "question-answer": {"question": WORDS, "answer": WORDS},
    "alpaca": {
        "instruction": WORDS,
        "input": WORDS,
        "output": WORDS,
        "history": st.lists(st.tuples(WORDS, WORDS).map(list), max_size=2),
    },
    "prompt-completion": {"prompt": WORDS, "completion": WORDS},
    "messages": {"messages": TURNS},
    "sharegpt": {"conversations": SHARED},
    "preference": {"prompt": WORDS, "chosen": WORDS, "rejected": WORDS},
    "feedback": {"prompt": WORDS, "completion": WORDS, "label": st.booleans()},
    "classification": {"text": WORDS, "label": st.sampled_from(["good", "bad, very", "só so"])},
    "text": {"text": WORDS},
}


@pytest.mark.spec("U24.1", "U24.2")
@pytest.mark.parametrize("structure", STRUCTURES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_rows_give_the_same_examples_in_every_container(
    tmp_path: Path, structure: str, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.fixed_dictionaries(STRUCTURES[structure]), min_size=1, max_size=5))
    first, *others = [outcome(path) for path in in_every_container(tmp_path, rows)]
    assert all(other == first for other in others)
    assert isinstance(first, str) or len(first) == len(rows)


def outcome(path: Path) -> list[Any] | str:
    """Return the examples of a file, or what is asked when its first rows say too little."""
    try:
        return list(examples(*open_file(path)))
    except DataError as error:
        return error.message.replace(path.name, "the file")


def test_a_check_says_what_the_file_is(tmp_path: Path) -> None:
    rows = [{"id": n, "question": "word " * n, "answer": "yes"} for n in range(1, 31)]
    check = check_file(table(tmp_path / "data.csv", rows))
    assert (check.format, check.kind, check.file) == ("question-answer", "chat", "Comma-separated, UTF-8")
    assert (check.rows, check.usable, check.complete, check.warnings) == (30, 30, True, [])
    assert check.columns == ["id", "question", "answer"]
    assert check.samples == {"id": "1", "question": "word ", "answer": "yes"}
    assert check.map == {"prompt": "question", "response": "answer"}
    assert (check.words.total, check.words.mean, check.words.median) == (495, 16.5, 16)
    assert (check.words.p95, check.words.longest, check.words.longest_row) == (30, 31, 30)
    assert check.characters.longest == 5 * 30 + 3


@pytest.mark.spec("U24.5")
def test_a_check_shows_the_first_examples_as_they_are_trained(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(1, 31)]
    check = check_file(table(tmp_path / "data.csv", rows))
    assert check.examples == [
        {
            "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}],
            "row": n,
        }
        for n in range(1, 6)
    ]


@pytest.mark.spec("U24.3")
def test_what_lowers_the_quality_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_bytes("question,answer\nqué,ahí\nqué,ahí\nq2,a2\nq3,a3\nq2,other\nqué,ahí\n".encode("cp1252"))
    check = check_file(path)
    assert check.duplicates == 2
    assert [(found.kind, found.rows) for found in check.findings] == [("duplicates", [2, 6])]
    assert check.warnings == [
        "few.csv is not UTF-8. It was read as Latin-1: look at the accents in the examples.",
        "Only 6 usable examples. Add at least 20, or the model has nothing to generalise from.",
    ]


@pytest.mark.spec("U24.4")
def test_bad_rows_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = [{"customer_message": f"q{n}", "agent_reply": "" if n % 2 else f"a{n}"} for n in range(1, 241)]
    check = check_file(table(tmp_path / "data.csv", rows))
    assert (check.rows, check.usable, check.problem_count, len(check.problems)) == (240, 120, 120, 50)
    assert check.problems[20].model_dump() == {
        "row": 41,
        "problem": "Row 41 has no `agent_reply`.",
        "remedy": "Map another column or leave the row out.",
    }


def test_bytes_of_another_encoding_cost_the_row_and_not_its_text(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes("question,answer\nwo,groß\n".encode() + "wo,groß\n".encode("cp1252") + b"q3,a3\n")
    check = check_file(path)
    assert [(problem.row, problem.problem) for problem in check.problems] == [
        (2, "Row 2 holds bytes in `answer` that are no text.")
    ]
    assert "�" not in check.model_dump_json()


def test_a_preview_reads_the_first_rows_only(tmp_path: Path) -> None:
    path = table(tmp_path / "data.csv", [{"question": f"q{n}", "answer": f"a{n}"} for n in range(300)])
    preview = check_file(path, limit=50)
    assert (preview.rows, preview.complete) == (50, False)
    assert check_file(path, limit=300).complete


def test_progress_is_told_in_words(tmp_path: Path) -> None:
    path = table(tmp_path / "data.csv", [{"question": f"q{n}", "answer": f"a{n}"} for n in range(12_000)])
    told: list[Phase] = []
    check_file(path, report=told.append)
    assert [phase.words for phase in told] == ["Reading: 5,000 rows so far", "Reading: 10,000 rows so far"]
    assert 0 < (told[0].done or 0) < (told[1].done or 0) <= (told[1].total or 0) == path.stat().st_size


def test_a_file_whose_beginning_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("not json\n" * 3)
    with pytest.raises(DataError, match="Row 1 is not valid JSON"):
        check_file(path)


GOOD = {
    ".csv": 'question,answer\n"q ""1""",ä\nq2,"a\n2"\n' * 3,
    ".json": '{"about": [1], "data": [{"question": "q\\ud83d", "answer": 1.5e3}, {"question": "é", "answer": "a"}]}',
    ".jsonl": '{"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "a"}]}\n' * 3,
    ".txt": "Straße\n\ntwo\r\n\r\nthree\n",
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(sorted(GOOD)), encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_a_damaged_file_is_read_or_refused_in_words(
    tmp_path: Path, data: st.DataObject, suffix: str, encoding: str
) -> None:
    content = bytearray(GOOD[suffix].encode(encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(
            st.sampled_from([b"", b'"', b",", b"\r", b"[", b"{", b"}", b"\\ud800", b"NaN", b"1e9999", b"\xff"])
            | st.binary(max_size=4)
        )
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    try:
        check = check_file(path)
    except DataError as refused:
        words = refused.message.encode(), refused.hint.encode()
        assert all(words)
    else:
        assert check.usable + check.problem_count == check.rows
        check.model_dump_json()


@pytest.mark.spec("U24.2")
def test_gsm8k_needs_no_map() -> None:
    check = check_file(real("gsm8k/train.jsonl"))
    assert (check.format, check.rows, check.usable, check.duplicates) == ("question-answer", 1000, 1000, 0)
    assert check.map == {"prompt": "question", "response": "answer"}


@pytest.mark.spec("U24.2")
def test_banking77_is_a_classification() -> None:
    check = check_file(real("banking77/train.csv"))
    assert (check.format, check.sure, check.rows, check.usable) == ("classification", "likely", 10_003, 10_003)
    assert check.map == {"prompt": "text", "response": "category"}


def test_the_sample_is_good_data_in_one_form() -> None:
    check = check_file(sample_path())
    assert (check.format, check.rows, check.usable) == ("question-answer", 200, 200)
    assert (check.duplicates, check.warnings) == (0, [])
    with open(sample_path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    questions = {"".join(c for c in row["customer_message"].lower() if c in string.ascii_lowercase) for row in rows}
    assert len(questions) == 200
    assert max(len(row["customer_message"].split()) for row in rows) <= 20
    replies = [row["agent_reply"].split(" | ") for row in rows]
    assert all(
        [part.split(": ")[0] for part in parts] == ["Topic", "Next", "Priority"] and parts[2][10:] in ("high", "normal")
        for parts in replies
    )
    assert len({parts[0] for parts in replies}) == 8
    assert len({tuple(parts) for parts in replies}) == 8
