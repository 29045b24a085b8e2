"""Did the adapter forget? A small set of general texts and questions, by their likelihood under base and adapter.

The score is how many of 100 next tokens of the texts a model gets right when it guesses each by its probability. Unlike
the loss it cannot be ruined by a few strange tokens. A question counts as right when its first option is the likeliest.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from studio.engine.rows import Row
from studio.engine.verdict import difference

FILE = Path(__file__).parents[1] / "samples" / "general.jsonl"


@dataclass(frozen=True)
class General:
    """The set as rows of one tokenizer; `options` are the places of each question's options among the rows."""

    rows: list[Row]
    texts: list[int]
    options: list[list[int]]

    @classmethod
    def of(cls, tokenizer: Any, limit: int) -> "General":
        """Tokenise the set; what is longer than the model reads is left out."""
        rows: list[Row] = []
        texts: list[int] = []
        options: list[list[int]] = []
        for item in items():
            asked = f"Question: {item['question']}\nAnswer:" if "question" in item else item["text"]
            made = [_row(tokenizer, asked, after) for after in item.get("options", [""])]
            if max(map(len, made)) > limit:
                continue
            places = list(range(len(rows), len(rows) + len(made)))
            if "options" in item:
                options.append(places)
            else:
                texts += places
            rows += made
        return cls(rows, texts, options)

    def side(self, losses: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Return what one model makes of the set, an entry a text or question, of the losses of all rows."""
        texts = [losses[i] for i in self.texts]
        return {
            "sums": np.array([each.sum() for each in texts]),
            "hits": np.array([np.exp(-each).sum() for each in texts]),
            "counts": np.array([len(each) for each in texts], float),
            "right": np.array([float(np.argmin([losses[i].sum() for i in places]) == 0) for places in self.options]),
        }


@cache
def items() -> list[dict[str, Any]]:
    """Return the set as it is kept: texts, and questions whose first option is the right one."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def report(sides: dict[str, dict[str, np.ndarray]], seed: int) -> dict[str, Any] | None:
    """Return how base and adapter do on the set, and their difference, in shares of 1; None if none was measured."""
    rng = np.random.default_rng(seed)
    first = sides.get("base", {"counts": np.array([])})
    if not len(first["counts"]):
        return None
    result: dict[str, Any] = {"texts": len(first["sums"]), "questions": len(first["right"])}
    result |= {
        side: {
            "score": float(values["hits"].sum() / values["counts"].sum()),
            "loss": float(values["sums"].sum() / values["counts"].sum()),
            "accuracy": float(values["right"].mean()) if len(values["right"]) else None,
        }
        for side, values in sides.items()
    }
    if "adapter" in sides:
        other, ones = sides["adapter"], np.ones(len(first["right"]))
        result["difference"] = {
            "score": difference(first["hits"], other["hits"], first["counts"], rng),
            "loss": difference(first["sums"], other["sums"], first["counts"], rng),
        }
        if len(ones):
            result["difference"]["accuracy"] = difference(first["right"], other["right"], ones, rng)
    return result


def _row(tokenizer: Any, before: str, after: str) -> Row:
    """Return a text as a row; with one `after` it, only that is measured."""
    start = list(tokenizer(before)["input_ids"])
    end = list(tokenizer(f" {after}", add_special_tokens=False)["input_ids"]) if after else []
    trained = np.arange(len(start + end)) >= (len(start) if after else 0)
    return Row(np.array(start + end, np.int32), trained)
