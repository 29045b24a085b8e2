"""Conversations kept on this machine, a file each, until they are deleted; and as rows to train on."""

import json
import logging
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from studio.domain.errors import NotFound, StudioError
from studio.storage.paths import Home, write_atomic

log = logging.getLogger(__name__)
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
LONGEST = 80  # characters of a title


class Conversation(BaseModel):
    """What was asked, and for each who answered what they said.

    A turn is {"asked": text, "answers": {who: {"text": …}}}; `model` is the base's folder.
    """

    id: str = ""
    title: str = ""
    created: str = ""
    changed: str = ""
    model: str
    who: list[str]
    instruction: str = ""
    turns: list[dict[str, Any]]


class Conversations:
    """Keeps, lists, renames, deletes. Where the user does not want them kept, nothing is written."""

    def __init__(self, home: Home) -> None:
        self.home, self.file = home, home.root / "chat.json"

    @property
    def kept(self) -> bool:
        """Whether new conversations are kept."""
        try:
            return bool(json.loads(self.file.read_text(encoding="utf-8"))["keep"])
        except (OSError, ValueError, LookupError, TypeError):
            return True

    def keep(self, on: bool) -> None:
        """Keep conversations from now on, or do not. Those kept before stay."""
        write_atomic(self.file, json.dumps({"keep": on}))

    def list(self, most: int | None = None) -> list[Conversation]:
        """Return them, the one changed last first."""
        found = [each for path in self.home.chats.glob("*.json") if (each := _read(path))]
        return sorted(found, key=lambda each: each.changed, reverse=True)[:most]

    def get(self, id: str) -> Conversation:
        found = _read(self._path(id))
        if not found:
            raise NotFound("This conversation is not here any more.", "It was deleted, or its file was damaged.")
        return found

    def save(self, conversation: Conversation) -> Conversation:
        """Keep a conversation as it is now, under the id it has or a new one, if conversations are kept."""
        if not self.kept:
            return conversation
        now = datetime.now(UTC).isoformat()  # to the microsecond: two may be changed in the same millisecond
        before = _read(self._path(conversation.id)) if conversation.id else None
        if before:
            known = {"title": before.title, "created": before.created}
        else:
            title = " ".join(conversation.turns[0]["asked"].split())
            title = title if len(title) <= LONGEST else title[: LONGEST - 1] + "…"
            id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
            known = {"id": id, "title": title, "created": now}
        conversation = conversation.model_copy(update=known | {"changed": now})
        self._write(conversation)
        return conversation

    def rename(self, id: str, title: str) -> Conversation:
        title = " ".join(title.split())[:LONGEST]
        if not title:
            raise StudioError("A conversation needs a name.", "Write one.")
        renamed = self.get(id).model_copy(update={"title": title})
        self._write(renamed)
        return renamed

    def remove(self, id: str) -> None:
        self._path(id).unlink(missing_ok=True)

    def _write(self, conversation: Conversation) -> None:
        try:
            write_atomic(self._path(conversation.id), conversation.model_dump_json(indent=1), mode=0o600)
        except OSError as error:
            raise StudioError(
                f"The conversation could not be kept: {error.strerror or error}.", "Make room, then ask again."
            ) from error

    def _path(self, id: str) -> Path:
        if not ID.fullmatch(id):
            raise NotFound("There is no such conversation.", "Choose one of the list.")
        return self.home.chats / f"{id}.json"


def as_rows(conversations: Iterable[Conversation]) -> str:
    """Return conversations as JSONL in the form of training data: a row for each who answered, named in `answered`."""
    rows = []
    for each in conversations:
        for who in dict.fromkeys(who for turn in each.turns for who in turn["answers"]):
            said = [(turn["asked"], turn["answers"][who]["text"]) for turn in each.turns if who in turn["answers"]]
            start = [{"role": "system", "content": each.instruction}] if each.instruction else []
            talk = [
                {"role": role, "content": text}
                for pair in said
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            rows.append({"messages": start + talk, "answered": who})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(path: Path) -> Conversation | None:
    try:
        return Conversation.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s is not used: %s", path, type(error).__name__)
        return None
