"""The memory and the time that were foretold against what runs took: `python -m tests.benchmarks.estimate ROWS.jsonl`.

ROWS.jsonl holds {"question", "answer"} rows, such as GSM8K's. The starter model and random weights of two other
architectures, LoRA, QLoRA and DoRA, packs of three lengths; each run is reckoned, traced, measured as `--measure` does,
and then trained for some steps by an engine of its own, without checks and without a comparison at the end. Each has a
home folder of its own, so that no run corrects what is said of the next. `--time` trains as a user does, checks and
comparison included, and compares the time with what was said before and after it was measured.
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
QUIET = ["evaluate.answers=0", "evaluate.samples=0", "data.eval_fraction=0", "train.seed=1"]


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


def memory(studio: Studio, base: str, rows: Path, method: str, length: int, steps: int) -> dict[str, float]:
    """Foretell a run in three ways, and train it; bytes at the peak."""
    wanted = [*QUIET, f"method.name={method}", f"train.batch_tokens={length}", f"train.effective_rows={length // 128}"]
    return _run(studio, base, rows, [*wanted, f"train.max_steps={steps}"], "peak_memory_bytes")


def clock(studio: Studio, base: str, rows: Path, method: str, length: int, steps: int) -> dict[str, float]:
    """The same of the seconds from a run's start to its end."""
    wanted = [f"method.name={method}", f"train.batch_tokens={length}", f"train.max_steps={steps}", "train.seed=1"]
    return _run(studio, base, rows, wanted, "seconds")


def _run(studio: Studio, base: str, rows: Path, wanted: list[str], figure: str) -> dict[str, float]:
    config = from_document(override({"model": {"id": base}, "data": {"path": str(rows)}}, wanted))
    resolved = studio.runs.resolve(config)
    quotes = {"rough": studio.estimates.of(resolved), "traced": studio.estimates.thorough(resolved)}
    quotes["measured"] = studio.estimates.thorough(resolved, measure=True)
    run = studio.runs.prepare(config)
    studio.runs.execute(run.path)
    done = studio.runs.get(run.id)
    took = {"took": done.result[figure] if figure in done.result else getattr(done, figure)}
    return (
        took
        | {kind: getattr(quote, figure) for kind, quote in quotes.items()}
        | {"others": done.result["others_share"]}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--models", nargs="+", default=("starter", *RANDOM), help="folders of others too")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--time", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = {kind: Path(kind) for kind in wanted.models}
        if not all(base.is_dir() for base in bases.values()):
            starter = Path(Studio(folder / "models").models.fetch_starter().path)
            bases |= {kind: model(kind, starter, folder) for kind in RANDOM if kind in bases}
            bases |= {"starter": starter} if "starter" in bases else {}
        errors: dict[str, list[float]] = {"rough": [], "traced": [], "measured": []}
        out = sys.stdout
        out.write(f"| model | method | tokens at once | took, {'s' if wanted.time else 'GB'} | others' share")
        out.write(" | rough | traced | measured |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
        for number, (length, (kind, base), method) in enumerate(product(wanted.lengths, bases.items(), wanted.methods)):
            home = folder / f"home-{number}"
            found = (clock if wanted.time else memory)(
                Studio(home), str(base), wanted.rows, method, length, wanted.steps
            )
            shutil.rmtree(home)
            took = f"{found['took']:.0f}" if wanted.time else f"{found['took'] / 1e9:.2f}"
            for way, those in errors.items():
                those.append(100 * (found[way] / found["took"] - 1))
            said = " | ".join(f"{those[-1]:+.1f} %" for those in errors.values())
            out.write(f"| {kind} | {method} | {length} | {took} | {found['others']:.0%} | {said} |\n")
            out.flush()
        for way, those in errors.items():
            sizes = [abs(each) for each in those]
            out.write(f"{way}: median error {statistics.median(sizes):.1f} %, largest {max(sizes):.1f} %\n")


if __name__ == "__main__":
    main()
