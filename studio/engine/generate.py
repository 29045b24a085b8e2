"""One base in memory, adapters swapped under it, answers streamed token by token."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer, set_seed

from studio.domain.errors import ModelError
from studio.engine import gate, lora, models, swap, tokens
from studio.engine.peft_switch import PeftSwitch


def settings(model: Any, tokenizer: Any, room: int, temperature: float, top_p: float) -> GenerationConfig:
    """Generation settings of our own: what the model's folder suggests is not what the user chose."""
    stops = {tokenizer.eos_token_id}
    own = getattr(model.generation_config, "eos_token_id", None)
    stops |= set(own) if isinstance(own, list) else {own}
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=room,
        eos_token_id=sorted(stop for stop in stops if stop is not None),
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )


def lock_template(tokenizer: Any, adapter: Path | None) -> None:
    """Give the tokenizer the template the adapter was trained with."""
    if adapter and (adapter / "studio.json").exists():
        facts = json.loads((adapter / "studio.json").read_text(encoding="utf-8"))
        tokenizer.chat_template = facts.get("template") or tokenizer.chat_template


def without_adapter(model: Any) -> contextlib.AbstractContextManager[Any]:
    return model.disable_adapter() if isinstance(model, peft.PeftModel) else contextlib.nullcontext()


class _Stop(StoppingCriteria):
    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked, self.count, self.first = asked, 0, 0.0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.count += 1
        self.first = self.first or time.monotonic()
        return torch.full((input_ids.shape[0],), self.asked(), dtype=torch.bool, device=input_ids.device)


class Pipeline:
    """A base model and the adapters loaded on it. Not safe for two callers at once.

    Plain LoRA is switched by a pointer (swap), every other kind by peft, and one of them at a time is on the base.
    """

    def __init__(self, folder: Path) -> None:
        models.use_all_cores()
        self.device = models.pick_device("auto")
        self.tokenizer = tokens.load_tokenizer(folder)
        self.template = tokens.template_of(self.tokenizer)
        self.folder = folder
        base = self._base()
        self.context = gate.context(base.config.to_dict())
        self.swap = swap.Swap(base)
        self.others = PeftSwitch(base)
        self.active: Path | None = None  # the adapter that answers; None: the base

    def _base(self) -> Any:
        return models.load_base(self.folder, "none", models.pick_dtype("auto", self.device), self.device)

    @property
    def model(self) -> Any:
        """What answers: the base, or peft's model around it."""
        return self.others.model

    def select(self, adapter: Path | None) -> float:
        """Make this adapter (None: the base) answer next; return the seconds it took. On failure nothing changes."""
        begin = time.monotonic()
        adapter = adapter.resolve() if adapter else None
        if adapter == self.active:
            return 0.0
        if adapter and adapter not in self.swap.tables and adapter not in self.others.loaded:
            self._load(adapter)
        if adapter in self.swap.tables:
            self.others.take_off()
            self.swap.use(adapter)
        else:
            self.swap.use(None)
            self.others.use(adapter)
        self.tokenizer.chat_template = self.template
        lock_template(self.tokenizer, adapter)
        self.active = adapter
        return time.monotonic() - begin

    def _load(self, adapter: Path) -> None:
        config, weights = gate.opened(adapter)
        try:
            if not self.swap.load(adapter, config, weights):
                self._load_other(adapter, config["peft_type"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"The adapter {adapter.name} was made for another base model: its weights do not fit this one.",
                "Choose the base it was trained on.",
            ) from error

    def _load_other(self, adapter: Path, kind: str) -> None:
        try:
            self.others.load(adapter, kind)
        except (RuntimeError, ValueError, KeyError):
            if not self.others.loaded:  # peft has put half an adapter into the base
                base, before = self._base(), self.active
                self.swap.wrap(base)
                self.others, self.active = PeftSwitch(base), None
                self.select(before)
            raise

    def answer(
        self,
        messages: list[dict[str, str]],
        *,
        room: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[str | dict[str, Any]]:
        """Yield the answer's text in pieces, then its figures: tokens, speed, time to the first, memory, stopped."""
        begin = time.monotonic()
        batch = self.tokenizer(
            tokens.render(self.tokenizer, messages, prompt=True), return_tensors="pt", add_special_tokens=False
        ).to(self.device)
        length = batch["input_ids"].shape[1]
        context = self.context - (lora.virtual_tokens(self.model) if self.active else 0)
        if length + 1 > context:
            raise ModelError(
                f"The conversation has {length:,} tokens, this model reads at most {context:,}.",
                "Start a new one.",
            )
        if seed is not None:
            set_seed(seed)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        watch = _Stop(stopped)
        failure: list[BaseException] = []

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(
                        input_ids=batch["input_ids"],
                        attention_mask=batch["attention_mask"],
                        generation_config=settings(
                            self.model, self.tokenizer, min(room, context - length), temperature, top_p
                        ),
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([watch]),
                    )
            except (RuntimeError, ValueError) as error:
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield from (piece for piece in streamer if piece)
        thread.join()
        if failure:
            raise ModelError(f"The model could not answer: {failure[0]}", "Shorten the conversation or try again.")
        spent = time.monotonic() - watch.first
        yield {
            "tokens": watch.count,
            "tokens_per_second": round((watch.count - 1) / spent, 2) if watch.count > 1 else 0.0,
            "first_token_seconds": round(watch.first - begin, 3),
            "memory_bytes": models.memory_bytes(self.device),
            "stopped": stopped(),
        }
