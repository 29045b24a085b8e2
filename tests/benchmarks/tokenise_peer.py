"""`datasets.map` over chat rows: `python tokenise_peer.py MODEL ROWS.jsonl PROCESSES`; prints one JSON line."""

import json
import os
import sys
import time


def main(model: str, path: str, processes: int) -> dict[str, float]:
    """Tokenise with the chat template, as TRL does; return rows, and seconds on the clock and of the processor."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = load_dataset("json", data_files=path, split="train")
    before, began = os.times(), time.perf_counter()
    data.map(
        lambda row: tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True),
        remove_columns=data.column_names,
        num_proc=processes if processes > 1 else None,
        load_from_cache_file=False,
    )
    wall, after = time.perf_counter() - began, os.times()
    return {"rows": len(data), "wall": wall, "processor": sum(after[:4]) - sum(before[:4])}


if __name__ == "__main__":
    print("RESULT " + json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
