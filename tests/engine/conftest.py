"""Small real models made on the spot: two layers, a byte-level tokenizer, a chat template."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from studio.domain.document import from_document, override, to_yaml
from studio.engine import models as engine_models

# Two-layer models are too small for two threads, which wait for each other longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The starter model's own template: a default instruction when the conversation brings none.
STARTER_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "What is the colour of the sky? The sky is blue.",
    "Where is my parcel? It is with the courier, and it will arrive tomorrow.",
    "system user assistant You are a helpful AI assistant named SmolLM, trained by Hugging Face",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def make_tokenizer(template: str | None = STARTER_TEMPLATE) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(folder: Path, kind: str = "llama", template: str | None = STARTER_TEMPLATE, **more: Any) -> Path:
    tokenizer = make_tokenizer(template)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2, **{**SHAPE, **more}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products this small wait for their threads longer than they take."""
    monkeypatch.setattr(engine_models, "use_all_cores", lambda: torch.set_num_threads(1))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with the starter's template."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


def talk(question: str, answer: str, row: int = 1) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "row": row,
    }


EXAMPLES = [talk(f"What is the colour of thing {i}?", ("blue", "green")[i % 2], i + 1) for i in range(24)]

MakeRun = Callable[..., Path]


def write_run(
    directory: Path,
    model: Path,
    *settings: str,
    examples: list[dict[str, Any]] = EXAMPLES,
    held: int = 4,
    kind: str = "chat",
) -> Path:
    """Write a run directory as the studio does: write_run(directory, model, "train.max_steps=3", …)."""
    data = directory / "data"
    data.mkdir(parents=True)
    (directory / "control").mkdir()
    for name, part in (("eval", examples[:held]), ("train", examples[held:])):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(example) + "\n" for example in part))
    document = override(
        {"model": {"id": str(model)}, "data": {"path": str(data)}},
        [
            "train.precision=fp32",
            "train.learning_rate=1e-2",
            "train.effective_rows=4",
            "evaluate.answers=2",
            "evaluate.general=false",
            *settings,
        ],
    )
    (directory / "config.yaml").write_text(to_yaml(from_document(document)))
    lineage = {
        "run": directory.name,
        "name": "tiny",
        "model": {"id": str(model), "path": str(model), "source": "folder", "revision": ""},
        "dataset": {"path": str(data), "kind": kind, "sha256": "0" * 64},
    }
    (directory / "lineage.json").write_text(json.dumps(lineage))
    return directory


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run directory in the test's own folder: make_run(model, "train.max_steps=3", …)."""

    def make(model: Path, *settings: str, **more: Any) -> Path:
        return write_run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", model, *settings, **more)

    return make
