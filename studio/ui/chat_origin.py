"""What an adapter brings along to the chat: the instruction it learned with, and the questions it did not."""

from contextlib import suppress

from studio.domain.errors import StudioError
from studio.domain.records import Adapter
from studio.services.held import held_out
from studio.studio import Studio

OFFERED = 4  # questions shown at once


def instruction_of(studio: Studio, adapter: Adapter) -> str:
    """Return the instruction of the first example the adapter learned from: it answers best when told the same."""
    with suppress(StudioError):  # the run or its data may be deleted
        dataset = studio.datasets.get(studio.runs.get(adapter.run).dataset)
        first = studio.datasets.example(dataset.id, 0).get("messages", [{}])[0]
        return str(first["content"]) if first.get("role") == "system" else ""
    return ""


def questions(studio: Studio, chosen: list[str], first: int) -> list[dict[str, str]]:
    """Return held-out questions of the first adapter among those chosen: what to ask, what its data answers.

    After the last come the first again.
    """
    for choice in chosen:
        with suppress(StudioError):
            adapter = studio.adapters.get(choice)
            rows = held_out(studio.home, adapter, first, OFFERED) or held_out(studio.home, adapter, 0, OFFERED)
            if found := [each for each in map(question_of, rows) if each["asked"]]:
                return found
    return []


def question_of(row: dict[str, object]) -> dict[str, str]:
    """Return how a conversation begins: instruction, first question, and its answer."""
    turns = [turn for turn in row["messages"] if isinstance(turn, dict)]  # type: ignore[attr-defined]
    by = {turn["role"]: str(turn.get("content") or "") for turn in reversed(turns)}
    return {"told": by.get("system", ""), "asked": by.get("user", ""), "expected": by.get("assistant", "")}
