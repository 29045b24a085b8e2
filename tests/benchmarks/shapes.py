"""Which file shapes are read right, asked about or read wrong: `python -m tests.benchmarks.shapes`.

Every structure in every container, and files that must be asked about or refused, each through the service in a child
process; files given on the command line are checked beside them. Right means: these very examples.
"""

import argparse
import bz2
import csv
import gzip
import json
import lzma
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as arrow
from pyarrow import parquet

from studio.domain.errors import DataError, NeedsMapping
from studio.services import apart
from studio.services.check import Check
from studio.storage.paths import Home

Rows = list[dict[str, Any]]
TURNS = ({"role": "user", "content": "Where is “it”?"}, {"role": "assistant", "content": "Là-bas,\nnear; the | door"})
PAIR = (TURNS[0]["content"], TURNS[1]["content"])
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"name": "find", "arguments": {"what": "it", "depth": 2}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "required": ["what"]}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
WITH_TOOLS = [TURNS[0], CALLED, {"role": "tool", "content": "door"}, TURNS[1]]
COUNT = 24  # rows, each told apart by its number


class Structure(NamedTuple):
    """Rows of one structure: a row, the format it is, and the messages or text it makes."""

    row: dict[str, Any]
    format: str
    makes: Any
    tools: bool = False


def pair(question: str, answer: str, **more: str) -> dict[str, Any]:
    return {question: PAIR[0], answer: PAIR[1], **more}


def said(*turns: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"from": {"user": "human", "assistant": "gpt"}[t["role"]], "value": t["content"]} for t in turns]


ABOUT = [{"role": "user", "content": f"{PAIR[0]}\n\nThe door."}, TURNS[1]]
SHARED_TOOLS = [
    *said(TURNS[0]),
    {"from": "function_call", "value": json.dumps(CALL)},
    {"from": "observation", "value": "door"},
    *said(TURNS[1]),
]
STRUCTURES = {
    "messages": Structure({"messages": [SYSTEM, *TURNS]}, "messages", [SYSTEM, *TURNS]),
    "messages, several turns": Structure({"messages": [*TURNS, *TURNS]}, "messages", [*TURNS, *TURNS]),
    "messages with tools": Structure({"messages": WITH_TOOLS, "tools": [TOOL]}, "messages", WITH_TOOLS, True),
    "sharegpt": Structure({"conversations": said(*TURNS), "system": "Be brief."}, "sharegpt", [SYSTEM, *TURNS]),
    "sharegpt with tools": Structure(
        {"conversations": SHARED_TOOLS, "tools": json.dumps([TOOL["function"]])}, "sharegpt", WITH_TOOLS, True
    ),
    "alpaca": Structure(pair("instruction", "output", input="The door."), "alpaca", ABOUT),
    "alpaca with history": Structure(
        pair("instruction", "output", input="") | {"history": [list(PAIR)]}, "alpaca", [*TURNS, *TURNS]
    ),
    "prompt and completion": Structure(pair("prompt", "completion"), "prompt-completion", list(TURNS)),
    "prompt and completion as turns": Structure(
        {"prompt": [TURNS[0]], "completion": [TURNS[1]]}, "prompt-completion", list(TURNS)
    ),
    "question and answer": Structure(pair("question", "answer", id="7"), "question-answer", list(TURNS)),
    "question with context": Structure(pair("question", "answer", context="The door."), "question-answer", ABOUT),
    "question and answer, German": Structure(pair("Frage", "Antwort"), "question-answer", list(TURNS)),
    "question and answer, Chinese": Structure(pair("问题", "答案"), "question-answer", list(TURNS)),
    "preference with prompt": Structure(
        {"prompt": PAIR[0], "chosen": PAIR[1], "rejected": "No."}, "preference", list(TURNS)
    ),
    "preference as turns": Structure(
        {"chosen": list(TURNS), "rejected": [TURNS[0], {"role": "assistant", "content": "No."}]},
        "preference",
        list(TURNS),
    ),
    "preference, same beginning": Structure(
        {
            "chosen": f"\n\nHuman: {PAIR[0]}\n\nAssistant: {PAIR[1]}",
            "rejected": f"\n\nHuman: {PAIR[0]}\n\nAssistant: No.",
        },
        "preference",
        list(TURNS),
    ),
    "feedback": Structure(pair("prompt", "completion") | {"label": True}, "feedback", list(TURNS)),
    "classification": Structure({"text": PAIR[0], "label": "place"}, "classification", [
        TURNS[0], {"role": "assistant", "content": "place"},
    ]),
    "text": Structure({"text": PAIR[1]}, "text", PAIR[1]),
}  # fmt: skip


def as_csv(rows: Rows, delimiter: str = ",", dump: Callable[[Any], str] = json.dumps) -> str:
    import io

    whole = io.StringIO(newline="")
    writer = csv.DictWriter(whole, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    flat = [{key: dump(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows]
    writer.writerows(flat)
    return whole.getvalue()


def as_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_parquet(rows: Rows) -> bytes:
    whole = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(rows), whole)
    return whole.getvalue().to_pybytes()


def in_zip(name: str, content: bytes) -> bytes:
    import io

    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"data/{name}", content)
        archive.writestr(f"__MACOSX/data/._{name}", b"\0\5\x16\7")
        archive.writestr("README.md", "# About these rows")
    return whole.getvalue()


def in_zstandard(content: bytes) -> bytes:
    whole = arrow.BufferOutputStream()
    with arrow.CompressedOutputStream(whole, "zstd") as stream:
        stream.write(content)
    return whole.getvalue().to_pybytes()


CONTAINERS: dict[str, Callable[[Rows], bytes]] = {
    "rows.csv": lambda rows: as_csv(rows).encode(),
    "semicolons.csv": lambda rows: as_csv(rows, ";").encode("utf-8-sig"),
    "bars.csv": lambda rows: as_csv(rows, "|").replace("\r\n", "\n").encode(),
    "printed.csv": lambda rows: as_csv(rows, ",", repr).encode("utf-16"),
    "rows.tsv": lambda rows: as_csv(rows, "\t").encode(),
    "rows.json": lambda rows: json.dumps(rows).encode(),
    "wrapped.json": lambda rows: json.dumps({"version": 1, "data": rows}, indent=2).encode(),
    "rows.jsonl": lambda rows: as_lines(rows).encode(),
    "utf16.jsonl": lambda rows: as_lines(rows).encode("utf-16"),
    "named.txt": lambda rows: as_lines(rows).encode(),
    "rows.parquet": as_parquet,
    "rows.csv.gz": lambda rows: gzip.compress(as_csv(rows).encode()),
    "rows.jsonl.bz2": lambda rows: bz2.compress(as_lines(rows).encode()),
    "rows.jsonl.xz": lambda rows: lzma.compress(as_lines(rows).encode()),
    "rows.jsonl.zst": lambda rows: in_zstandard(as_lines(rows).encode()),
    "rows.zip": lambda rows: in_zip("rows.csv", as_csv(rows).encode()),
    "parquet.zip": lambda rows: in_zip("rows.parquet", as_parquet(rows)),
}
TABLE = "question,answer\nq1,a1\nq2,a2\n"
# What must be asked about or refused, with the words that do it.
OTHERS: dict[str, tuple[bytes, str]] = {
    "unclear.csv": (b"subject,reply_text\na,b\nc,d\n", "do not say what they mean"),
    "numbers.csv": (b"text,label\nfine,1\nbad,0\n", "holds no names of labels"),
    "two answers.csv": (b"question,answer,response\na,b,c\n", "do not say what they mean"),
    "no header.csv": (b"Where is it?,There.\nWho is it?,Me.\n", "do not say what they mean"),
    "turns.jsonl": (
        b'{"role": "user", "content": "q"}\n{"role": "assistant", "content": "a"}\n',
        "turn of one convers",
    ),
    "splits.json": (b'{"train": [{"a": 1}], "test": [{"a": 1}]}', "two lists of rows"),
    "columns.json": (b'{"question": {"0": "q"}, "answer": {"0": "a"}}', "no list of rows"),
    "several.zip": (b"", "holds 2 data files"),
    "book.xlsx": (b"", "Excel workbook"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"question,answer\n", "has a header but no rows"),
}


def numbered(value: Any, number: int) -> Any:
    """Return the value with every question numbered, so that no two rows are equal."""
    if isinstance(value, str):
        return value.replace("Where is", f"{number}: where is").replace("Là-bas", f"{number}, là-bas")
    if isinstance(value, list | tuple):
        return [numbered(each, number) for each in value]
    return {key: numbered(each, number) for key, each in value.items()} if isinstance(value, dict) else value


def make(folder: Path) -> Iterator[tuple[str, Path, Structure | str]]:
    """Write each shape; yield its name, its file and what it is, or the words it must be met with."""
    for name, structure in STRUCTURES.items():
        for file, write in CONTAINERS.items():
            path = folder / name.replace(", ", "-").replace(" ", "-") / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(write([numbered(structure.row, number) for number in range(COUNT)]))
            yield f"{name} in {file}", path, structure
    for file, (content, words) in OTHERS.items():
        path = folder / file
        path.write_bytes(content)
        if words in ("holds 2 data files", "Excel workbook"):
            names = ["a.csv", "b.csv"] if file == "several.zip" else ["[Content_Types].xml", "xl/workbook.xml"]
            with zipfile.ZipFile(path, "w") as archive:
                for each in names:
                    archive.writestr(each, TABLE)
        yield file, path, words


def judge(found: Check | DataError, expected: Structure | str) -> str:
    """Return right, asked, refused, or what is wrong."""
    if isinstance(expected, str):
        if isinstance(found, Check):
            return f"wrong: read as {found.format}"
        kind = "asked" if isinstance(found, NeedsMapping) or "files" in expected else "refused"
        return kind if expected in found.message and found.hint else f"wrong words: {found}"
    if isinstance(found, DataError):
        return f"wrong: {found}"
    key = "text" if found.kind == "text" else "messages"
    made = [{key: each[key]} | ({"tools": each["tools"]} if "tools" in each else {}) for each in found.examples]
    wanted = [
        {key: numbered(expected.makes, number)} | ({"tools": [TOOL]} if expected.tools else {}) for number in range(5)
    ]
    if found.format != expected.format or found.usable != COUNT:
        return f"wrong: {found.format}, {found.usable} usable. {found.why}"
    return "right" if made == wanted else f"wrong: {made[0]}"


def checked(home: Home, path: Path) -> Check | DataError:
    try:
        return next(answer for answer in apart.check(home, path) if isinstance(answer, Check))
    except DataError as error:
        return error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="other files, whose structure and count are printed")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name) / "home").prepare()
        for shape, path, expected in make(Path(name)):
            verdict = judge(checked(home, path), expected)
            counts[verdict.partition(":")[0].split()[0]] += 1
            if verdict.startswith("wrong"):
                print(f"{shape}: {verdict}")
        for path in options.files:
            found = checked(home, path)
            told = f"{found.format}, {found.usable} of {found.rows}" if isinstance(found, Check) else str(found)
            print(f"{path.parent.name}/{path.name}: {told}")
    print(f"{counts.total()} shapes: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


if __name__ == "__main__":
    main()
