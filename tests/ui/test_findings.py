"""Findings on the page: the worst first, rows and differences in words, text of the data never as HTML."""

import json
from pathlib import Path

import pytest

from studio.services.check import Check, check_file
from studio.ui import findings


@pytest.fixture
def check(tmp_path: Path) -> Check:
    rows = [{"question": f"What is {n} plus {n * 7 % 13} of {n % 9}?", "answer": f"It is {n * 31}."} for n in range(60)]
    rows[7]["answer"] = ""
    rows[8]["question"] = "<b>Un</b> cafÃ©?"
    rows[9]["answer"] = "N/A"
    rows[10] = {**rows[3], "question": rows[3]["question"].upper()}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return check_file(path)


def test_each_finding_shows_rows_the_difference_and_a_switch(check: Check) -> None:
    seen = findings.shown(check)
    order = [
        "1 row cannot be used",
        "wrong encoding in 1 row",
        "place of an answer in 2 rows",
        "earlier example in 1 row",
    ]
    places = [seen.index(title) for title in order]
    assert places == sorted(places)
    assert "Rows 8, 10" in seen
    assert "<dt>Row 4 stays</dt><dd>What is 3 plus 8 of 3?" in seen
    assert "<del>&lt;b&gt;Un&lt;/b&gt; cafÃ©?</del><ins>&lt;b&gt;Un&lt;/b&gt; café?</ins>" in seen
    assert seen.count("left out by the repair") == 3
    assert [f'data-id="{kind}"' in seen for kind in ("encoding", "empty-answer", "near-duplicates")] == [True] * 3


def test_a_kept_data_set_has_no_switches_and_says_what_was_repaired(check: Check) -> None:
    seen = findings.shown(check.model_copy(update={"repaired": {"encoding": 2}}), kept=True)
    assert "When it was added: encoding, 2 rows" in seen
    assert "data-id" not in seen
    assert findings.shown(Check(format="text", kind="text", why="", file="")) == ""


def test_a_repair_lowers_what_is_to_be_fixed() -> None:
    file = {"bad": 3, "repairs": [], "mends": {"empty-answer": 2, "encoding": 0}}
    on = findings.toggled(findings.toggled(file, "empty-answer"), "encoding")
    assert (on["repairs"], findings.bad_rows(on)) == (["empty-answer", "encoding"], 1)
    off = findings.toggled(on, "empty-answer")
    assert (off["repairs"], findings.bad_rows(off)) == (["encoding"], 3)
