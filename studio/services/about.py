"""What the user says of a version: a note, tags, and whether it is archived. Kept beside it, so that it goes along."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from studio.domain.errors import StudioError
from studio.storage.paths import write_atomic

FILE = "about.json"


class About(BaseModel):
    """The content of `about.json`."""

    note: str = Field(default="", max_length=2_000)
    tags: list[str] = Field(default=[], max_length=20)
    archived: bool = False


def read(folder: Path) -> About:
    """Return what is said of the version in a folder; nothing where nothing can be read."""
    try:
        return About.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return About()


def write(folder: Path, **values: Any) -> None:
    """Change some of it."""
    try:
        changed = About.model_validate(read(folder).model_dump() | values)
    except ValidationError as error:
        field = error.errors()[0]
        raise StudioError(f"This {field['loc'][0]} cannot be kept.", field["msg"]) from error
    changed.tags = list(dict.fromkeys(tag for tag in (" ".join(each.split()) for each in changed.tags) if tag))
    write_atomic(folder / FILE, json.dumps(changed.model_dump(), ensure_ascii=False, indent=1))
