"""Put an adapter on a base model, and write it so that plain peft loads it anywhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors import safe_open

from studio.domain.config import TrainingConfig
from studio.domain.errors import ModelError
from studio.engine import adalora

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "c_attn", "dense")


def attach(model: torch.nn.Module, config: TrainingConfig, start: Path, steps: int) -> peft.PeftModel:
    """Return the model with a fresh adapter, to be trained for so many steps.

    `start` keeps the first weights of methods that change the base.
    """
    targets: str | list[str] = "all-linear"
    if config.method.targets == "attention":
        targets = sorted({name.rsplit(".", 1)[-1] for name, _ in model.named_modules()} & set(ATTENTION))
    elif config.method.targets != "all-linear":
        targets = config.method.targets
    row = config.row
    knobs = config.method.model_dump() | {"rank": config.rank, "alpha": config.alpha, "targets": targets}
    torch.manual_seed(config.train.seed)
    try:
        adapted = peft.get_peft_model(
            model,
            peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(row.peft)](
                task_type="CAUSAL_LM",
                **{argument: knobs[knob] for knob, argument in row.knobs.items()},
                **row.fixed,
                **row.planned(config.rank, steps),
            ),
        )
    except ValueError as error:
        names = sorted(
            {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        )
        raise ModelError(
            f"The adapter does not fit this model: {error}", f"method.targets may name: {', '.join(names)}."
        ) from error
    if row.changes_base:
        # The base's weights are now what is left of them; to be read back as the change of a plain LoRA.
        adapter: Any = adapted.peft_config["default"]
        adapter.init_lora_weights = True
        adapted.save_pretrained(str(start))
        adapter.init_lora_weights = row.fixed["init_lora_weights"]
    return adapted


def optimizer(model: peft.PeftModel, config: TrainingConfig, rate: float) -> torch.optim.Optimizer:
    """AdamW without weight decay over the adapter, its state in fp32 or 8 bits; LoRA+ lets B take larger steps."""
    if config.train.optimizer == "adamw_8bit":
        import bitsandbytes  # takes a second, and is seldom asked for

        kind: Any = bitsandbytes.optim.AdamW8bit
        settings: dict[str, Any] = {}
    else:
        kind, settings = torch.optim.AdamW, {"fused": True}
    if config.row.b_ratio != 1:
        made = create_loraplus_optimizer(model, kind, lr=rate, loraplus_lr_ratio=config.row.b_ratio, **settings)
        made.param_groups = [group for group in made.param_groups if group["params"]]
        return made
    trained = [value for value in model.parameters() if value.requires_grad]
    made = kind(trained, lr=rate, weight_decay=0.0, **settings)
    if isinstance(model.base_model, peft.AdaLoraModel):
        adalora.follow(made, model)
    return made


def virtual_tokens(model: Any) -> int:
    """How many learned tokens the model puts before the text; its own forward alone does, the base's does not."""
    active = model.active_peft_config if isinstance(model, peft.PeftModel) else None
    return active.num_virtual_tokens if active and active.is_prompt_learning else 0


def save(
    model: peft.PeftModel, config: TrainingConfig, folder: Path, start: Path, facts: dict[str, Any], base: str
) -> int:
    """Write the adapter folder, whole or not at all, read it back, and return its size in bytes.

    `facts` becomes studio.json: base, template, terminator, method, metrics. `base` is what plain peft loads it onto.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for part in model.peft_config.values():
        part.base_model_name_or_path = base
    if config.row.changes_base:
        model.save_pretrained(str(temporary), path_initial_model_for_weight_conversion=str(start))
    else:
        model.save_pretrained(str(temporary))
    with safe_open(temporary / "adapter_model.safetensors", "pt") as handle:
        names = list(handle.keys())
        finite = all(handle.get_tensor(name).isfinite().all() for name in names)
    if not names or not finite:
        raise ModelError(
            "The adapter's weights are not all numbers: the training diverged.",
            "Start again with a lower learning rate.",
        )
    (temporary / "studio.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    (temporary / "README.md").write_text(card(config, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    return sum(file.stat().st_size for file in folder.iterdir())


def card(config: TrainingConfig, facts: dict[str, Any]) -> str:
    """The model card: what it is, how it was trained, how to load it."""
    base = facts["base"]
    rows = [
        ("Base model", f"{base['id']}{' at ' + base['revision'][:12] if base['revision'] else ''}"),
        ("Method", config.adapter),
        ("Examples", f"{facts['rows']:,}, {facts['eval_rows']:,} held out"),
        ("Steps", f"{facts['steps']:,} of {facts['effective_rows']} examples"),
        ("Learning rate", f"{facts['learning_rate']:g}, {config.train.schedule}"),
        ("Precision", facts["precision"]),
        ("Seed", str(config.train.seed)),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
library_name: peft
base_model: {json.dumps(base["id"])}
tags: [{config.row.peft.lower().replace("_", "-")}, peft-studio]
---
# {facts["name"]}

An adapter for {base["id"]}, trained with PEFT Studio {facts["studio"]}.

| | |
| --- | --- |
{table}

## Use
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("BASE")  # {base["id"]}
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "THIS FOLDER")
```
It was trained with the chat template in `studio.json`; another one gives other answers.
"""
