"""Training of the same rows by a peer: `train_peers.py trainer|trl|tuned|liger|unsloth MODEL ROWS SEED PER_STEP`."""

import json
import resource
import sys
import time
from typing import Any

RANK, RATE, MICRO = 16, 2e-4, 8
# What its users turn on where the memory allows: nothing computed again, larger pieces of rows alike in length.
TUNED: dict[str, Any] = {"gradient_checkpointing": False, "bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}
TUNED |= {"train_sampling_strategy": "group_by_length"}
AT_ONCE = 32
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main(peer: str, model: str, rows: list[dict[str, Any]], seed: int, per_step: int) -> dict[str, Any]:
    """Train one pass over the rows; return tokens, seconds in steps, peak memory and losses."""
    if peer == "unsloth":
        from unsloth import FastLanguageModel  # before transformers, which it changes
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback

    torch.set_num_threads(torch.get_num_threads())
    card = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(model)

    class Clock(TrainerCallback):
        begin = first = end = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if card:
                torch.cuda.synchronize()
            self.end = time.monotonic()
            self.first = self.first or self.end

    clock = Clock()
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    common: dict[str, Any] = {
        "output_dir": "out",
        "num_train_epochs": 1,
        "per_device_train_batch_size": MICRO,
        "gradient_accumulation_steps": per_step // MICRO,
        "learning_rate": RATE,
        "seed": seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not card,
    }
    prompts = [
        tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True)["input_ids"] for row in rows
    ]
    whole = [tokenizer.apply_chat_template(row["messages"])["input_ids"] for row in rows]
    if peer == "unsloth":
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        base, its = FastLanguageModel.from_pretrained(model, max_seq_length=2048, load_in_4bit=False)
        base = FastLanguageModel.get_peft_model(
            base, r=RANK, lora_alpha=2 * RANK, lora_dropout=0, target_modules=LINEAR, random_state=seed
        )
        data = Dataset.from_list([{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in rows])
        del common["use_cpu"]
        trainer: Any = SFTTrainer(
            model=base, processing_class=its, args=SFTConfig(**common), train_dataset=data, callbacks=[clock]
        )
    elif peer in ("trl", "tuned", "liger"):
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        if peer != "trl":
            micro = min(AT_ONCE, per_step)
            common |= TUNED | {"per_device_train_batch_size": micro, "gradient_accumulation_steps": per_step // micro}
            common |= {"use_liger_kernel": peer == "liger"}

        data = Dataset.from_list([{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in rows])
        trainer = SFTTrainer(
            model, args=SFTConfig(**common), train_dataset=data, peft_config=adapter, callbacks=[clock]
        )
    else:
        from peft import get_peft_model
        from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        rows_of = [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(head) + ids[len(head) :]}
            for head, ids in zip(prompts, whole, strict=True)
        ]
        trainer = Trainer(
            get_peft_model(base, adapter),
            TrainingArguments(**common),
            train_dataset=rows_of,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock],
        )
    trainer.train()
    tokens, steps = sum(len(ids) for ids in whole), trainer.state.global_step
    peak = torch.cuda.max_memory_allocated() if card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens": tokens,
        "seconds": clock.end - clock.begin,
        "after_first": tokens * (steps - 1) / steps / max(clock.end - clock.first, 1e-9),
        "memory": peak,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


if __name__ == "__main__":
    with open(sys.argv[3], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    print("RESULT " + json.dumps(main(sys.argv[1], sys.argv[2], rows, int(sys.argv[4]), int(sys.argv[5]))))
