"""The inspect job: what a model would read of an example and learn of it, by the code that makes a run's rows.

Neither weights nor torch are loaded: tokenizer and template say it all.
"""

import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from studio.domain.document import from_document
from studio.engine import gate, serving, tokens
from studio.engine.rows import Row, Table, labels_of


def run(folder: Path) -> None:
    """Serve looks at examples with the tokenizer in `folder` until told to exit."""
    serving.serve(folder, "Reading the model's tokenizer", lambda folder: (Inspector(folder).answer, {}))


class Inspector:
    """A model's tokenizer, template and limits, and the sample that was asked for last, in tokens."""

    def __init__(self, folder: Path) -> None:
        config = gate.settings(folder)
        self.context = gate.context(config)
        self.tokenizer = tokens.load_tokenizer(folder)
        tokens.template_of(self.tokenizer)
        self.stops = stops_of(self.tokenizer, folder, config)
        self.path, self.sample = "", Table.of([])

    def answer(self, request: serving.Message, stopped: Callable[[], bool]) -> Iterator[serving.Message]:
        """Say of an example and of a sample of its data set what is learned with the settings of the request."""
        if request["sample"] != self.path:
            yield {"type": "phase", "words": "Counting the tokens of a sample"}
            # not `tokenise`, which keeps what it makes: samples are many
            batches = tokens.read(Path(request["sample"]))
            self.sample = Table.of([row for batch in batches for row in tokens.encode(self.tokenizer, batch)])
            self.path = request["sample"]
        config = from_document(request["config"])
        text, row, starts = tokens.placed(self.tokenizer, request["example"])
        longest = max(int(self.sample.lengths.max(initial=1)), len(row))
        limit, over = config.length_limit(self.context, longest), config.when_longer(request["kind"])
        yield {
            "type": "done",
            "limit": limit,
            "context": self.context - config.virtual_tokens,
            "over": over,
            "answers": sum(turn["role"] == "assistant" for turn in request["example"].get("messages", [])),
            **self.seen(text, row, starts, limit, over),
            "sample": sample_of(self.sample, limit) | {"of": request["of"], "longest": longest},
        }

    def seen(self, text: str, row: Row, starts: list[int], limit: int, over: str) -> dict[str, Any]:
        """Return a row as spans of text, each with what becomes of it. `starts` [T] are its tokens' places in it."""
        pieces, _ = Table.of([row]).fit(limit, "split")
        learned = np.concatenate([np.roll(labels_of(piece) >= 0, 1) for piece in pieces])
        cut = np.arange(len(row)) >= (len(row) if over == "split" else limit)
        learned &= ~cut
        edges = [*starts, len(text)]
        spans, place = [], 0
        # by trained too, so that a span that is cut in two has its end where the answer has it
        for (is_cut, trained, is_learned), group in groupby(zip(cut, row.trained, learned, strict=True)):
            end = place + len(list(group))
            last = end == len(row) or not row.trained[end]
            ends = trained and last and int(row.ids[end - 1]) in self.stops
            span = {"text": text[edges[place] if place else 0 : edges[end]], "trained": bool(is_learned)}
            spans.append(span | {"cut": bool(is_cut), "end": text[edges[end - 1] : edges[end]] if ends else ""})
            place = end
        final = next((span for span in reversed(spans) if span["trained"] or span["end"]), None)
        return {
            "row": row.source,
            "text": text,
            "spans": [span for span in spans if span["text"]],
            "tokens": len(row),
            "trained_tokens": int(learned.sum()),
            "truncated_tokens": int(cut.sum()),
            "lost_tokens": int((row.trained & cut)[1:].sum()),
            "pieces": len(pieces) if over == "split" else 1,
            "taught": _runs(row.trained & ~cut),
            "terminator": {
                "text": (final or {}).get("end") or str(self.tokenizer.eos_token or ""),
                "trained": bool(final and final["trained"] and final["end"]),
            },
        }


def stops_of(tokenizer: Any, folder: Path, config: dict[str, Any]) -> set[int]:
    """Return the tokens at which an answer ends, as generation takes them: the tokenizer's and the model's own."""
    path = folder / "generation_config.json"
    own = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else config).get("eos_token_id")
    stops = {tokenizer.eos_token_id} | set(own if isinstance(own, list) else [own])
    return {int(stop) for stop in stops if stop is not None}


def sample_of(table: Table, limit: int) -> dict[str, int]:
    """Return how much of a sample's answers lies beyond the limit, in how many rows."""
    longer = np.flatnonzero(table.lengths > limit)
    return {
        "rows": len(table),
        "longer": len(longer),
        "empty": int((table.labels() == 0).sum()),
        "answer_tokens": int(table.labels().sum()),
        "lost_tokens": sum(int(np.count_nonzero(table[place].trained[limit:])) for place in longer),
    }


def _runs(trained: np.ndarray) -> int:
    """Return how many stretches of a mask [T] are true."""
    return int(np.count_nonzero(np.diff(trained.astype(np.int8), prepend=0) > 0))
