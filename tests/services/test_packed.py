"""Packed files: every packing gives the rows inside, archives with a choice ask, bombs and damage are refused."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet

from studio.domain.errors import DataError
from studio.services.formats import Source

TABLE = b"question,answer\nq1,a1\nq2,a2\n"
ROWS = [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}]


def zstandard(content: bytes) -> bytes:
    whole = arrow.BufferOutputStream()
    with arrow.CompressedOutputStream(whole, "zstd") as stream:
        stream.write(content)
    return whole.getvalue().to_pybytes()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def rows(path: Path) -> list[object]:
    return [row for _, row in Source(path).rows()]


PACKINGS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}
NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard"}


@pytest.mark.parametrize("suffix", PACKINGS)
def test_a_packed_table_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.csv{suffix}"
    path.write_bytes(PACKINGS[suffix](TABLE))
    source = Source(path)
    assert [row for _, row in source.rows()] == ROWS
    assert source.words == f"Comma-separated, UTF-8, packed with {NAMES[suffix]}"
    assert source.unpacked_size() == len(TABLE)
    assert source.stem == "rows"
    assert 0 < source.bytes_read() <= source.size or suffix == ".zst"


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".zip"])
def test_packed_parquet_is_read(tmp_path: Path, suffix: str) -> None:
    whole = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(ROWS), whole)
    path = tmp_path / f"rows.parquet{suffix}"
    if suffix == ".zip":
        archive(path, {"data/rows.parquet": whole.getvalue()})
    else:
        path.write_bytes(PACKINGS[suffix](whole.getvalue()))
    assert rows(path) == ROWS


def test_the_only_data_file_of_an_archive_is_taken(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "rows.zip",
        {
            "rows/": b"",
            "rows/train.csv": TABLE,
            "rows/README.md": b"# About",
            "rows/LICENSE": b"MIT",
            "__MACOSX/rows/._train.csv": b"\0\5\x16\7",
            "rows/.DS_Store": b"\0",
        },
    )
    source = Source(path)
    assert (source.name, source.member) == ("rows.zip/rows/train.csv", "rows/train.csv")
    assert source.words == "Comma-separated, UTF-8, rows/train.csv in a ZIP archive"
    assert [row for _, row in source.rows()] == ROWS


def test_an_archive_of_several_asks_and_takes_a_path_to_one(tmp_path: Path) -> None:
    path = archive(tmp_path / "rows.zip", {"train.csv": TABLE, "test.csv": b"question,answer\nq3,a3\n"})
    with pytest.raises(DataError, match=r"rows\.zip holds 2 data files") as asked:
        Source(path)
    assert f"{path}/train.csv, {path}/test.csv" in asked.value.hint
    assert rows(path / "train.csv") == ROWS
    assert rows(path / "test.csv") == [{"question": "q3", "answer": "a3"}]
    with pytest.raises(DataError, match=r"There is no other\.csv in rows\.zip"):
        Source(path / "other.csv")


def test_an_archive_without_data_says_what_it_is(tmp_path: Path) -> None:
    empty = archive(tmp_path / "a.zip", {"picture.png": b"\x89PNG"})
    book = archive(tmp_path / "b.xlsx", {"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"})
    letter = archive(tmp_path / "c.docx", {"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"})
    for path, said in [(empty, "holds no data file"), (book, "an Excel workbook"), (letter, "an Office document")]:
        with pytest.raises(DataError, match=said) as refused:
            Source(path)
        assert refused.value.hint


def test_what_is_packed_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(gzip.compress(TABLE)))
    with pytest.raises(DataError, match="packed more than once"):
        Source(path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_a_bomb_is_stopped(tmp_path: Path, suffix: str) -> None:
    line = b"question,answer\n" + b"q,a\n" * 2**18
    path = tmp_path / f"rows.csv{suffix}"
    if suffix == ".zip":
        archive(path, {"rows.csv": line * 80})
    elif suffix == ".zst":
        path.write_bytes(zstandard(line * 80))
    else:
        path.write_bytes(PACKINGS[suffix](line) * 80)  # several streams one after the other, which is quicker made
    assert path.stat().st_size < 2 * 2**20
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        rows(path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_damage_is_told(tmp_path: Path, suffix: str, place: float) -> None:
    content = b"question,answer\n" + b"".join(b"q%d,a%d\n" % (n * n, n) for n in range(30_000))
    path = tmp_path / f"rows.csv{suffix}"
    if suffix == ".zip":
        archive(path, {"rows.csv": content})
    else:
        path.write_bytes(PACKINGS[suffix](content))
    whole = path.read_bytes()
    middle = int(len(whole) * place)
    turned = bytes(byte ^ 0x55 for byte in whole[middle : middle + 40])
    damages = [whole[:middle]]
    if suffix != ".zst":  # which has no checksum here
        damages.append(whole[:middle] + turned + whole[middle + 40 :])
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged|NUL") as refused:
            rows(path)
        assert refused.value.hint
