"""llama.cpp itself, where the extra `llama` is installed: the program that GGUF files are for says what it reads."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import torch

from studio.domain.errors import ModelError
from studio.engine.parity import Answer, Parity, compare

LIKELIEST = 200  # tokens whose probability is asked for; all others count as one
ROOM = 512  # tokens of context at least


def is_there() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def ask(model: Path, adapter: Path | None, expected: list[Answer]) -> Parity:
    """Compare llama.cpp's predictions with a model, and an adapter on it, with the answers."""
    longest = max(len(answer.ids) for answer in expected)
    with _server(model, adapter, max(ROOM, longest + 1)) as server:
        return compare(_Reader(server, len(expected[0].logits[0])), expected, f"llama.cpp {version('xllamacpp')}")


@contextmanager
def _server(model: Path, adapter: Path | None, context: int) -> Iterator[httpx.Client]:
    """Serve the files to this process alone: its bindings answer in part only without their HTTP."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = str(model)
    if adapter:
        added = xllamacpp.CommonAdapterLoraInfo()
        added.path, added.scale = str(adapter), 1.0
        options.lora_adapters = [added]
    options.n_ctx, options.n_parallel, options.warmup, options.verbosity = context, 1, False, -1
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = torch.get_num_threads()
    try:
        server = xllamacpp.Server(options)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"llama.cpp cannot load what was written: {error}", "Export it merged.") from error
    with httpx.Client(base_url=server.listening_address, timeout=600, trust_env=False) as client:
        yield client


class _Reader:
    """What the comparison asks of a model and its tokenizer, asked of llama.cpp."""

    def __init__(self, server: httpx.Client, words: int) -> None:
        self.server, self.words = server, words

    def encode(self, text: str) -> list[int]:
        asked = {"content": text, "add_special": False, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def decode(self, token: int) -> str:
        return str(self._post("/detokenize", {"tokens": [token]})["content"])

    def logs(self, answer: Answer) -> torch.Tensor:
        """Return the log probabilities of the answer's tokens [A, V]; those that were not told share the rest."""
        found = torch.empty(len(answer.logits), self.words)
        # Where it ends, or writes half a character, nothing is told: so it must write a letter, which changes nothing
        # about the probabilities.
        asked = {"n_predict": 1, "temperature": 0, "n_probs": LIKELIEST, "logit_bias": [[self.encode("a")[0], 1000]]}
        for place, row in enumerate(found):
            ids = answer.ids[: answer.start + place].tolist()
            told = self._post("/completion", asked | {"prompt": ids})["completion_probabilities"][0]["top_logprobs"]
            known = torch.tensor([each["id"] for each in told])
            logs = torch.tensor([float(each["logprob"]) for each in told])
            rest = (1 - logs.exp().sum()).clamp(min=1e-9) / max(self.words - len(known), 1)
            row.fill_(float(rest.log()))
            row[known] = logs
        return found

    def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = self.server.post(path, json=asked)
        answer.raise_for_status()
        return dict(answer.json())
