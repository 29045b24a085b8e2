"""Base against adapter on held-out rows: loss, perplexity, exact match, token F1; and is the difference real?"""

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch

from studio.engine import attention, gate, generate, lora, loss, memory, models, parallel, tokens
from studio.engine.lanes import LEAST, Lanes, lanes_for
from studio.engine.report import Reporter, write_json
from studio.engine.rows import Row
from studio.engine.tensors import packed_batch, padded_batch

RESAMPLES = 2000
LOSS_ROWS = 200  # rows whose loss is compared at the end of a run; `evaluate` takes all
BATCH_TOKENS = 1024
BATCH_ANSWERS = 8


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
) -> dict[str, Any]:
    """Load the base afresh and the adapter as saved, and compare them on the same rows (a seeded choice of them).

    With `shared`, each process of the run holds its part of the base, and all do the same here.
    Returns rows, base, adapter, difference (adapter − base: mean, 95 % interval, p), verdict and samples.
    """
    folder = Path(model_record["path"])
    tokenizer = tokens.load_tokenizer(folder)
    generate.lock_template(tokenizer, adapter)
    tokens.template_of(tokenizer)
    examples = [example for batch in tokens.read(data) for example in batch]
    examples = [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]
    rows = tokens.encode(tokenizer, examples)
    limit = limit or int(gate.base(folder).get("max_position_embeddings") or 1_000_000)
    usable = [(e, r) for e, r in zip(examples, rows, strict=True) if len(r) <= limit and r.trained[1:].any()]
    measured = [row for _, row in usable][:loss_rows]
    asked = [example for example, _ in usable if "messages" in example and example["messages"][-1]["content"]][:answers]

    phase("Loading the model to compare")
    model: Any = models.load_base(folder, quantization, dtype, torch.device("cpu") if shared else device)
    if adapter:
        gate.adapter(adapter)
        model = peft.PeftModel.from_pretrained(model, str(adapter))
    if shared:
        parallel.shard(model, memory.layers_of(model), device)
    model.eval()
    expected = [example["messages"][-1]["content"] for example in asked]
    prompts = [tokens.question(tokenizer, example) for example in asked]
    longest = max((len(ids) for ids in tokenizer(expected)["input_ids"]), default=0) if expected else 0
    room = min(512, longest + longest // 4 + 8) if max_new_tokens == "auto" else int(max_new_tokens)

    sides: dict[str, Any] = {}
    for side in ("base", "adapter") if adapter else ("base",):
        words = "the base model" if side == "base" else "the adapter"
        with generate.without_adapter(model) if side == "base" else torch.no_grad():
            sums, counts = row_losses(model, measured, device, partial(phase, f"Measuring {words}", unit="rows"))
            asking = partial(phase, f"Asking {words}", unit="questions")
            said = answer_all(model, tokenizer, prompts, room, device, asking)
        sides[side] = {
            "sums": sums,
            "counts": counts,
            "said": said,
            "exact_match": np.array([float(tidy(a) == tidy(b)) for a, b in zip(said, expected, strict=True)]),
            "token_f1": np.array([token_f1(a, b) for a, b in zip(said, expected, strict=True)]),
        }
    result = report(sides, seed)
    result["samples"] = [
        {
            "prompt": example["messages"][-2]["content"] if len(example["messages"]) > 1 else "",
            "expected": expected[i],
            **{side: values["said"][i] for side, values in sides.items()},
        }
        for i, example in enumerate(asked[:20])
    ]
    return result


def row_losses(
    model: Any, rows: list[Row], device: torch.device, told: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the summed loss and the number of its trained tokens."""
    sums, counts = np.zeros(len(rows)), np.array([np.count_nonzero(row.trained[1:]) for row in rows], float)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    side_by_side = attention.packable(inner.config) and not lora.virtual_tokens(model)
    usual = inner.config._attn_implementation
    if side_by_side:
        inner.set_attn_implementation(attention.NAME)
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
    for group, losses in zip(groups, _lanes(model, device).map(measured, groups), strict=True):
        sums[group] = [part.sum().item() for part in losses.split([int(counts[i]) for i in group])]
        told(done := done + len(group), len(rows))
    if side_by_side:
        inner.set_attn_implementation(usual)
    return sums, counts


def answer_all(
    model: Any, tokenizer: Any, prompts: list[str], room: int, device: torch.device, told: Callable[[int, int], None]
) -> list[str]:
    """Answer every prompt greedily, in batches of like length; at most `room` tokens each."""
    said = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    lanes = _lanes(model, device)
    # Beside padding, learned tokens would stand at a distance from the text at which they were not trained.
    virtual = lora.virtual_tokens(model)
    rounds = -(-len(prompts) // (BATCH_ANSWERS * lanes.number))
    together = 1 if virtual else -(-len(prompts) // max(1, rounds * lanes.number))
    groups = [order[start : start + together] for start in range(0, len(order), max(1, together))]
    inner = model if virtual or not hasattr(model, "get_base_model") else model.get_base_model()
    batches = [
        tokenizer(
            [prompts[i] for i in group],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        ).to(device)
        for group in groups
    ]

    @torch.no_grad()
    def answered(batch: Any) -> torch.Tensor:
        out = inner.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=generate.settings(model, tokenizer, room),
        )
        return out[:, batch["input_ids"].shape[1] :]

    done = 0
    for group, out in zip(groups, lanes.map(answered, batches), strict=True):
        for i, text in zip(group, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            said[i] = text.strip()
        told(done := done + len(group), len(prompts))
    return said


def _lanes(model: Any, device: torch.device) -> Lanes:
    """A lane a core, as nothing is kept for a gradient; learned tokens go through peft's own forward, one at a time."""
    return Lanes(1 if lora.virtual_tokens(model) else lanes_for(model.eval(), device, LEAST * torch.get_num_threads()))


def report(sides: dict[str, Any], seed: int) -> dict[str, Any]:
    """Turn per-row figures of both sides into means, differences with intervals, and a verdict."""
    summary = {side: _summary(values) for side, values in sides.items()}
    counts = sides["base"]["counts"]
    result: dict[str, Any] = {"rows": len(counts), "answers": len(sides["base"]["said"]), **summary, "difference": {}}
    if "adapter" in sides and len(counts):
        rng = np.random.default_rng(seed)
        pick = rng.integers(0, len(counts), (RESAMPLES, len(counts)))
        total = counts[pick].sum(1)
        base, adapter = (sides[side]["sums"][pick].sum(1) / total for side in ("base", "adapter"))
        pairs = {"loss": adapter - base, "perplexity": np.exp(np.minimum(adapter, 50)) - np.exp(np.minimum(base, 50))}
        for metric in ("exact_match", "token_f1"):
            change = sides["adapter"][metric] - sides["base"][metric]
            if len(change):
                pairs[metric] = change[rng.integers(0, len(change), (RESAMPLES, len(change)))].mean(1)
        for metric, drawn in pairs.items():
            mean = summary["adapter"][metric] - summary["base"][metric]
            low, high = np.percentile(drawn, [2.5, 97.5])
            # two-sided bootstrap p: twice the share of resamples on the other side of zero, never below 1/RESAMPLES
            p = min(1.0, max(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / RESAMPLES))
            result["difference"][metric] = {"mean": mean, "low": float(low), "high": float(high), "p": float(p)}
    result["verdict"] = verdict(result)
    return result


def _summary(values: dict[str, Any]) -> dict[str, Any]:
    loss = float(values["sums"].sum() / max(1, values["counts"].sum()))
    answered = len(values["said"]) > 0
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 50)),
        "exact_match": float(values["exact_match"].mean()) if answered else None,
        "token_f1": float(values["token_f1"].mean()) if answered else None,
    }


def verdict(result: dict[str, Any]) -> str:
    """One plain sentence. Better and Worse need the whole 95 % interval on one side of zero."""
    difference, n = result["difference"], result["answers"]
    if not difference:
        return "Not measured: there is no adapter or there are no held-out rows to compare on."
    losses = f"held-out loss {result['adapter']['loss']:.3f} against {result['base']['loss']:.3f}"
    lower, raised = difference["loss"]["high"] < 0, difference["loss"]["low"] > 0
    if "token_f1" not in difference:
        return f"{'Better' if lower else 'Worse' if raised else 'Not better'}: {losses}."
    right = [round(result[side]["exact_match"] * n) for side in ("adapter", "base")]
    f1 = [100 * result[side]["token_f1"] for side in ("adapter", "base")]
    overlap = f"word overlap {f1[0]:.0f} against {f1[1]:.0f} %"
    words = f"{right[0]} against {right[1]} of {n} answers exactly right, {overlap}, {losses}."
    closer, farther = difference["token_f1"]["low"] > 0, difference["token_f1"]["high"] < 0
    if closer and not raised:
        return f"Better: {words}"
    if farther and not lower:
        return f"Worse: {words}"
    if (closer and raised) or (farther and lower):
        return f"Mixed: {words}"
    return f"{'Better' if lower else 'Worse' if raised else 'Not better'}: {words}"


def tidy(text: str) -> str:
    """White space folded; nothing else is forgiven in an exact match."""
    return " ".join(text.split())


def token_f1(said: str, expected: str) -> float:
    """Overlap of words, as SQuAD measures it: the harmonic mean of precision and recall."""
    a, b = (re.findall(r"\w+", text.lower()) for text in (said, expected))
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))
