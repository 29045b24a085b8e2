"""Base against adapter: the loss of held-out rows and of general texts, and the answers they write themselves."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch

from studio.engine import attention, gate, generate, lora, loss, memory, models, parallel, swap, tokens
from studio.engine.decode import decode
from studio.engine.general import General
from studio.engine.general import report as general_report
from studio.engine.lanes import LEAST, Lanes, lanes_for
from studio.engine.report import Reporter, write_json
from studio.engine.rows import Row
from studio.engine.scores import scores
from studio.engine.tensors import packed_batch, padded_batch
from studio.engine.verdict import repeats, report

SAMPLES = 20  # answers kept to be read
SWAPPED_ROWS = 48  # answers that are also measured after another row's question
LOSS_ROWS = 200  # rows whose loss is compared at the end of a run; `evaluate` takes all
BATCH_TOKENS = 1024
BATCH_ANSWERS, CACHE = 16, 0.5e9  # answered at once in a lane at most; bytes of keys and values in all lanes


def run(directory: Path, reporter: Reporter) -> None:
    """The `evaluate` job: compare what request.json names, write result.json."""
    request = models.request(directory)
    models.use_all_cores()
    device = models.pick_device("auto")
    result = compare(
        request["model"],
        Path(request["adapter"]) if request.get("adapter") else None,
        Path(request["data"]),
        quantization=request.get("quantization") or "none",
        dtype=models.pick_dtype("auto", device),
        device=device,
        answers=request["answers"],
        max_new_tokens=request.get("max_new_tokens") or "auto",
        seed=request.get("seed", 42),
        limit=None,
        loss_rows=None,
        phase=reporter.phase,
        general=request.get("general", True),
        samples=request.get("samples", SAMPLES),
    )
    write_json(directory / "result.json", result)


def compare(
    model_record: dict[str, Any],
    adapter: Path | None,
    data: Path,
    *,
    quantization: str,
    dtype: torch.dtype,
    device: torch.device,
    answers: int,
    max_new_tokens: int | str,
    seed: int,
    limit: int | None,
    phase: Callable[..., None],
    loss_rows: int | None = LOSS_ROWS,
    shared: bool = False,
    general: bool = True,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """Load the base afresh and the adapter as saved, and compare them on the same rows (a seeded choice of them).

    With `shared`, each process of the run holds its part of the base, and all do the same here.
    Returns rows, base, adapter, difference (adapter − base: mean, 95 % interval, p), link, general, verdict, samples.
    """
    folder = Path(model_record["path"])
    tokenizer = tokens.load_tokenizer(folder)
    generate.lock_template(tokenizer, adapter)
    tokens.template_of(tokenizer)
    examples = [example for batch in tokens.read(data) for example in batch]
    examples = [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]
    rows = tokens.encode(tokenizer, examples)
    context = int(gate.base(folder).get("max_position_embeddings") or 1_000_000)
    limit = limit or context
    usable = [(e, r) for e, r in zip(examples, rows, strict=True) if len(r) <= limit and r.trained[1:].any()]
    measured = [row for _, row in usable][:loss_rows]
    answered = single_answers([example for example, _ in usable][:loss_rows])
    asked = questions([example for example, _ in usable])[:answers]

    phase("Loading the model to compare")
    pipeline: Any = (
        _Parts(folder, quantization, dtype, device, adapter)
        if shared
        else pipeline_for(adapter, folder, quantization, dtype, device)
    )
    expected = [example["messages"][-1]["content"] for example in asked]
    prompts = [tokens.question(tokenizer, example) for example in asked]
    longest = max((len(ids) for ids in tokenizer(expected)["input_ids"]), default=0) if expected else 0
    room = min(512, longest + longest // 4 + 8) if max_new_tokens == "auto" else int(max_new_tokens)

    swaps = swapped_rows(tokenizer, [example for example, _ in usable], limit) if adapter else []
    known = General.of(tokenizer, context) if general else None
    sides: dict[str, Any] = {}
    knows: dict[str, Any] = {}
    for side in ("base", "adapter") if adapter else ("base",):
        words = "the base model" if side == "base" else "the adapter"
        told = partial(phase, f"Measuring {words}", unit="rows")
        pipeline.select(adapter if side == "adapter" else None)
        model = pipeline.model
        losses = row_losses(model, measured, device, told)
        found = dict(zip(map(_key, measured), losses, strict=True))
        swapped = swapped_losses(model, swaps, device, found) if side == "adapter" or repeats(answered) else None
        if known:
            told = partial(phase, f"Measuring {words} on general texts", unit="texts")
            knows[side] = known.side(row_losses(model, known.rows, device, told))
        told = partial(phase, f"Asking {words}", unit="questions")
        said = answer_all(model, tokenizer, prompts, room, device, told)
        sides[side] = {
            "sums": np.array([each.sum() for each in losses]),
            "counts": np.array([len(each) for each in losses], float),
            "said": said,
            "scores": scores(said, expected),
            "expected": expected,
            "labels": answered if repeats(answered) else [],
            "swapped": swapped,
        }
    result = report(sides, seed, general_report(knows, seed))
    result["samples"] = [
        {
            "prompt": example["messages"][-2]["content"] if len(example["messages"]) > 1 else "",
            "expected": expected[i],
            **{side: values["said"][i] for side, values in sides.items()},
        }
        for i, example in enumerate(asked[:samples])
    ]
    return result


class _Parts:
    """A base of which each process of the run holds a part, with the adapter that `select` switches on and off."""

    def __init__(
        self, folder: Path, quantization: str, dtype: torch.dtype, device: torch.device, adapter: Path | None
    ) -> None:
        self.model: Any = models.load_base(folder, quantization, dtype, torch.device("cpu"))
        if adapter:
            gate.adapter(adapter)
            self.model = peft.PeftModel.from_pretrained(self.model, str(adapter))
        parallel.shard(self.model, memory.layers_of(self.model), device)
        self.model.eval()
        self.silence = contextlib.ExitStack()

    def select(self, adapter: Path | None) -> None:
        self.silence.close()
        if not adapter:
            self.silence.enter_context(generate.without_adapter(self.model))


def pipeline_for(
    adapter: Path | None, folder: Path, quantization: str, dtype: torch.dtype, device: torch.device
) -> generate.Pipeline:
    """Load a base as answering with this adapter and without needs it."""
    other = adapter is not None and not swap.plain(gate.adapter(adapter))
    return generate.Pipeline(folder, quantization, dtype, device, whole=other)


def questions(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that end with an answer in words."""
    return [example for example in examples if "messages" in example and example["messages"][-1]["content"]]


def single_answers(examples: list[dict[str, Any]]) -> list[str]:
    """Return the answer of each example; nothing where one is text or has more than one answer."""
    answers = [[m.get("content") or "" for m in e.get("messages", []) if m["role"] == "assistant"] for e in examples]
    return [each[0] for each in answers] if all(len(each) == 1 for each in answers) else []


def swapped_rows(tokenizer: Any, examples: list[dict[str, Any]], limit: int) -> list[tuple[Row, Row]]:
    """Return some conversations' last answers after their own question, and after that of another with another answer.

    Only the last answer is measured, in both.
    """
    talks = [e["messages"] for e in examples if e.get("messages", [{}])[-1].get("content") and "tools" not in e]
    pairs = []
    for i, talk in enumerate(talks[:SWAPPED_ROWS]):
        around = talks[i + 1 :] + talks[:i]
        other = next((t for t in around if t[-1]["content"] != talk[-1]["content"] and t[:-1] != talk[:-1]), None)
        if other:
            asked = ([message | {"weight": 0} for message in each[:-1]] for each in (talk, other))
            mine, theirs = tokens.encode(tokenizer, [{"messages": [*each, talk[-1]]} for each in asked])
            if max(len(mine), len(theirs)) <= limit and mine.trained[1:].any():
                pairs.append((mine, theirs))
    return pairs


def swapped_losses(
    model: Any, pairs: list[tuple[Row, Row]], device: torch.device, known: dict[bytes, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the loss of answers after their own question and after another's, and their tokens.

    `known` are rows that have been measured: where a row has one answer, its own is among them.
    """
    keys = [_key(row) for pair in pairs for row in pair]
    new = {key: row for key, row in zip(keys, (row for pair in pairs for row in pair), strict=True) if key not in known}
    known = known | dict(zip(new, row_losses(model, list(new.values()), device, lambda done, total: None), strict=True))
    sums = np.array([known[key].sum() for key in keys])
    return sums[::2], sums[1::2], np.array([len(known[key]) for key in keys[::2]], float)


def _key(row: Row) -> bytes:
    return row.ids.tobytes() + row.trained.tobytes()


def row_losses(model: Any, rows: list[Row], device: torch.device, told: Callable[[int, int], None]) -> list[np.ndarray]:
    """Return for each row the loss of each of its trained tokens."""
    found = [np.zeros(0)] * len(rows)
    within = inner(model)
    side_by_side = attention.packable(within.config) and not lora.virtual_tokens(model)
    left, groups = sorted(range(len(rows)), key=lambda i: -len(rows[i])), []
    while left:
        number = max(1, BATCH_TOKENS // len(rows[left[0]]))
        groups.append(left[:number])
        left = left[number:]

    @torch.no_grad()
    def measured(group: list[int]) -> torch.Tensor:
        chosen = [rows[i] for i in group]
        batch = packed_batch(chosen) if side_by_side else padded_batch(chosen, 0)
        return loss.per_token(model, {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()})

    done = 0
    with attention.through(within, side_by_side):
        for group, losses in zip(groups, lanes_of(model, device).map(measured, groups), strict=True):
            lengths = [np.count_nonzero(rows[i].trained[1:]) for i in group]
            for i, part in zip(group, losses.split(lengths), strict=True):
                found[i] = part.double().cpu().numpy()
            told(done := done + len(group), len(rows))
    return found


def answer_all(
    model: Any, tokenizer: Any, prompts: list[str], room: int, device: torch.device, told: Callable[[int, int], None]
) -> list[str]:
    """Answer every prompt greedily, in batches of like length; at most `room` tokens each."""
    said = [""] * len(prompts)
    asked = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    lanes, stops = lanes_of(model, device), generate.stops_of(model, tokenizer)
    groups = groups_of(model, asked, room, lanes)

    def answered(group: list[int]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in group]
        rows = [asked[i] for i in group]
        for found in decode(model, rows, room=room, stops=stops, temperature=0, top_p=1, seed=None, shrink=True):
            for answer, token in zip(answers, found, strict=True):
                answer += [] if token is None else [token]
        return answers

    done = 0
    with attention.through(inner(model), packed=False):
        for group, out in zip(groups, lanes.map(answered, groups), strict=True):
            for i, text in zip(group, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
                said[i] = text.strip()
            told(done := done + len(group), len(prompts))
    return said


def inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def groups_of(model: Any, asked: list[list[int]], room: int, lanes: Lanes) -> list[list[int]]:
    """Return the places of those prompts that are answered at once, in each lane, with `room` tokens for an answer."""
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    together = _together(model, len(asked), max(map(len, asked), default=0) + room, lanes.number)
    return [order[start : start + together] for start in range(0, len(order), together)]


def _together(model: Any, prompts: int, length: int, lanes: int) -> int:
    """How many prompts are answered at once in each lane, so that all lanes have as many and the memory is enough."""
    if lora.virtual_tokens(model):
        return 1  # beside padding, they would stand at a distance from the text at which they were not trained
    sizes = model.config.get_text_config()
    heads = getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads
    width = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    row = 2 * sizes.num_hidden_layers * heads * width * length * model.dtype.itemsize
    most = max(1, min(BATCH_ANSWERS, int(CACHE / row / lanes)))
    rounds = -(-prompts // (most * lanes))
    return max(1, -(-prompts // max(1, rounds * lanes)))


def lanes_of(model: Any, device: torch.device) -> Lanes:
    """A lane a core, as nothing is kept for a gradient; learned tokens go through peft's own forward, one at a time."""
    return Lanes(1 if lora.virtual_tokens(model) else lanes_for(model.eval(), device, LEAST * torch.get_num_threads()))
