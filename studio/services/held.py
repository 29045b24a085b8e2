"""The rows that an adapter's own run held back: what it was not trained on, to ask and to compare with."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from studio.domain.records import Adapter
from studio.storage.paths import Home


def held_out(home: Home, adapter: Adapter, first: int, most: int) -> list[dict[str, Any]]:
    """Return conversations held out, at most so many from the `first` on; none where the run or its data is gone."""
    try:
        lineage = json.loads((home.runs / adapter.run / "lineage.json").read_text(encoding="utf-8"))
        with open(Path(lineage["dataset"]["path"]) / "eval.jsonl", encoding="utf-8") as file:
            rows = [json.loads(line) for line in islice(file, first, first + most)]
    except (OSError, ValueError, KeyError):
        return []
    return [row for row in rows if "messages" in row]
