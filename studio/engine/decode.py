"""The decoding loop: a token a step for each row of a batch, chosen as transformers' `generate` does, with less around.

It covers models that keep their past in one cache, as all causal ones of transformers do; no beams, no penalties.
"""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import peft
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.utils import ALL_CACHE_NAMES

from studio.engine.cache import grow

LEFT = 0.75  # share of a batch's rows at which the others are left out: each time, what is kept is copied
TOP_K = 50  # tokens to draw from, transformers' own default
Choose = Callable[[torch.Tensor], torch.Tensor]  # logits [B, V] → tokens [B, 1]


def decode(
    model: Any,
    prompts: list[list[int]],
    *,
    room: int,
    stops: set[int],
    temperature: float,
    top_p: float,
    seed: int | None,
    going: list[bool] | None = None,
    shrink: bool = False,
) -> Iterator[list[int | None]]:
    """Yield the next token of each prompt, None for those that have ended, until all have or there are `room`.

    A row draws from random numbers of its own, so it says what it would say alone. `going` says which have not ended:
    whoever reads may end one there too. With `shrink` rows that have ended are left out of the batch, which is for
    rows that are computed alike, and greedy ones.
    """
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)  # [B, T]
    mask = None
    if any(len(prompt) < width for prompt in prompts):
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        mask = (torch.arange(width, device=model.device) >= width - lengths[:, None]).long()
    choose = _greedy if temperature <= 0 else _sampler(len(prompts), temperature, top_p, seed, model.device)
    # Learned tokens before the text are put there by peft's model, and from the second step on are in the cache.
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    known = inspect.signature(base.forward).parameters
    options: dict[str, Any] = {"use_cache": True} | ({"logits_to_keep": 1} if "logits_to_keep" in known else {})
    past: dict[str, Any] = {}
    going = [True] * len(prompts) if going is None else going
    rows = list(range(len(prompts)))  # those that are in the batch
    for turn in range(room):
        ids, past = _step(model, ids, mask, options | past, choose)
        said = dict(zip(rows, ids[:, 0].tolist(), strict=True))
        found = [said.get(row) if alive else None for row, alive in enumerate(going)]
        yield found
        going[:] = [alive and token not in stops for token, alive in zip(found, going, strict=True)]
        if not any(going):
            return
        model = base
        if turn == 0:
            shrink &= grow(past)
        left = [place for place, row in enumerate(rows) if going[row]]
        if shrink and len(left) <= LEFT * len(rows):
            chosen = torch.tensor(left, device=ids.device)
            for cache in past.values():
                cache.batch_select_indices(chosen)
            rows, ids = [rows[place] for place in left], ids[chosen]
            mask = mask[chosen] if mask is not None else None
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1) if mask is not None else None


@torch.inference_mode()
def _step(
    model: Any, ids: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any], choose: Choose
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return the next tokens [B, 1] and the cache, by the name the model gives it."""
    if mask is not None:
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options |= {"attention_mask": mask, "position_ids": places}
    out = model(input_ids=ids, **options)
    past = {name: out[name] for name in ALL_CACHE_NAMES if out.get(name) is not None}
    return choose(out.logits[:, -1].float()), past


def _greedy(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1, keepdim=True)


def _sampler(rows: int, temperature: float, top_p: float, seed: int | None, device: torch.device) -> Choose:
    warp: Any = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopKLogitsWarper(TOP_K)])
    if top_p < 1:
        warp.append(TopPLogitsWarper(top_p))
    sources = [torch.Generator(device) for _ in range(rows)]
    for source in sources:
        source.seed() if seed is None else source.manual_seed(seed)

    def choose(logits: torch.Tensor) -> torch.Tensor:
        chances = warp(None, logits).softmax(-1)
        return torch.cat(
            [torch.multinomial(row[None], 1, generator=source) for row, source in zip(chances, sources, strict=True)]
        )

    return choose


class Lane(TextStreamer):
    """What one row says: its text, given out when no token to come changes it, its tokens and their times.

    `cut`: it came to one of the words in `stop`, before which its text ends.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        super().__init__(tokenizer, skip_special_tokens=True)
        self.over, self.tokens, self.first, self.last = False, 0, 0.0, 0.0
        self.stop, self.cut = stop, False
        self.ready = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.ready += text

    def take(self, token: int) -> str:
        """Take the next token, return what text can be given out."""
        self.tokens, self.last = self.tokens + 1, time.monotonic()
        self.first = self.first or self.last
        self.put(torch.tensor([token]))
        begun = (n for word in self.stop for n in range(1, len(word)) if self.ready.endswith(word[:n]))
        return self._give(max(begun, default=0))

    def close(self) -> str:
        """Take no more, return the rest of the text."""
        self.over = True
        if self.cut:
            return ""
        self.end()
        return self._give()

    def _give(self, kept: int = 0) -> str:
        """Return the text up to a stop word; without one all but the last characters, with which one may begin."""
        places = [place for word in self.stop if (place := self.ready.find(word)) >= 0]
        self.cut = bool(places)
        end = min(places) if places else len(self.ready) - kept
        text, self.ready = self.ready[:end], self.ready[end:]
        return text

    @property
    def speed(self) -> float:
        """Tokens a second after the first."""
        return round((self.tokens - 1) / (self.last - self.first), 2) if self.tokens > 1 else 0.0
