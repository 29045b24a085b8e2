"""A step with the fused linears of LoRA, DoRA or QLoRA against one with peft's: `python -m tests.benchmarks.fused`.

The starter model with an adapter, one pack of made-up tokens; both models lie in one process and do their steps in
turn, so that other work on the machine slows them alike. The memory is what their activations keep for the gradient.
A base in 4 bits is prepared for peft's as peft advises: what is not held in 4 bits is fp32.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from studio.domain.document import from_document, override
from studio.engine import attention, fused, lora, loss, memory, models
from studio.engine.rows import Row, Table
from studio.engine.tensors import packed_batch
from studio.studio import Studio


def made(base: Path, method: str, dtype: torch.dtype, quick: bool) -> Any:
    document = {"model": {"id": "starter"}, "data": {"path": "none"}}
    config = from_document(override(document, [f"method.name={method}", "method.rank=16", "method.alpha=32"]))
    model: Any = models.load_base(base, config.quantization, dtype, torch.device("cpu"))
    model.set_attn_implementation(attention.NAME)
    if not quick and config.quantization != "none":
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = lora.attach(model, config, Path(), 10)
    fused.fuse(model)
    if not quick:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                del module.forward
    return model.train()


def step(model: Any, batch: dict[str, Any]) -> float:
    begin = time.perf_counter()
    weights = [value for value in model.parameters() if value.requires_grad]
    torch.autograd.grad(loss.packed(model, batch), weights)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=("lora", "dora", "qlora"))
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    base = Path(Studio().models.fetch_starter().path)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.precision]
    ids, trained = np.arange(256, dtype=np.int32) + 100, np.arange(256) >= 128
    rows = [Row(ids, trained)] * (options.tokens // 256)
    batch = packed_batch(rows)
    out = sys.stdout
    out.write("| method | peft's, tokens/s | fused, tokens/s | times as fast | peft's, MB | fused, MB |\n")
    out.write("| --- | --- | --- | --- | --- | --- |\n")
    for method in options.methods:
        both = [made(base, method, dtype, quick) for quick in (False, True)]
        kept = [options.tokens * memory.saved_per_token(model, Table.of(rows), None) / 1e6 for model in both]
        taken = [[step(model, batch) for model in both] for _ in range(1 + options.times)][1:]
        own, quick = (options.tokens / statistics.median(each) for each in zip(*taken, strict=True))
        ratio = statistics.median(slow / fast for slow, fast in taken)
        out.write(f"| {method} | {own:.0f} | {quick:.0f} | {ratio:.2f} | {kept[0]:.0f} | {kept[1]:.0f} |\n")
        out.flush()


if __name__ == "__main__":
    main()
