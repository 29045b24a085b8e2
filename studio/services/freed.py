"""What deleting a version frees on the disk, and who works with its files now."""

import json
import os
from contextlib import suppress
from pathlib import Path

from studio.domain.records import Adapter
from studio.storage.paths import Home


def in_use(home: Home, adapter: Adapter) -> str:
    """Return what works with an adapter's files now, in this or another process of the studio; empty if nothing."""
    for job, words in (("evaluate", "it is being measured"), ("export", "it is being exported")):
        for request in home.cache.glob(f"{job}-*/request.json"):
            with suppress(OSError, ValueError):
                if json.loads(request.read_text(encoding="utf-8")).get("adapter") == adapter.path:
                    return words
    return ""


def shared(home: Home, adapter: Adapter) -> list[Path]:
    """Return the files of an adapter's run that are the same as its own on the disk: weights are linked, not copied."""
    theirs = home.runs / adapter.run / "adapter" if adapter.run else None
    own = [file for file in Path(adapter.path).iterdir() if file.is_file() and file.stat().st_nlink > 1]
    return [theirs / file.name for file in own if theirs and _same(file, theirs / file.name)]


def freed_by(home: Home, adapter: Adapter) -> int:
    """Return the bytes that deleting a version frees: what something else is linked to stays on the disk."""
    gone = {file.name for file in shared(home, adapter)}
    files = [file for file in Path(adapter.path).iterdir() if file.is_file()]
    return sum(file.stat().st_size for file in files if file.stat().st_nlink == 1 + (file.name in gone))


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
