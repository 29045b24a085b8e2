"""From examples to tokens: render with the model's template, mask what is not the assistant's, pack into batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from studio.domain.errors import DataError, ModelError

# For base models without a chat template; it travels with the adapter.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
BATCH = 1000  # rows tokenised at once


@dataclass(frozen=True)
class Row:
    """One example: token ids [T], and which of them are trained [T]. `source` is its row in the user's file."""

    ids: np.ndarray
    trained: np.ndarray
    source: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template, giving the tokenizer the plain one when it has none."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if not isinstance(tokenizer.chat_template, str):  # several named ones: take the default
        tokenizer.chat_template = tokenizer.get_chat_template()
    return str(tokenizer.chat_template)


def template_hash(template: str) -> str:
    return hashlib.sha256(template.encode()).hexdigest()


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], prompt: bool = False) -> str:
    """Return the text of a conversation; with `prompt`, up to where the assistant begins to write."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"The model's chat template refuses a conversation of {roles}: {error}.",
            "Most templates want user and assistant in turn, with at most one instruction first.",
        ) from error


def spans(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """Return the rendered text and the character spans the assistant writes, each with its terminator.

    A turn's span is what the text up to it, with the generation prompt, lacks to the text including it. Templates
    that render an early turn differently once others follow (Qwen3 drops its thinking) train the last turn only.
    """
    text = render(tokenizer, messages)
    found = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], prompt=True)
        after = render(tokenizer, messages[: index + 1])
        if text.startswith(before) and text.startswith(after) and len(after) > len(before):
            found.append((len(before), len(after)))
    eos = str(tokenizer.eos_token or "")
    if eos and found and found[-1][1] == len(text) and eos not in text[slice(*found[-1])]:
        text += eos  # the template ends without a terminator: the model would never learn to stop
        found[-1] = (found[-1][0], len(text))
    return text, [(start, start + len(text[start:end].rstrip())) for start, end in found]


def encode(tokenizer: PreTrainedTokenizerBase, examples: list[dict[str, Any]]) -> list[Row]:
    """Tokenise canonical examples: of a conversation the assistant's spans are trained, of plain text every token."""
    if not tokenizer.is_fast:
        raise ModelError(
            "This model's tokenizer cannot tell where its tokens stand in the text.", "Choose another model."
        )
    texts, wanted = [], []
    for example in examples:
        if "text" in example:
            texts.append(example["text"] + str(tokenizer.eos_token or ""))
            wanted.append([(0, len(texts[-1]))])
        else:
            text, found = spans(tokenizer, example["messages"])
            texts.append(text)
            wanted.append(found)
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    rows = []
    for example, text, ids, offsets, found in zip(
        examples, texts, encoded["input_ids"], encoded["offset_mapping"], wanted, strict=True
    ):
        starts, ends = np.asarray(offsets, np.int64).reshape(-1, 2).T
        edges = [edge for span in found for edge in span]
        if any(((starts < edge) & (edge < ends)).any() for edge in edges):
            rows.append(_piecewise(tokenizer, text, edges, int(example.get("row", 0))))
            continue
        trained = np.zeros(len(ids), bool)
        for start, end in found:
            trained |= (starts >= start) & (starts < end)
        rows.append(Row(np.asarray(ids, np.int32), trained, int(example.get("row", 0))))
    return rows


def _piecewise(tokenizer: PreTrainedTokenizerBase, text: str, edges: list[int], source: int) -> Row:
    """Tokenise prompt and answers apart, as they are when the model is asked, where a token would span both."""
    pieces = [text[start:end] for start, end in pairwise([0, *edges, len(text)])]
    ids = [tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [] for piece in pieces]
    trained = np.repeat([index % 2 == 1 for index in range(len(ids))], [len(part) for part in ids])
    return Row(np.concatenate([np.asarray(part, np.int32) for part in ids]), trained, source)


def read(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the canonical examples of a file in batches."""
    batch: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            batch.append(json.loads(line))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def fit(rows: list[Row], limit: int, over_length: str) -> tuple[list[Row], int]:
    """Bring rows to at most `limit` tokens, as `over_length` says; return them and how many were longer."""
    longer = [row for row in rows if len(row) > limit]
    if longer and over_length == "ask":
        lost = sum(int(row.trained[limit:].sum()) for row in longer)
        named = ", ".join(str(row.source) for row in longer[:3])
        raise DataError(
            f"{len(longer)} examples are longer than {limit:,} tokens (rows {named}{' …' if len(longer) > 3 else ''}); "
            f"{lost:,} tokens of their answers would be lost.",
            "Set data.over_length to drop (leave them out) or split (train on pieces), or raise data.max_length.",
        )
    if not longer:
        return rows, 0
    kept: list[Row] = []
    for row in rows:
        if len(row) <= limit:
            kept.append(row)
        elif over_length == "split":
            for start in range(0, len(row), limit):
                here = slice(start, start + limit)
                kept.append(Row(row.ids[here], row.trained[here], row.source))
    return kept, len(longer)


def pack(rows: list[Row], size: int) -> list[list[Row]]:
    """Best-fit decreasing: the fewest batches of at most `size` tokens; a longer row stands alone."""
    bins: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=len, reverse=True):
        fitting = [(left, index) for index, left in enumerate(room) if left >= len(row)]
        if fitting:
            _, index = min(fitting)
            bins[index].append(row)
            room[index] -= len(row)
        else:
            bins.append([row])
            room.append(max(0, size - len(row)))
    return bins


def labels_of(row: Row) -> np.ndarray:
    """Labels shifted by one: position t is trained to say token t+1, if that one is trained."""
    labels = np.full(len(row), -100, np.int64)
    labels[:-1][row.trained[1:]] = row.ids[1:][row.trained[1:]]
    return labels


def packed_batch(rows: list[Row]) -> dict[str, Any]:
    """Rows side by side as [1, T]; positions restart with each."""
    return {
        "input_ids": torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))[None],
        "labels": torch.from_numpy(np.concatenate([labels_of(row) for row in rows]))[None],
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
        "lengths": [len(row) for row in rows],
    }


def padded_batch(rows: list[Row], pad: int) -> dict[str, Any]:
    """Rows below one another as [B, T], padded at the right."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    labels = np.full((len(rows), width), -100, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], labels[index, : len(row)], mask[index, : len(row)] = row.ids, labels_of(row), 1
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(mask),
    }
