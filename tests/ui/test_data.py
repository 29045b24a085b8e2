"""Data: dropping a file, saying what its columns mean, leaving out bad rows, keeping it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.services import datasets
from studio.studio import Studio
from studio.ui import data
from studio.ui.app import create, serve
from studio.ui.data import FILE, NEW, UNUSED

QUESTION, ANSWER, TEXT = "Question", "Answer", "Text"
TRAIN, WHICH = "Train on this data", "Which of its files?"


@pytest.fixture
def view(page: Callable[..., Any]) -> Any:
    return page(data.build, "data")


def drop(view: Any, path: Path | str) -> None:
    zone = next(block for block in view.demo.blocks.values() if isinstance(block, gr.File))
    zone.label = "Data file"
    view.press("Data file", "upload", str(path))


def visible(view: Any) -> str:
    """Return which of the three views is shown."""
    names = dict(zip(view.tab.outputs[:3], ("list", "adding", "one"), strict=True))
    for said in reversed(view.states):
        for column, name in names.items():
            if said.get(column, {}).get("visible"):
                return name
    return ""


def test_without_data_there_is_a_place_to_drop_a_file(view: Any) -> None:
    view.refresh()
    assert visible(view) == "adding"
    assert "nothing is uploaded anywhere" in view.seen()
    assert view.was("All data", "visible") is False, "there is no list to go back to"


def test_a_known_structure_needs_no_word(view: Any, studio: Studio) -> None:
    view.press("Use the sample data")
    assert (visible(view), view.values[view.item]) == ("one", FILE)
    assert view.was(TRAIN, "interactive") is True
    assert "needs a fix" not in view.seen()
    view.press(TRAIN)
    (dataset,) = studio.datasets.list()
    assert dataset.name == "support"
    assert view.values[view.item] == view.values[view.shell.items["train"]] == dataset.id
    assert datasets.sample_path().is_file(), "only uploaded copies are discarded"


@pytest.mark.spec("U24.5")
def test_three_columns_are_mapped_and_the_real_examples_shown(view: Any, studio: Studio, tickets: Path) -> None:
    drop(view, tickets)
    assert "The columns do not say what they mean." in view.seen()
    assert view.was(QUESTION, "choices") == [UNUSED, "nr", "they_wrote", "we_said"]
    view.press(QUESTION, "input", "they_wrote")
    view.press(ANSWER, "input", "we_said")
    assert view.was(QUESTION, "info") == "“Where is parcel 0?”"
    assert "The columns do not say" not in view.seen()
    assert "<mark>Parcel 0 is at the depot.</mark>" in view.seen()
    view.press("Example", "input", 3)
    assert "<mark>Parcel 2 is at the depot.</mark>" in view.seen()
    view.press("Held out for testing, %", "input", 25)
    view.press(TRAIN)
    (dataset,) = studio.datasets.list()
    assert dataset.map == {"prompt": "they_wrote", "response": "we_said"}
    assert (dataset.train_rows, dataset.eval_rows) == (30, 10)


def test_an_alpaca_rows_input_stays_when_another_column_is_changed(view: Any, studio: Studio, tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    row = {"instruction": "Shorten this.", "input": "A long text.", "output": "Text.", "system": "Be brief."}
    path.write_text(json.dumps([row] * 20))
    drop(view, path)
    assert "A long text." in view.seen()
    view.press("Instruction", "input", UNUSED)
    assert "Be brief." not in view.seen()
    assert "A long text." in view.seen()
    view.press(QUESTION, "input", "input")
    assert "A long text." in view.seen()
    assert "Shorten this." not in view.seen()


def test_a_text_column_takes_the_place_of_question_and_answer(view: Any, studio: Studio, tickets: Path) -> None:
    drop(view, tickets)
    view.press(TEXT, "input", "we_said")
    assert (view.values[view.find(QUESTION)], view.values[view.find(TEXT)]) == (UNUSED, "we_said")
    assert "<mark>Parcel 0 is at the depot.</mark>" in view.seen()
    view.press(ANSWER, "input", "we_said")
    assert "Choose a column for the question" in view.seen()
    assert view.was(TRAIN, "interactive") is False
    view.press(QUESTION, "input", "they_wrote")
    view.press(TRAIN)
    assert studio.datasets.list()[0].kind == "chat"


@pytest.mark.spec("U24.4")
def test_bad_rows_are_named_and_left_out_only_with_consent(view: Any, studio: Studio, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i}?", "completion": "" if i in (4, 9) else f"It is {i}."} for i in range(30)]
    path = tmp_path / "gaps.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    drop(view, path)
    seen = view.seen()
    assert "2 rows cannot be used" in seen
    assert "Row 5 has no <code>completion</code>." in seen
    assert "Row 10 has no <code>completion</code>." in seen
    assert "Map another column or leave the row out." in seen
    assert (view.was(TRAIN, "value"), view.was(TRAIN, "interactive")) == ("Fix 2 rows to train", False)
    assert (view.was("Leave out", "label"), view.was("Leave out", "visible")) == ("Leave out 2 rows", True)
    view.press("Leave out", "input", True)
    assert (view.was(TRAIN, "value"), view.was(TRAIN, "interactive")) == (TRAIN, True)
    view.press("Leave out", "input", False)
    assert view.was(TRAIN, "interactive") is False
    view.press("Leave out", "input", True)
    view.press(TRAIN)
    assert (studio.datasets.list()[0].usable, studio.datasets.list()[0].rows) == (28, 30)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("photo.csv", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "is a picture renamed to .csv"),
        ("nothing.jsonl", b"", "is empty"),
        ("few.csv", b"prompt,completion\na,b\n", "Only 1 usable example"),
    ],
)
def test_what_cannot_be_used_is_said_in_place(
    view: Any, studio: Studio, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    drop(view, tmp_path / name)
    if visible(view) == "one":
        view.press(TRAIN)
    assert said in view.seen()
    assert studio.datasets.list() == []


def test_a_path_is_read_too_and_a_wrong_one_is_named(view: Any, tickets: Path) -> None:
    view.press("Or the path of a file on this machine", "submit", "/nowhere/a.csv")
    assert "There is no file /nowhere/a.csv." in view.seen()
    view.press("Or the path of a file on this machine", "submit", f"  {tickets} ")
    assert visible(view) == "one"


def test_of_an_archive_with_several_files_one_is_chosen(view: Any, studio: Studio, tickets: Path) -> None:
    packed = studio.home.cache / "packed.zip"  # as an uploaded copy
    packed.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(packed, "w") as made:
        made.write(tickets, "tickets.csv")
        made.write(datasets.sample_path(), "more/support.csv")
    drop(view, packed)
    assert visible(view) != "one"
    assert "packed.zip holds 2 data files." in view.seen()
    assert view.was(WHICH, "choices") == [
        ("tickets.csv", f"{packed}/tickets.csv"),
        ("more/support.csv", f"{packed}/more/support.csv"),
    ]
    view.press(WHICH, "input", f"{packed}/more/support.csv")
    assert visible(view) == "one"
    assert view.was(WHICH, "visible") is False
    view.press(TRAIN)
    (dataset,) = studio.datasets.list()
    assert dataset.name == "support"
    assert not packed.exists()


def test_an_uploaded_copy_is_discarded_once_it_is_kept(view: Any, studio: Studio, tickets: Path) -> None:
    copy = studio.home.cache / "uploads" / "tickets.csv"
    copy.parent.mkdir()
    copy.write_bytes(tickets.read_bytes())
    drop(view, copy)
    view.press(TRAIN)
    assert studio.datasets.list()
    assert not copy.exists()


def test_a_data_set_is_opened_from_the_list_and_deleted_after_a_question(view: Any, studio: Studio) -> None:
    dataset = studio.datasets.add(datasets.sample_path())
    view.refresh()
    assert visible(view) == "list"
    assert f'data-id="{dataset.id}"' in view.seen()
    view.refresh(dataset.id)
    assert visible(view) == "one"
    assert "never trained on" in view.seen()
    view.press("Example", "input", dataset.train_rows)
    assert "<mark>" in view.seen()
    view.press(TRAIN)
    assert view.values[view.shell.items["train"]] == dataset.id
    view.press("Delete…")
    assert "200 examples" in view.seen()
    assert studio.datasets.list()
    view.press("Delete the data set")
    assert studio.datasets.list() == []
    assert view.values[view.item] == ""


def test_a_data_set_that_is_gone_leads_to_the_list(view: Any, studio: Studio) -> None:
    studio.datasets.add(datasets.sample_path())
    view.refresh("gone")
    assert visible(view) == "list"


def test_another_tab_does_not_lose_the_file_that_was_read(view: Any, tickets: Path) -> None:
    drop(view, tickets)
    before = view.seen()
    view.refresh(view.values[view.item])
    assert view.seen() == before
    view.refresh(NEW)
    assert visible(view) == "adding"


@pytest.mark.spec("U24.3")
def test_a_finding_is_repaired_in_what_is_kept(view: Any, studio: Studio, tmp_path: Path) -> None:
    rows = [{"prompt": f"Is {i} odd?", "completion": f"Ask {i * 7} again."} for i in range(30)]
    rows[4] |= {"completion": ""}
    rows[5] |= {"prompt": "Un cafÃ©?"}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    before = path.read_bytes()
    drop(view, path)
    assert "Characters read in a wrong encoding in 1 row" in view.seen()
    assert view.was("Leave out", "label") == "Leave out 1 row"
    for repair in ("encoding", "empty-answer"):
        (switch,) = [fn for fn in view.demo.fns.values() if fn.name == "repair"]
        picked = gr.SelectData(None, {"index": repair, "value": repair})
        view._take(switch.fn(picked, *[view.values[each] for each in switch.inputs]), switch.outputs)
    assert view.was(TRAIN, "interactive") is True
    view.press(TRAIN)
    (dataset,) = studio.datasets.list()
    assert (dataset.usable, dataset.repairs) == (29, ["encoding", "empty-answer"])
    kept = "".join((Path(dataset.path) / f"{side}.jsonl").read_text(encoding="utf-8") for side in ("train", "eval"))
    assert "Un café?" in kept
    assert path.read_bytes() == before
    view.refresh(dataset.id)
    assert "When it was added: encoding, 1 row; empty-answer, 1 row" in view.seen()
    assert "Characters read in a wrong encoding" not in view.seen()


def test_a_file_of_an_archive_is_chosen_and_trained_on(studio: Studio, browser: Any, tickets: Path) -> None:
    packed = tickets.parent / "packed.zip"
    with zipfile.ZipFile(packed, "w") as made:
        made.write(tickets, "tickets.csv")
        made.write(datasets.sample_path(), "more/support.csv")
    demo = serve(studio, create(studio), browser=False)
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{str(demo.local_url).rstrip('/')}/?view=data")
        page.get_by_role("heading", name="Add data").wait_for()
        page.locator("input[type=file]").first.set_input_files(packed)
        page.get_by_label(WHICH).first.click()
        page.get_by_role("option", name="more/support.csv").click()
        page.get_by_role("button", name=TRAIN).click()
        page.wait_for_url("**/?view=train*")
        assert [each.name for each in studio.datasets.list()] == ["support"]
        page.close()
    finally:
        demo.close()
