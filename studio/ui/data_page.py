"""What is said about a data file and about a data set: figures, list items."""

from pathlib import Path
from typing import Any

import gradio as gr

from studio.domain import words
from studio.domain.records import Dataset
from studio.services.check import Check

OTHERWISE = {
    "prompt": "What is asked",
    "response": "What the model should say",
    "system": "Said before each question, if any",
} | {"text": "Instead: plain text to learn"}
SAMPLE = 28  # characters of a first value, so that it stays on one line


def file_facts(check: Check) -> list[dict[str, Any]]:
    """Return the figures of a file that was read."""
    bad = check.problem_count
    return [
        {"label": "Rows", "value": words.count(check.rows), "note": words.size(check.bytes)},
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
