"""Reading files: every container and encoding, rows counted and named, broken and hostile files refused."""

import csv
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import DataError
from studio.services.formats import Problem, Source

PAIRS = [{"question": f"What is {n}, “{n}”?", "answer": f"Größe {n};\n\tvery {n}"} for n in range(1, 31)]


FEATURE = {"_type": "ClassLabel", "names": ["bad", "good"]}


def write(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8", delimiter: str = ",") -> Path:
    """Write rows in the container the suffix names."""
    if path.suffix in (".csv", ".tsv"):
        with open(path, "w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pyarrow.parquet = pytest.importorskip("pyarrow.parquet")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    else:
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding=encoding)
    return path


def rows(path: Path) -> list[Any]:
    return [row for _, row in Source(path).rows()]


def refusal(path: Path, content: bytes | str) -> str:
    """Return the sentence with which a file is refused."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as refused:
        rows(path)
    assert path.name in refused.value.message
    assert refused.value.hint.endswith(".")
    return refused.value.message


@pytest.mark.spec("U24.1")
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_the_same_rows_are_read_from_every_container(tmp_path: Path, suffix: str) -> None:
    source = Source(write(tmp_path / f"data{suffix}", PAIRS))
    assert list(source.rows()) == list(enumerate(PAIRS, 1))


@pytest.mark.spec("U24.1")
@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_text_is_read_by_paragraphs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(b"\n# One\r\nline two\r\n \r\n\r\n  Two\n\t\nThree")
    assert rows(path) == ["# One\nline two", "  Two", "Three"]


@pytest.mark.spec("U24.2")
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    table = [{"a": f"{n}, or; {n}", "b, c": f"x|{n}", "d": "e\tf"} for n in range(5)]
    source = Source(write(tmp_path / "data.csv", table, delimiter=delimiter))
    assert [row for _, row in source.rows()] == table
    assert source.words.endswith("-separated, UTF-8")


def test_tsv_and_ndjson_are_known(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "data.tsv", PAIRS, delimiter="\t")) == PAIRS
    assert rows(write(tmp_path / "data.jsonl", PAIRS).rename(tmp_path / "data.ndjson")) == PAIRS


@pytest.mark.spec("U24.2")
@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("cp1252", "Latin-1"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_the_encoding_is_found_and_told(tmp_path: Path, encoding: str, told: str, suffix: str) -> None:
    table = [{"question": "Wie groß?", "answer": "Fünf Meter – “etwa”"}] * 3
    source = Source(write(tmp_path / f"data{suffix}", table, encoding))
    assert [row for _, row in source.rows()] == table
    assert source.encoding == told
    assert source.words.endswith(told)


def test_an_accent_far_into_the_file_decides_the_encoding(tmp_path: Path) -> None:
    table = [{"question": "plain " * 200, "answer": "plain"}] * 2000 + [{"question": "où", "answer": "là"}]
    source = Source(write(tmp_path / "late.csv", table, "cp1252"))
    assert source.encoding == "Latin-1"
    assert list(source.rows())[-1] == (2001, table[-1])


def test_line_ends_of_every_system_end_a_record(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes(b"a,b\r\n1,2\r3,4\n\n5,6")
    assert rows(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]


def test_json_with_an_object_a_line_is_read_as_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", PAIRS).rename(tmp_path / "data.json")
    assert Source(path).container == "jsonl"
    assert rows(path) == PAIRS


def test_json_may_be_laid_out_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    for content in (PAIRS, {"data": PAIRS}):
        path.write_text(json.dumps(content, indent=2))
        assert rows(path) == PAIRS


def test_json_may_be_an_object_around_one_list(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"version": 1.0, "tags": ["x"], "about": {"n": [1]}, "data": PAIRS, "end": None}))
    assert rows(path) == PAIRS
    path.write_text(json.dumps({"train": PAIRS, "test": PAIRS}))
    with pytest.raises(DataError, match="two lists of rows, `train` and `test`"):
        rows(path)
    path.write_text(json.dumps({"train": {"a": 1}}))
    with pytest.raises(DataError, match="no list of rows"):
        rows(path)


def test_values_across_pieces_of_json_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    table = [{"n": str(n) * n} for n in range(1200)]  # a piece ends inside some of them
    path.write_text(json.dumps(table))
    assert rows(path) == table


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    for name in ("data.json", "data.jsonl"):
        path = tmp_path / name
        path.write_text(
            '[{"a": 1.50, "b": 12345678901234567890123, "c": ' + "9" * 5000 + "}]\n"[: 3 if "l" in name else 2]
        )
        if name == "data.jsonl":
            path.write_text(path.read_text().strip("[]\n") + "\n")
        (row,) = rows(path)
        assert [str(row["a"]), str(row["b"]), str(row["c"])] == ["1.50", "12345678901234567890123", "9" * 5000]


# --- rows that cannot be used -------------------------------------------------------------------------------------


@pytest.mark.spec("U24.4")
def test_ragged_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("question,answer\nq1,a1\nq2\nq3,a3,more\nq4,a4\n")
    found = list(Source(path).rows())
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert found[1][1] == Problem(
        row=2, problem="Row 2 has 1 cell, the header has 2.", remedy="Correct it or leave the row out."
    )
    assert isinstance(found[2][1], Problem)
    assert found[3][1] == {"question": "q4", "answer": "a4"}


@pytest.mark.spec("U24.4")
@pytest.mark.parametrize("rest", ['q3,"a3"\n', "q3,a3\n", 'q3,a3\n"q4, or so","a""4"\n', ""])
def test_an_unclosed_quote_costs_one_row(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "quote.csv"
    path.write_text(f'question,answer\nq1,a1\nq2,"a2 goes on\n{rest}')
    found = rows(path)
    assert found[0] == {"question": "q1", "answer": "a1"}
    assert found[1].problem == "Row 2 opens a quote that is not closed properly."
    assert [row["question"][:2] for row in found[2:]] == ["q3", "q4"][: rest.count("\n")]


@pytest.mark.spec("U24.4")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1, "a": 2}', "names a key twice"),
        ('{"a": [{"b": 1, "b": 2}]}', "names a key twice"),
        ('{"a": 1e99999999999999999999}', "number out of range"),
        ("[1, 2]", "not an object"),
        ("17", "not an object"),
        ('{"a": ' + "[" * 60 + "]" * 60 + "}", "nested more than 50 levels"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_bad_json_row_is_named_and_the_rest_is_read(tmp_path: Path, suffix: str, line: str, said: str) -> None:
    good = '{"a": "good"}'
    path = tmp_path / f"data{suffix}"
    path.write_text(f"[{good}, {line}, {good}]" if suffix == ".json" else f"{good}\n{line}\n{good}\n")
    first, bad, last = rows(path)
    assert first == last == {"a": "good"}
    assert bad.problem.startswith("Row 2 ")
    assert said in bad.problem


@pytest.mark.spec("U24.4")
def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": "x"}\n\n{"a": \n{"a": "y"}\n' + "[" * 100_000 + "\n")
    assert [row if isinstance(row, dict) else row.problem for row in rows(path)] == [
        {"a": "x"},
        "Row 2 is not valid JSON at character 6: expecting value.",
        {"a": "y"},
        "Row 4 is nested more than 50 levels deep.",
    ]


@pytest.mark.parametrize(
    "content", ['[{"a": "x"}, {"a": "y"', '[{"a": "x"}, {"a": "y"},', '[{"a": "x"}, {"a": "y"} {}]']
)
def test_json_that_breaks_off_is_refused_with_its_place(tmp_path: Path, content: str) -> None:
    message = refusal(tmp_path / "data.json", content)
    assert "after row 1" in message or "after row 2" in message


def test_json_too_deep_for_any_parser_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refusal(tmp_path / "deep.json", "[" * 100_000 + "]" * 100_000)
    assert "nested too deeply" in refusal(
        tmp_path / "deep.json", '[{"a":' + '{"a":' * 100_000 + "1" + "}" * 100_001 + "]"
    )


# --- files that cannot be used ------------------------------------------------------------------------------------


def binary(kind: str, folder: Path) -> bytes:
    if kind == "zip":
        with zipfile.ZipFile(folder / "made", "w") as archive:
            archive.writestr("a.exe", "a,b\n1,2\n")
        return (folder / "made").read_bytes()
    return {
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "photo": b"\xff\xd8\xff\xe0" + bytes(range(256)),
        "pickle": pickle.dumps({"question": "q", "answer": "a"}),
        "pdf": b"%PDF-1.7\n1 0 obj",
        "packed": b"\x1f\x8b\x08" + bytes(100),
        "noise": bytes((n * 37 + n // 7) % 256 for n in range(5000)),
        "controls": bytes(range(1, 32)) * 5,
    }[kind]


@pytest.mark.parametrize("kind", ["zip", "picture", "photo", "pickle", "pdf", "packed", "noise", "controls"])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".txt", ".parquet"])
def test_what_is_no_data_is_refused_by_its_content(tmp_path: Path, kind: str, suffix: str) -> None:
    refusal(tmp_path / f"renamed{suffix}", binary(kind, tmp_path))


def test_a_picture_is_called_a_picture(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv", binary("picture", tmp_path)) == "a.csv is a picture renamed to .csv."


def test_a_nul_byte_far_into_the_file_is_refused(tmp_path: Path) -> None:
    assert "NUL" in refusal(tmp_path / "a.csv", b"a,b\n" + b"1,2\n" * 500_000 + b"3,\x00\n")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "question,answer\n", "has a header but no rows"),
        ("a.csv", "\n\n \n", "has a header but no rows"),
        ("a.csv", "a,b,a\n1,2,3\n", "names `a` twice"),
        ("a.csv", '"a,b\n1,2\n', "quotes in the header"),
        ("a.json", "", "is empty"),
        ("a.json", "[]", "has no rows"),
        ("a.json", "{}", "no list of rows"),
        ("a.json", "hello", "not valid JSON at its beginning"),
        ("a.json", "[] []", "goes on after the end"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.txt", " \n\t\n", "has no rows"),
        ("a.docx", "hello", "not a kind of file"),
        ("a.bin", "hello", "not a kind of file"),
        ("a.parquet", "hello", "is not Parquet"),
        ("a.parquet", "PAR1 hello", "cannot be read as Parquet"),
        ("a.csv", "a,b\n".encode("utf-16") + b"\x00", "not valid UTF-16"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    assert said in refusal(tmp_path / name, content)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=path.name):
            Source(path)


def test_parquet_of_a_special_type_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    column = pyarrow.ExtensionArray.from_storage(pyarrow.uuid(), pyarrow.array([b"0" * 16], pyarrow.binary(16)))
    parquet.write_table(pyarrow.table({"id": column, "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"Column `id` of a\.parquet has a special type"):
        rows(tmp_path / "a.parquet")


@pytest.mark.parametrize("kept", [{"info": {"features": {"label": FEATURE}}}, {"info": []}, [], "{"])
def test_labels_of_the_hub_have_their_names(tmp_path: Path, kept: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"text": "a", "label": 1}, {"text": "b", "label": -1}])
    table = table.replace_schema_metadata({"huggingface": kept if isinstance(kept, str) else json.dumps(kept)})
    parquet.write_table(table, tmp_path / "a.parquet")
    named = isinstance(kept, dict) and isinstance(kept["info"], dict)
    assert [row["label"] for row in rows(tmp_path / "a.parquet")] == (["good", None] if named else [1, -1])


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", PAIRS)
    source = Source(path)
    source.must_be_unchanged()
    path.unlink()
    with pytest.raises(DataError, match="changed while it was read"):
        source.must_be_unchanged()


# --- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt"])
def test_a_row_without_end_is_refused_while_reading(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    start = {"a.csv": b"a,b\n1,", "a.jsonl": b'{"a": "', "a.json": b'[{"a": "', "a.txt": b""}[name]
    with open(path, "wb") as file:
        file.write(start)
        for _ in range(100):
            file.write(b"x" * 2**20)
    source = Source(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\."):
            list(source.rows())
        assert tracemalloc.get_traced_memory()[1] < 90 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.spec("U14.5", "U36.4")
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".txt"])
def test_memory_is_flat_however_long_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    if suffix == ".txt":
        path.write_text("word " * 200 + "\n\n")
        path.write_text(path.read_text() * 20_000)
    else:
        write(path, [{"question": "word " * 100, "answer": "word " * 100}] * 20_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Source(path).rows()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20  # of a file of 20 MB
    finally:
        tracemalloc.stop()


@pytest.mark.spec("U36.4")
def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = write(tmp_path / "long.parquet", [{"text": f"{n} word " * 100} for n in range(20_000)])
    before, most = pyarrow.total_allocated_bytes(), 0
    for number, _ in Source(path).rows():
        if number % 1000 == 0:
            most = max(most, pyarrow.total_allocated_bytes() - before)
    assert 0 < most < 8 * 2**20


def test_a_parquet_bomb_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 10_000), pyarrow.array(["word " * 4_000_000]))
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table({"text": texts}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000  # of 200 GB
    with pytest.raises(DataError, match="rows of more than 16 MB"):
        rows(path)
