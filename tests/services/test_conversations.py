"""Conversations are kept until deleted, nothing is kept where that is off, and as rows they can be trained on."""

import json
import os
import stat

import pytest

from studio.domain.errors import NotFound, StudioError
from studio.services.conversations import Conversation, Conversations, as_rows
from studio.storage.paths import Home
from studio.studio import Studio


def turn(asked: str, **answers: str) -> dict[str, object]:
    return {"asked": asked, "answers": {who: {"text": text} for who, text in answers.items()}}


def talk(*turns: dict[str, object], **more: str) -> Conversation:
    return Conversation(model="/m", who=["desk", "base"], turns=list(turns), **more)  # type: ignore[arg-type]


@pytest.fixture
def kept(home: Home) -> Conversations:
    return Conversations(home)


def test_one_is_kept_changed_renamed_and_deleted(kept: Conversations) -> None:
    first = kept.save(talk(turn("Where  is\nmy parcel?", desk="Here.")))
    second = kept.save(talk(turn("x" * 200, desk="Long.")))
    assert first.title == "Where is my parcel?"
    assert len(second.title) == 80
    assert [each.id for each in kept.list()] == [second.id, first.id]
    longer = kept.save(talk(*first.turns, turn("And now?", desk="There."), id=first.id))
    assert longer.title == first.title
    assert (longer.id, longer.created) == (first.id, first.created)
    assert [each.id for each in kept.list()] == [first.id, second.id]
    assert kept.rename(first.id, "  Parcels \n").title == "Parcels"
    assert kept.get(first.id).turns[1]["answers"]["desk"]["text"] == "There."
    kept.remove(first.id)
    kept.remove(first.id)  # by another page meanwhile
    with pytest.raises(NotFound):
        kept.get(first.id)
    assert [each.id for each in Conversations(kept.home).list()] == [second.id]
    assert kept.save(first).id != first.id, "it was deleted, so it begins anew"


def test_it_can_be_off(kept: Conversations) -> None:
    before = kept.save(talk(turn("One", desk="1")))
    assert kept.kept
    kept.keep(False)
    assert not Conversations(kept.home).kept
    assert kept.save(talk(turn("Two", desk="2"))).id == ""
    assert [each.id for each in kept.list()] == [before.id]


def test_only_the_owner_can_read_them(kept: Conversations) -> None:
    file = kept.home.chats / f"{kept.save(talk(turn('One', desk='1'))).id}.json"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


@pytest.mark.parametrize("id", ["../studio", "", "20260101-000000-abcdef/../x", "20260101-000000-ABCDEF"])
def test_no_other_file_is_reached(kept: Conversations, id: str) -> None:
    for act in (kept.get, kept.remove, lambda id: kept.rename(id, "x")):
        with pytest.raises(NotFound):
            act(id)


def test_a_damaged_file_hides_no_other(kept: Conversations) -> None:
    one = kept.save(talk(turn("One", desk="1")))
    (kept.home.chats / "20260101-000000-abcdef.json").write_text('{"model": ')
    assert [each.id for each in kept.list()] == [one.id]


def test_a_name_is_needed_and_a_full_disk_said(kept: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kept.save(talk(turn("One", desk="1")))
    with pytest.raises(StudioError, match="needs a name"):
        kept.rename(one.id, " \n")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("studio.services.conversations.write_atomic", full)
    with pytest.raises(StudioError, match="could not be kept: No space left"):
        kept.save(one)


def test_they_are_rows_to_train_on(home: Home) -> None:
    one = talk(
        turn("Where?", desk="Here.", base="Dunno."),
        turn("When?", desk="Now. ünï"),
        turn("Why?"),
        instruction="Be brief.",
    )
    lines = [json.loads(line) for line in as_rows([one]).splitlines()]
    assert [[message["content"] for message in line["messages"]] for line in lines] == [
        ["Be brief.", "Where?", "Here.", "When?", "Now. ünï"],
        ["Be brief.", "Where?", "Dunno."],
    ]
    assert [line["answered"] for line in lines] == ["desk", "base"]
    file = home.root / "talks.jsonl"
    others = [talk(turn(f"What is number {i}?", desk=f"It is the number {i}.")) for i in range(20)]
    file.write_text(as_rows([one, *others]), encoding="utf-8")
    dataset = Studio().datasets.add(file)
    assert (dataset.kind, dataset.format, dataset.usable) == ("chat", "messages", 22)
