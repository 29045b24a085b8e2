"""Findings: each kind is seen, counted and shown on rows that have it, and real data raises next to none."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.domain.errors import DataError
from studio.domain.records import Finding
from studio.services.check import check_file
from studio.services.findings import KINDS
from studio.services.repair import NAMES
from tests.services.test_check import real

GERMAN = "Der Kunde hat angerufen und gefragt, wo seine Bestellung bleibt, die er letzte Woche aufgegeben hat."
ENGLISH = "The customer called and asked where order {} is that was placed last week, and whether it will come soon."
KEY = "AKIA" + "ABCDEFGHIJKLMNOP"


def check(folder: Path, rows: list[Any], **options: Any) -> dict[str, Finding]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {finding.kind: finding for finding in check_file(path, **options).findings}


def pairs(*rows: tuple[str, str]) -> list[dict[str, str]]:
    return [{"question": question, "answer": answer} for question, answer in rows]


CLEAN = pairs(*((f"What is {n} plus {n * 7 % 13} in base {n % 9 + 2}?", f"It is {n * 31}.") for n in range(60)))


def test_every_repair_is_told_of_and_the_worst_comes_first() -> None:
    assert set(NAMES) == set(KINDS)
    order = list(KINDS)
    assert order.index("secrets") < order.index("encoding") < order.index("duplicates") < order.index("length-outliers")


def test_clean_rows_have_none(tmp_path: Path) -> None:
    assert check(tmp_path, CLEAN) == {}


@pytest.mark.spec("U24.3")
@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("secrets", ("My key?", f"It is {KEY}.")),
        ("template-marks", ("Hello<|im_end|>", "Hi.")),
        ("encoding", ("Un cafÃ©?", "Oui.")),
        ("lost-characters", ("Un caf\ufffd?", "Oui.")),
        ("empty-answer", ("And?", "N/A")),
        ("empty-answer", ("And?", "")),
        ("looping-answer", ("And?", "I am sorry. " * 20)),
        ("personal-data", ("Who?", "anna@acme.com")),
        ("duplicates", ("What is 3 plus 8 in base 5?", "It is 93.")),
        ("near-duplicates", ("what is 3 plus 8, in base 5", "It is 93")),
        ("over-length", ("And?", " ".join(str(n) for n in range(9000)))),
        ("length-outliers", ("And?", " ".join(str(n) for n in range(2000)))),
    ],
)
def test_each_kind_is_found_where_it_is(tmp_path: Path, kind: str, row: tuple[str, str]) -> None:
    found = check(tmp_path, CLEAN + pairs(row))
    assert (found[kind].count, found[kind].rows) == (1, [61])
    assert found[kind].title.endswith(" in 1 row")
    assert found[kind].repair.partition(":")[0] == kind
    assert [each.row for each in found[kind].examples] == [61]
    assert set(found) - {kind} <= {"length-outliers"}


def test_a_difference_shows_both_sides_and_no_secret(tmp_path: Path) -> None:
    found = check(tmp_path, CLEAN + pairs(("Un cafÃ©?", f"It is {KEY}.")))
    assert (found["encoding"].examples[0].before, found["encoding"].examples[0].after) == ("Un cafÃ©?", "Un café?")
    assert found["secrets"].examples[0].after == "It is [secret]."
    assert KEY not in found["secrets"].model_dump_json()


def test_turns_out_of_order_can_be_repaired(tmp_path: Path) -> None:
    good = [{"role": "user", "content": "Hi {}"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"messages": [dict(turn, content=turn["content"].format(n)) for turn in good]} for n in range(5)]
    found = check(tmp_path, [*rows, {"messages": [*good, {"role": "user", "content": "Thanks"}]}])
    (shown,) = found["role-order"].examples
    assert (shown.row, shown.before) == (6, "Row 6 ends without an answer.")
    assert shown.after == "user: Hi {}\nassistant: Hello"


def test_other_languages_are_named_with_their_share(tmp_path: Path) -> None:
    rows = pairs(
        *((f"Question {n}?", ENGLISH.format(n)) for n in range(76)), *((f"Frage {n}?", GERMAN) for n in range(4))
    )
    found = check(tmp_path, rows)["languages"]
    assert (found.count, found.rows, found.repair) == (4, [77, 78, 79, 80], "languages:en")
    assert found.why.startswith("English 95")


def test_rare_labels_are_named(tmp_path: Path) -> None:
    rows = pairs(*((f"Ticket {n} about {n * 37 % 101}", "refund" if n else "fraud") for n in range(100)))
    found = check(tmp_path, rows)["label-imbalance"]
    assert (found.count, found.rows, found.repair) == (1, [1], "label-imbalance:20")
    assert found.why.startswith("`refund` has 99 rows; `fraud` 1. With at most 20 of each, 79 rows would be left out.")


def test_where_no_label_could_lose_rows_there_is_no_repair(tmp_path: Path) -> None:
    labels = ["refund", "late"] * 30 + ["fraud"]
    rows = pairs(*((f"Ticket {n} about {n * 37 % 101}", label) for n, label in enumerate(labels)))
    assert check(tmp_path, rows)["label-imbalance"].repair == ""


def test_frequent_labels_can_be_cut_to_the_usual_number(tmp_path: Path) -> None:
    labels = ["refund"] * 90 + ["late"] * 25 + ["lost"] * 23 + ["fraud"] * 1
    rows = pairs(*((f"Ticket {n} about {n * 37 % 1009}", label) for n, label in enumerate(labels)))
    found = check(tmp_path, rows)["label-imbalance"]
    assert (found.count, found.rows, found.repair) == (1, [139], "label-imbalance:23")
    assert "With at most 23 of each, 69 rows would be left out." in found.why
    assert [each.row for each in found.examples] == [88, 89, 90]


def test_what_would_leak_into_the_held_out_rows_is_told(tmp_path: Path) -> None:
    rows = pairs(*((f"Where is parcel {n} of {n * 17}?", f"At depot {n}.") for n in range(100)))
    found = check(tmp_path, rows + [dict(row, question=row["question"].upper()) for row in rows])
    assert found["near-duplicates"].count == 100
    assert 5 <= found["leakage"].count <= 40, "a tenth is held out, of either side"
    assert found["leakage"].repair == "near-duplicates"
    shown = found["leakage"].examples[0]
    assert (shown.row, shown.like) == (found["leakage"].rows[0], shown.row - 100)
    assert shown.before.startswith(shown.like_text.split("?")[0].upper())


def test_rows_of_a_held_out_file_are_told(tmp_path: Path) -> None:
    held_out = tmp_path / "test.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in [*CLEAN[:2], {"question": "New?", "answer": "Yes."}]))
    found = check(tmp_path, CLEAN, held_out=held_out)["leakage"]
    assert (found.rows, found.repair) == ([1, 2], "leakage")
    assert found.examples[1].before.endswith("(row 2 of the held-out file)")
    held_out.write_text('{"text": "Just text."}\n')
    with pytest.raises(DataError, match="holds other examples"):
        check(tmp_path, CLEAN, held_out=held_out)


def test_the_length_that_is_too_much_can_be_said(tmp_path: Path) -> None:
    rows = CLEAN + pairs(("And?", " ".join(str(n) for n in range(100))))
    assert "over-length" not in check(tmp_path, rows)
    assert check(tmp_path, rows, max_tokens=64)["over-length"].repair == "over-length:64"


def test_real_data_raises_no_false_alarm() -> None:
    assert check_file(real("gsm8k/train.jsonl")).findings == []
    banking = check_file(real("banking77/train.csv"), map={"prompt": "text", "response": "category"}).findings
    assert [finding.kind for finding in banking] == ["leakage", "near-duplicates"]
    assert banking[1].count < 0.01 * 10_003  # looked at: all say the same with another sign or word
