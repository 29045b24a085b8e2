"""Looking at bytes: encodings of every family, any delimiter, names that do not fit what is inside."""

from pathlib import Path

import pytest

from studio.services.check import check_file
from studio.services.formats import Source

SPOKEN = {
    "cp1252": ("Latin-1", "Où est la bibliothèque? Là-bas, à côté du café."),
    "cp1250": ("Central European", "Dzień dobry, żółw pije źródlaną wodę. Książka leży na półce, śnieg pada."),
    "cp1251": ("Windows-1251", "Привет, как дела? Сегодня хорошая погода."),
    "koi8_r": ("KOI8-R", "Привет, как дела? Сегодня хорошая погода."),
    "cp1253": ("Greek", "Καλημέρα, τι κάνετε; Σήμερα ο καιρός είναι πολύ καλός."),
    "cp1254": ("Turkish", "Günaydın, nasılsınız? Bugün hava çok güzel, şimdi gidiyoruz İstanbul'a."),
    "cp1255": ("Hebrew", "בוקר טוב, מה שלומך היום? מזג האוויר יפה מאוד"),
    "cp1256": ("Arabic", "صباح الخير كيف حالك اليوم الطقس جميل جدا"),
    "shift_jis": ("Shift-JIS", "日本語の文章です。今日は天気がいいですね。"),
    "euc_jp": ("EUC-JP", "日本語の文章です。今日は天気がいいですね。"),
    "iso2022_jp": ("ISO-2022-JP", "日本語の文章です。今日は天気がいいですね。"),
    "gb18030": ("GB 18030", "今天天气很好，我们去公园散步吧。"),
    "big5": ("Big5", "今天天氣很好，我們去公園散步吧。你叫什麼名字？"),
    "euc_kr": ("Korean", "안녕하세요. 오늘 날씨가 좋네요. 공원에 산책하러 갑시다."),
    "utf-16-be": ("UTF-16", "Plain words, mostly."),
}


@pytest.mark.spec("U24.2")
@pytest.mark.parametrize("codec", SPOKEN)
def test_the_encoding_of_every_family_is_found_and_told(tmp_path: Path, codec: str) -> None:
    told, words = SPOKEN[codec]
    path = tmp_path / "rows.csv"
    lines = [f'"{words}","{words} {n}"' for n in range(20)]
    path.write_bytes("\n".join(["question,answer", *lines]).encode(codec))
    check = check_file(path)
    assert told in check.file
    assert check.examples[0]["messages"][0]["content"] == words
    families = [warning for warning in check.warnings if "is not UTF-8" in warning]
    assert len(families) == (codec not in ("utf-16-be", "iso2022_jp"))


def test_utf8_with_damage_stays_utf8_and_the_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(f"Où est-ce {n}?,Là-bas\n" for n in range(20)).encode()
    path.write_bytes(b"question,answer\n" + rows + "Où?,Là\n".encode("cp1252") + rows)
    check = check_file(path)
    assert check.file.endswith("UTF-8")
    assert [problem.row for problem in check.problems] == [21]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~", "¦", "\x01", ":"])
def test_any_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"What is {n}{delimiter}It is {n} I think" for n in range(5)]
    path.write_text("\n".join([f"question{delimiter}answer", *lines]), encoding="utf-8")
    assert check_file(path).examples[1]["messages"][1]["content"] == "It is 1 I think"


def test_a_spreadsheets_note_on_its_delimiter_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sep=;\r\nquestion;answer\r\nq;a, b\r\n", encoding="utf-8")
    assert [row for _, row in Source(path).rows()] == [{"question": "q", "answer": "a, b"}]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", '{"question": "q", "answer": "a"}\n{"question": "q", "answer": "a"}\n', "JSON lines though"),
        ("a.csv", '{"question": "q", "answer": "a"}\n{"question": "q", "answer": "a"}\n', "JSON lines though"),
        ("a.csv", '[{"question": "q", "answer": "a"}]', "JSON though its name says .csv"),
        ("a.jsonl", '[{"question": "q",\n "answer": "a"}]', "JSON"),
        ("a.txt", "question\tanswer\nq\ta\nq\ta\nq\ta\n", "Tab-separated though its name says .txt"),
        ("a.tsv", "question,answer\nq,a\n", "Comma-separated"),
    ],
)
def test_what_is_inside_counts_more_than_the_name(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    check = check_file(tmp_path / name)
    assert check.file.startswith(told)
    assert check.examples[0]["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


@pytest.mark.parametrize("first", ["question,12", "Where is it?,answer", f"question,{'x' * 61}"])
def test_a_first_line_that_looks_like_a_row_is_told(tmp_path: Path, first: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{first}\nq,a\n", encoding="utf-8")
    names = dict(zip(("prompt", "response"), first.split(","), strict=True))
    assert any("first line of rows.csv was taken as the names" in each for each in check_file(path, map=names).warnings)
    path.write_text("question,answer\nq,a\n", encoding="utf-8")
    assert not any("first line" in each for each in check_file(path).warnings)
