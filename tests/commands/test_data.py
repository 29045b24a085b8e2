"""`peft-studio data`: findings as JSON and in words, and a repaired copy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTENT = "question,answer\nUn cafÃ©?,Oui.\n" + "".join(f"Is {n} odd?,Ask {n * 7}.\n" for n in range(30))


@pytest.mark.spec("U24.3")
def test_findings_are_told_with_their_repair(call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CONTENT, encoding="utf-8")
    (found,) = json.loads(call("data", "check", path, "--json").stdout)["findings"]
    assert {"kind", "count", "rows", "why", "remedy", "repair"} <= set(found)
    assert (found["kind"], found["count"], found["rows"], found["repair"]) == ("encoding", 1, [1], "encoding")
    assert "wrong encoding" in call("data", "check", path).stdout
    shown = call("data", "repair", path, "--fix", found["repair"])
    assert "encoding: 1 row changed" in shown.stdout
    assert "Un café?" in shown.stdout
    made = json.loads(call("data", "repair", path, "--fix", "encoding", "--out", tmp_path / "b.csv", "--json").stdout)
    assert (made["changed"], made["written"]) == ({"encoding": 1}, 31)
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == CONTENT.replace("Ã©", "é")
    assert path.read_text(encoding="utf-8") == CONTENT


def test_what_a_test_file_has_too_is_left_out(call: Callable[..., Any], tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text(CONTENT.replace("Ã©", "é"), encoding="utf-8")
    test.write_text("question,answer\nis 3 odd,Ask 21\n", encoding="utf-8")
    (found,) = json.loads(call("data", "check", train, "--held-out", test, "--json").stdout)["findings"]
    assert (found["kind"], found["rows"]) == ("leakage", [5])
    told = call("data", "repair", train, "--fix", "leakage", "--held-out", test, "--out", tmp_path / "a.csv", "--json")
    assert json.loads(told.stdout)["left_out"] == {"leakage": 1}
    assert "Is 3 odd?" not in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_a_wrong_repair_is_refused_in_words(call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CONTENT, encoding="utf-8")
    result = call("data", "repair", path, "--fix", "spelling")
    assert result.exit_code == 1
    assert "There is no repair `spelling`." in result.stderr
