"""What is said about a data file and about a data set: figures, findings, list items."""

from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.records import Dataset
from studio.services.check import Check
from studio.ui.pieces import findings, section

OTHERWISE = {
    "prompt": "What is asked",
    "response": "What the model should say",
    "system": "Said before each question, if any",
} | {"text": "Instead: plain text to learn"}
LISTED = 5  # problems shown
SAMPLE = 28  # characters of a first value, so that it stays on one line


def file_facts(place: Path, check: Check) -> list[dict[str, Any]]:
    """Return the figures of a file that was read."""
    bad = check.problem_count
    return [
        {"label": "Rows", "value": words.count(check.rows), "note": words.size(place.stat().st_size)},
        {
            "label": "Usable",
            "value": words.count(check.usable),
            "note": f"{words.plural(bad, 'needs', 'need')} a fix" if bad else "",
            "tone": "bad" if bad else "",
        },
        *_lengths(check),
    ]


def kept_facts(dataset: Dataset, check: Check) -> list[dict[str, Any]]:
    """Return the figures of a data set."""
    held = f"{words.percent(dataset.eval_rows / dataset.usable)}, never trained on"
    left_out = dataset.rows - dataset.usable
    return [
        {
            "label": "To learn from",
            "value": words.count(dataset.train_rows),
            "note": f"{words.plural(left_out, 'row')} left out" if left_out else "",
        },
        {"label": "Held out for testing", "value": words.count(dataset.eval_rows), "note": held},
        *_lengths(check),
        {"label": "Added", "value": words.when(dataset.created)},
    ]


def _lengths(check: Check) -> list[dict[str, Any]]:
    if not check.usable:
        return []
    middle, longest = check.words.median, check.words.longest
    return [
        {"label": "Usual length", "value": words.count(middle), "unit": "words", "note": "half are shorter"},
        {
            "label": "Longest example",
            "value": words.count(longest),
            "unit": "words",
            "note": f"row {check.words.longest_row:,}",
        },
    ]


def issues_of(check: Check) -> str:
    """Return what was found: rows that cannot be used with their remedy, and what is only worth knowing."""
    bad, shown = check.problem_count, check.problems[:LISTED]
    items = []
    if bad:
        remedies = list(dict.fromkeys(each.remedy for each in shown))
        same = len(remedies) == 1  # then it is said once
        lines = [each.problem if same else f"{each.problem} {each.remedy}" for each in shown]
        more = f"And {bad - len(shown):,} more." if bad > len(shown) else ""
        lines += [f"{more} {remedies[0] if same else ''}".strip()]
        items.append(
            ("Must fix", "bad", f"{words.plural(bad, 'row')} cannot be used", [line for line in lines if line])
        )
    items += [("Should fix", "warn", warning, []) for warning in check.warnings]
    return section("Findings", "The original file is never changed.") + findings(items) if items else ""


def primary(bad: int) -> gr.Button:
    """Return the one filled button: inactive while rows need a fix."""
    return gr.Button(f"Fix {words.plural(bad, 'row')} to train" if bad else "Train on this data", interactive=not bad)


def row(dataset: Dataset) -> dict[str, Any]:
    kind = (
        "Texts" if dataset.kind == "text" else "Questions and answers" if "prompt" in dataset.map else "Conversations"
    )
    meta = [words.plural(dataset.usable, "example"), f"{dataset.eval_rows:,} held out", words.when(dataset.created)]
    return {"id": dataset.id, "title": dataset.name, "text": f"{kind} from {Path(dataset.source).name}", "meta": meta}


def sample(check: Check, meaning: str) -> str:
    """Return the first value of the column that has this meaning, in quotes."""
    value = check.samples.get(check.map.get(meaning, ""), "")
    return f"“{value[:SAMPLE]}{'…' if len(value) > SAMPLE else ''}”" if value else OTHERWISE[meaning]
