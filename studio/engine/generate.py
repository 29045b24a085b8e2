"""One base in memory, adapters swapped under it, answers streamed token by token."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import GenerationConfig

from studio.domain.errors import ModelError, TooLong
from studio.engine import decode, gate, lora, memory, models, swap, tokens
from studio.engine.peft_switch import PeftSwitch


def stops_of(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    own = getattr(model.generation_config, "eos_token_id", None)
    stops = {tokenizer.eos_token_id} | (set(own) if isinstance(own, list) else {own})
    return {stop for stop in stops if stop is not None}


def settings(model: Any, tokenizer: Any, room: int) -> GenerationConfig:
    """Greedy generation settings of our own: what the model's folder suggests is not what the user chose."""
    return GenerationConfig(
        max_new_tokens=room,
        do_sample=False,
        eos_token_id=sorted(stops_of(model, tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
    )


def lock_template(tokenizer: Any, adapter: Path | None) -> None:
    """Give the tokenizer the template the adapter was trained with, if it is that and ends answers as it did."""
    if not adapter or not (adapter / "studio.json").exists():
        return
    facts = json.loads((adapter / "studio.json").read_text(encoding="utf-8"))
    template = facts.get("template")
    if template and facts.get("template_sha256") not in (None, tokens.template_hash(template)):
        raise ModelError(
            f"The chat template of {adapter.name} is not the one it was trained with: its studio.json was changed.",
            "Take the adapter from where it was trained again.",
        )
    for number, token in (facts.get("stops") or {}).items():
        if (here := tokenizer.convert_ids_to_tokens(int(number))) != token:
            raise ModelError(
                f"{adapter.name} learned to end its answers with {token} (token {number}), which is {here} here.",
                "Choose the base it was trained on.",
            )
    tokenizer.chat_template = template or tokenizer.chat_template


def without_adapter(model: Any) -> contextlib.AbstractContextManager[Any]:
    return model.disable_adapter() if isinstance(model, peft.PeftModel) else contextlib.nullcontext()


@contextlib.contextmanager
def _fitting(adapter: Path) -> Iterator[None]:
    """Say what it means when weights do not fit."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"The adapter {adapter.name} was made for another base model: its weights do not fit this one.",
            "Choose the base it was trained on.",
        ) from error


class Pipeline:
    """A base model and the adapters loaded on it. Not safe for two callers at once.

    LoRA and DoRA are switched by a pointer (swap), every other kind by peft, and one of them at a time is on the base.
    """

    def __init__(
        self,
        folder: Path,
        quantization: str = "none",
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        whole: bool = False,
    ) -> None:
        """`whole`: adapters of other kinds will come, which need to read the weights (swap)."""
        models.use_all_cores()
        self.device = device or models.pick_device("auto")
        self.quantization, self.dtype = quantization, dtype or models.pick_dtype("auto", self.device)
        self.tokenizer = tokens.load_tokenizer(folder)
        self.template = tokens.template_of(self.tokenizer)
        self.folder = folder
        base = self._base()
        self.context = gate.context(base.config.to_dict())
        # in fewer bits every adapter is peft's work, and a second base would be too much
        self.swap = swap.Swap(base, whole or bool(getattr(base, "is_quantized", False)))
        self.others = PeftSwitch(base)
        self.active: Path | None = None  # the adapter that answers; None: the base

    def _base(self) -> Any:
        base = models.load_base(self.folder, self.quantization, self.dtype, self.device)
        if self.quantization == "nf4" and self.device.type == "cpu":  # which makes its weights anew for each product
            free = memory.free_bytes(self.device)
            if models.fitting(self.folder, self.dtype, free) == "none":
                base = models.written_out(base)
        return base

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
        if adapter and not self._held(adapter) and adapter not in self.others.loaded:
            self._load_other(adapter)
        self._activate(adapter)
        return time.monotonic() - begin

    def _activate(self, adapter: Path | None) -> None:
        self._lock(adapter)  # first: it may be refused
        if adapter in self.swap.tables:
            self.others.take_off()
            self.swap.use(adapter)
        else:
            self.swap.use(None)
            self.others.use(adapter)
        self.active = adapter

    def _lock(self, adapter: Path | None) -> None:
        before, self.tokenizer.chat_template = self.tokenizer.chat_template, self.template
        try:
            lock_template(self.tokenizer, adapter)
        except ModelError:
            self.tokenizer.chat_template = before
            raise

    def _held(self, adapter: Path) -> bool:
        """Whether the adapter is LoRA or DoRA, which is held for a switch from then on."""
        if adapter in self.swap.tables or adapter in self.others.loaded:
            return adapter in self.swap.tables
        config, weights = gate.opened(adapter)
        with _fitting(adapter):
            return self.swap.load(adapter, config, weights)

    def _load_other(self, adapter: Path) -> None:
        kind = gate.adapter(adapter)["peft_type"]
        if self.swap.packed:
            self._renew()
        try:
            with _fitting(adapter):
                self.others.load(adapter, kind)
        except ModelError:
            if not self.others.loaded:  # peft has put half an adapter into the base
                self._renew()
            raise

    def _renew(self) -> None:
        """Load the base afresh, with weights that peft can read; who is active stays so."""
        before, self.active = self.active, None
        base = self._base()
        self.swap.wrap(base, whole=True)
        self.others = PeftSwitch(base)
        self.select(before)

    def answer(self, messages: list[dict[str, str]], **options: Any) -> Iterator[str | dict[str, Any]]:
        """Yield the answer of who is active: its text in pieces, then its figures; options as in `answers`.

        The figures: tokens read and written, speed, time to the first, memory, whether it was stopped, and what
        ended it: `stop`, the model itself or a stop word; `length`, no more room.
        """
        virtual = lora.virtual_tokens(self.model) if self.active else 0
        for _, piece in self._stream([self._prompt(messages)], self.context - virtual, **options):
            yield piece

    def answers(
        self, adapters: list[Path | None], talks: list[list[dict[str, str]]], **options: Any
    ) -> Iterator[tuple[int, str | dict[str, Any]]]:
        """Let each adapter (None: the base) answer its own messages; yield lane and piece, or lane and figures.

        LoRA and DoRA adapters and the base answer in one batch, others one after the other until one is stopped. Greedy
        answers in fp32 are those given alone.
        Options: `room`, the most tokens; `temperature`; `top_p`; `seed`; `stop`, words before which an answer ends;
        `stopped`, which is asked at every token.
        """
        begin = time.monotonic()
        held = [adapter.resolve() if adapter else None for adapter in adapters]
        if len(held) > 1 and all(adapter is None or self._held(adapter) for adapter in held):
            yield from self._batch(held, talks, begin, **options)
            return
        for lane, (adapter, messages) in enumerate(zip(held, talks, strict=True)):
            spent = self.select(adapter)
            for piece in self.answer(messages, **options):
                yield lane, piece if isinstance(piece, str) else piece | {"swap_seconds": round(spent, 4)}
            if isinstance(piece, dict) and piece["stopped"]:
                return

    def _batch(
        self, adapters: list[Path | None], talks: list[list[dict[str, str]]], begin: float, **options: Any
    ) -> Iterator[tuple[int, str | dict[str, Any]]]:
        """Answer in one batch. Afterwards the base is active."""
        try:
            prompts = []
            for adapter, messages in zip(adapters, talks, strict=True):
                self._lock(adapter)
                prompts.append(self._prompt(messages))
            self.others.take_off()
            self.swap.use(*adapters)
            spent = round(time.monotonic() - begin, 4)
            for lane, piece in self._stream(prompts, self.context, **options):
                yield lane, piece if isinstance(piece, str) else piece | {"swap_seconds": spent}
        finally:
            self._activate(None)

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        text = tokens.render(self.tokenizer, messages, prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _stream(
        self,
        prompts: list[list[int]],
        context: int,
        *,
        room: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int | None = None,
        stop: Sequence[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, str | dict[str, Any]]]:
        begin = time.monotonic()
        length = max(len(prompt) for prompt in prompts)
        if length + 1 > context:
            raise TooLong(
                f"The conversation has {length:,} tokens, this model reads at most {context:,}.",
                "Start a new one.",
            )
        stops = stops_of(self.model, self.tokenizer)
        room = min(room, context - length)
        lanes = [decode.Lane(self.tokenizer, stop) for _ in prompts]
        going = [True] * len(prompts)

        def end(number: int, finish: str) -> Iterator[tuple[int, str | dict[str, Any]]]:
            lane = lanes[number]
            rest = lane.close()
            if rest:
                yield number, rest
            yield (
                number,
                {
                    "prompt_tokens": len(prompts[number]),
                    "tokens": lane.tokens,
                    "tokens_per_second": lane.speed,
                    "first_token_seconds": round(lane.first - begin, 3),
                    "memory_bytes": models.memory_bytes(self.device),
                    "stopped": stopped(),
                    "finish": "stop" if lane.cut else finish,
                },
            )

        try:
            for found in decode.decode(
                self.model,
                prompts,
                room=room,
                stops=stops,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                going=going,
            ):
                for number, token in enumerate(found):
                    if token is not None:
                        piece = lanes[number].take(token)
                        if piece:
                            yield number, piece
                        if token in stops or lanes[number].cut:
                            going[number] = False
                            yield from end(number, "stop")
                if stopped():
                    break
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"The model could not answer: {error}", "Shorten the conversation or try again."
            ) from error
        for number, lane in enumerate(lanes):
            if not lane.over:
                yield from end(number, "length")
