"""Adapters in use against plain PEFT: `python -m tests.benchmarks.swap`.

Sixteen LoRA adapters of rank 16 on every linear layer of the starter model, their weights drawn at random. Each figure
and what it is compared with are taken in turn in one process, medians; PEFT holds a base of its own.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

from studio.engine.generate import Pipeline, settings
from studio.engine.models import memory_bytes
from studio.services.models import Models
from studio.storage.paths import Home

COUNT, RANK = 16, 16  # adapters
GREEDY: dict[str, Any] = {"room": 32, "temperature": 0}
ASK = [
    {"role": "user", "content": "My parcel has not come. Where is it, and what can I do if it does not come at all?"}
]


def make(model: str, folder: Path, dora: bool) -> list[Path]:
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", use_dora=dora)
    adapted = peft.get_peft_model(base, config)
    made = []
    for number in range(COUNT):
        torch.manual_seed(number)
        with torch.no_grad():
            for name, value in adapted.named_parameters():
                if "lora_A" in name or "lora_B" in name:
                    value.normal_(std=0.01)
        made.append(folder / f"adapter-{number}")
        adapted.save_pretrained(str(made[-1]))
    return made


def memory(pipeline: Pipeline, adapters: list[Path]) -> str:
    """Load all, and compare what the process grew by with the files."""
    pipeline.select(adapters[0])  # what is imported and looked up once
    pipeline.swap.tables.clear()
    pipeline.select(None)
    gc.collect()
    before = memory_bytes(pipeline.model.device)
    for adapter in adapters:
        pipeline.select(adapter)
    grown = memory_bytes(pipeline.model.device) - before
    files = sum((adapter / "adapter_model.safetensors").stat().st_size for adapter in adapters)
    sizes = f"{grown / 1e6:.0f} MB | {files / 1e6:.0f} MB, their files"
    return f"| {COUNT} loaded, beyond the base | {sizes} | {grown / files:.2f} |"


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def in_turn(repeat: int, *works: Callable[[int], Any]) -> list[float]:
    """Return the median seconds of each, given the number of the turn."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(repeat + 1):
        for work, found in zip(works, taken, strict=True):
            found.append(seconds(lambda work=work, turn=turn: work(turn)))
    return [median(found[1:]) for found in taken]  # without the first, which warms up


def row(name: str, ours: float, theirs: float, unit: str = "ms", *, slower: bool = False) -> str:
    ratio = ours / theirs if slower else theirs / ours
    return f"| {name} | {ours * 1e3:.3g} {unit} | {theirs * 1e3:.4g} {unit} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a base model instead of the starter model")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dora", action="store_true", help="DoRA adapters instead of LoRA")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or Models(Home(folder / "home").prepare()).fetch_starter().path
        compare(model, make(model, folder, options.dora), options.repeat)


def compare(model: str, adapters: list[Path], repeat: int) -> None:
    pipeline = Pipeline(Path(model))
    print(f"{pipeline.model.dtype}, {pipeline.model.device}, {torch.get_num_threads()} threads\n")
    print("| | ours | compared with | ratio |\n| --- | --- | --- | --- |")
    print(memory(pipeline, adapters), flush=True)
    plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=pipeline.model.dtype).to(pipeline.model.device)
    plain = peft.PeftModel.from_pretrained(plain, str(adapters[0]), adapter_name="n0").eval()
    for number in range(1, 8):
        plain.load_adapter(str(adapters[number]), f"n{number}")
    for part in (switching, side_by_side, speaking):
        print(part(pipeline, plain, adapters, repeat), flush=True)


def switching(pipeline: Pipeline, plain: Any, adapters: list[Path], repeat: int) -> str:
    def load(turn: int) -> None:
        pipeline.select(adapters[8 + turn % 8])

    def load_peft(turn: int) -> None:
        plain.load_adapter(str(adapters[8 + turn % 8]), f"l{turn}")
        plain.set_adapter(f"l{turn}")

    def forget(turn: int) -> None:
        pipeline.select(None)
        pipeline.swap.tables.clear()
        plain.delete_adapter(f"l{turn}")

    switched = in_turn(
        4 * repeat,
        lambda turn: pipeline.select(adapters[turn % 8]),
        lambda turn: plain.set_adapter(f"n{turn % 8}"),
    )
    ours, theirs, _ = in_turn(2 * repeat, load, load_peft, forget)
    return row("switch among 8 loaded", *switched) + "\n" + row("disk to active", ours, theirs)


def side_by_side(pipeline: Pipeline, plain: Any, adapters: list[Path], repeat: int) -> str:
    four: list[Path | None] = list(adapters[:4])

    def together(turn: int) -> list[Any]:
        return list(pipeline.answers(four, [ASK] * 4, **GREEDY))

    def apart(turn: int) -> list[Any]:
        return [piece for each in four for piece in pipeline.answers([each], [ASK], **GREEDY)]

    counts = [[piece["tokens"] for _, piece in work(0) if isinstance(piece, dict)] for work in (together, apart)]
    assert sum(counts[0]) == sum(counts[1]), counts
    return row(f"{sum(counts[0])} tokens of 4 answers", *in_turn(repeat, together, apart), slower=True)


def speaking(pipeline: Pipeline, plain: Any, adapters: list[Path], repeat: int) -> str:
    plain.set_adapter("n0")
    pipeline.select(adapters[0])
    prompt = pipeline.tokenizer.apply_chat_template(
        ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(plain.device)
    length = prompt["input_ids"].shape[1]
    chosen = settings(plain, pipeline.tokenizer, GREEDY["room"])
    firsts: list[float] = []
    spoken: set[int] = set()

    def chat(turn: int) -> None:
        *_, figures = pipeline.answer(ASK, **GREEDY)
        firsts.append(figures["first_token_seconds"])
        spoken.add(figures["tokens"])

    def generate(turn: int) -> None:
        with torch.inference_mode():
            spoken.add(plain.generate(**prompt, generation_config=chosen).shape[1] - length)

    def forward(turn: int) -> None:
        with torch.inference_mode():
            pipeline.model(**prompt, logits_to_keep=1)

    ours, theirs, once = in_turn(repeat, chat, generate, forward)
    (count,) = spoken  # both say as much
    said = f"| tokens/s, with PEFT and generate | {count / ours:.1f} | {count / theirs:.1f} | {theirs / ours:.2f} |"
    return f"{said}\n{row(f'first token, a forward of {length} tokens', median(firsts[1:]), once, slower=True)}"


if __name__ == "__main__":
    main()
