"""Training on a graphics card against TRL's defaults: `python -m tests.benchmarks.card ROWS.jsonl`.

A model in Llama's shape with a billion random numbers, made on the spot; the same rows, rank, targets, rate and rows a
step, each in a process of its own, in turn; medians. Speed is that after the first step, in which code is loaded. MFU
counts 4·N operations a token (the base is frozen), of what the card's maker says it does. `--python` names one that
has TRL: `pip install -c build/constraints.txt trl==1.16.0 torch transformers peft accelerate datasets`, and Liger's
kernels if they are to be compared; `--unsloth` one that has Unsloth.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.domain.cards import CARDS
from studio.services.models import Models
from studio.storage.paths import Home
from tests.benchmarks.train import ours, peer, rows_of

SHAPE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
SHAPE |= {"num_key_value_heads": 8, "max_position_embeddings": 4096}
KINDS = {
    "ours": ("PEFT Studio, LoRA", ["method.name=lora"]),
    "qlora": ("PEFT Studio, QLoRA NF4", ["method.name=qlora"]),
    "dora": ("PEFT Studio, DoRA", ["method.name=dora"]),
    "trl": ("TRL, its defaults", []),
    "tuned": ("TRL, no recompute, 32 rows at once, by length", []),
    "liger": ("the same with Liger's kernels", []),
    "unsloth": ("Unsloth, its defaults", []),
}
OURS = ("ours", "qlora", "dora")


def model(starter: Path, place: Path, layers: int, width: int) -> Path:
    """Make random weights in Llama's shape, with the starter's tokenizer."""
    vocabulary = json.loads((starter / "config.json").read_bytes())["vocab_size"]
    sizes = SHAPE | {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    config = AutoConfig.for_model("llama", vocab_size=vocabulary, tie_word_embeddings=True, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(place)
    for file in [*starter.glob("*token*"), *starter.glob("chat_template*")]:
        shutil.copy(file, place / file.name)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--count", type=int, default=1000, help="rows trained on")
    parser.add_argument("--per-step", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=["ours", "qlora", "trl"], choices=list(KINDS))
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="with TRL")
    parser.add_argument("--unsloth", type=Path, default=Path(sys.executable), help="with Unsloth")
    parser.add_argument("--base", type=Path, help="folder of the model, made there unless it is there")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer it gets, for the starter's")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--width", type=int, default=SHAPE["hidden_size"])
    wanted = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in wanted.kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder / "home").prepare()
        base = wanted.base or folder / "llama"
        if not base.exists():
            starter = wanted.tokenizer or Path(Models(home).fetch_starter().path)
            model(starter, base, wanted.layers, wanted.width)
        numbers = sum(file.stat().st_size for file in base.glob("*.safetensors")) / 2
        rows = rows_of(wanted.rows, wanted.count, folder)
        for _ in range(wanted.repeat):
            for kind in wanted.kinds:
                if kind in OURS:
                    made = ours(home.root, rows, 42, model=str(base), per_step=wanted.per_step, also=KINDS[kind][1])
                else:
                    python = wanted.unsloth if kind == "unsloth" else wanted.python
                    made = peer(python, kind, str(base), rows, folder, 42, wanted.per_step)
                found[kind].append(made)
                print(json.dumps({kind: made}), file=sys.stderr, flush=True)
    table(found, numbers)


def table(found: dict[str, list[dict[str, Any]]], numbers: float) -> None:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"
    most = next((card.tflops for card in reversed(CARDS) if card.name in name), None)
    print(f"{name}, {numbers / 1e9:.2f} billion numbers\n")
    print("| | tokens/s after the first step | MFU | peak memory, GB | last loss |")
    print("| --- | --- | --- | --- | --- |")
    for kind, those in found.items():
        speed = statistics.median(each["after_first"] for each in those)
        memory = statistics.median(each["memory"] for each in those)
        share = f"{4 * numbers * speed / most / 1e12:.0%}" if most else ""
        print(f"| {KINDS[kind][0]} | {speed:,.0f} | {share} | {memory / 1e9:.1f} | {those[0]['losses'][-1]:.3f} |")


if __name__ == "__main__":
    main()
