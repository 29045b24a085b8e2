"""The memory and the time that were foretold against what runs took: `python -m tests.benchmarks.estimate ROWS.jsonl`.

ROWS.jsonl holds {"question", "answer"} rows, such as GSM8K's. The starter model and random weights of two other
architectures, LoRA, QLoRA and DoRA, packs of three lengths; each run is estimated, then trained for one step by an
engine of its own, without checks and without a comparison at the end. `--time STEPS` trains for so many steps as a user
does, checks and comparison included, and compares the time with what was said before and after `--measure`.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.domain.document import from_document, override
from studio.studio import Studio

RANDOM: dict[str, dict[str, Any]] = {"qwen2": {}, "gemma2": {"head_dim": 64, "query_pre_attn_scalar": 64}}
SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True}
METHODS, LENGTHS = ("lora", "qlora", "dora"), (512, 1024, 2048)
QUIET = ["train.max_steps=1", "evaluate.answers=0", "evaluate.samples=0", "data.eval_fraction=0", "train.seed=1"]


def model(kind: str, starter: Path, folder: Path) -> Path:
    """Make random weights of an architecture, with the starter's tokenizer."""
    place = folder / kind
    vocabulary = json.loads((starter / "config.json").read_bytes())["vocab_size"]
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **SHAPE, **RANDOM[kind])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(place)
    for file in starter.glob("*token*"):
        shutil.copy(file, place / file.name)
    for file in starter.glob("chat_template*"):
        shutil.copy(file, place / file.name)
    return place


def measure(studio: Studio, base: str, rows: Path, method: str, length: int) -> dict[str, Any]:
    """Estimate a run, and train it; memory in bytes."""
    wanted = [*QUIET, f"method.name={method}", f"train.batch_tokens={length}", f"train.effective_rows={length // 128}"]
    config = from_document(override({"model": {"id": base}, "data": {"path": str(rows)}}, wanted))
    resolved = studio.runs.resolve(config)
    rough, traced = studio.estimates.of(resolved), studio.estimates.thorough(resolved)
    run = studio.runs.prepare(config)
    studio.runs.execute(run.path)
    took = studio.runs.get(run.id).result["peak_memory_bytes"]
    return {"rough": rough.uncorrected_bytes, "traced": traced.uncorrected_bytes, "took": took}


def clock(studio: Studio, base: str, rows: Path, method: str, length: int, steps: int) -> dict[str, float]:
    """Estimate a run, measure it, and train it; seconds from its start to its end."""
    wanted = [f"method.name={method}", f"train.batch_tokens={length}", f"train.max_steps={steps}", "train.seed=1"]
    config = from_document(override({"model": {"id": base}, "data": {"path": str(rows)}}, wanted))
    resolved = studio.runs.resolve(config)
    rough, measured = studio.estimates.of(resolved), studio.estimates.thorough(resolved, measure=True)
    run = studio.runs.prepare(config)
    studio.runs.execute(run.path)
    done = studio.runs.get(run.id)
    return {
        "rough": rough.seconds,
        "measured": measured.seconds,
        "took": done.seconds,
        "others": done.result["others_share"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--models", nargs="+", default=("starter", *RANDOM))
    parser.add_argument("--time", type=int, metavar="STEPS", default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio()
        starter = Path(studio.models.fetch_starter().path)
        bases = {kind: kind if kind == "starter" else str(model(kind, starter, Path(folder))) for kind in wanted.models}
        second = "measured" if wanted.time else "traced"
        errors: dict[str, list[float]] = {"rough": [], second: []}
        out = sys.stdout
        took = "s | others' share" if wanted.time else "GB"
        out.write(f"| model | method | tokens at once | took, {took} | rough | {second} |\n")
        out.write(f"| --- | --- | --- | --- | --- | --- |{' --- |' if wanted.time else ''}\n")
        for length, (name, base), method in product(wanted.lengths, bases.items(), wanted.methods):
            if wanted.time:
                found = clock(studio, base, wanted.rows, method, length, wanted.time)
                size = f"{found['took']:.0f} | {found['others']:.0%}"
            else:
                found = measure(studio, base, wanted.rows, method, length)
                size = f"{found['took'] / 1e9:.2f}"
            for kind, those in errors.items():
                those.append(100 * (found[kind] / found["took"] - 1))
            said = " | ".join(f"{those[-1]:+.1f} %" for those in errors.values())
            out.write(f"| {name} | {method} | {length} | {size} | {said} |\n")
            out.flush()
        for kind, those in errors.items():
            sizes = [abs(each) for each in those]
            out.write(f"{kind}: median error {statistics.median(sizes):.1f} %, largest {max(sizes):.1f} %\n")


if __name__ == "__main__":
    main()
