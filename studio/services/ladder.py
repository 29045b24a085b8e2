"""Make it fit: the changes of settings that make a run smaller, what costs least first."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document, with_edit
from studio.domain.errors import StudioError
from studio.domain.quote import Quote, Rung
from studio.domain.records import Model
from studio.domain.words import count, model_name, short

LEAST_TOKENS = 256  # at once; fewer do not fill the hardware
WORTH = 0.98  # of the memory a change must get under to be worth a line
INT8, TOGETHER = 3, 5  # kinds: those before the latter cost nothing or little of what is learned

Ask = Callable[[TrainingConfig, Model], Quote]


class Change(NamedTuple):
    """One edit; `kind` orders them by what they cost, and of one kind only one is shown."""

    kind: int
    words: str
    effect: str
    edit: dict[str, Any]
    model: Model | None = None  # another one than the one that was asked about


def rungs(
    config: TrainingConfig, model: Model, now: Quote, p95: int, longest: int, smaller: list[Model], ask: Ask
) -> list[Rung]:
    """Return the changes that save memory, those that are enough first; the one that costs least is recommended."""
    tried: dict[int, tuple[Change, Quote]] = {}
    changes = list(_changes(config, p95, longest, smaller))
    for change in changes:
        quote = _with(config, change, model, ask)
        settled = change.kind in tried and tried[change.kind][1].fits
        if quote and not settled and quote.peak_memory_bytes < WORTH * now.peak_memory_bytes:
            tried[change.kind] = change, quote
    found = [tried[kind] for kind in sorted(tried)]
    if not now.fits and not any(quote.fits and change.kind < TOGETHER for change, quote in found):
        found += _all_of(config, changes, model, ask)
    lines = [
        Rung(
            words=change.words,
            effect=change.effect,
            edit=change.edit,
            peak_memory_bytes=quote.peak_memory_bytes,
            seconds=quote.seconds,
            fits=quote.fits,
        )
        for change, quote in sorted(found, key=lambda each: (not each[1].fits, each[0].kind))
    ]
    if lines and lines[0].fits and not now.fits:
        lines[0].recommended = True
    return lines


def _changes(config: TrainingConfig, p95: int, longest: int, smaller: list[Model]) -> Iterator[Change]:
    size = 2048 if config.train.batch_tokens == "auto" else config.train.batch_tokens
    while size // 2 >= LEAST_TOKENS:
        size //= 2
        edit: dict[str, Any] = {"train.batch_tokens": size}
        yield Change(0, f"{count(size)} tokens at once", "The same result, a little later.", edit)
    if config.train.recompute == "off" and config.row.recompute:
        effect = "The same result, as little later as can be: the engine takes as many layers as it must."
        yield Change(1, "Compute some layers again", effect, {"train.recompute": "auto"})
    if config.train.recompute != "on" and config.row.recompute:
        edit = {"train.recompute": "on"}
        yield Change(1, "Compute activations again", "The same result, up to a third later.", edit)
    if config.train.optimizer != "adamw_8bit":
        yield Change(2, "Optimiser in 8 bits", "About the same result.", {"train.optimizer": "adamw_8bit"})
    if config.quantization == "none" and config.row.quantized_base:
        effect = "The model in 8 bits: slower, hardly less exact."
        yield Change(INT8, "Hold the model in 8 bits", effect, {"model.quantization": "int8"})
    if config.quantization != "nf4" and config.row.quantized_base:
        effect = "The model in 4 bits: slower, slightly less exact."
        yield Change(4, "Hold the model in 4 bits (NF4)", effect, {"model.quantization": "nf4"})
    if p95 < 0.9 * longest:
        effect = "The longest twentieth of the examples is left out."
        edit = {"data.max_length": max(32, p95), "data.over_length": "drop"}
        yield Change(6, f"Examples up to {count(max(32, p95))} tokens", effect, edit)
    if "rank" in config.row.knobs and config.rank > 4:
        effect = "The adapter holds less that is new."
        edit = {"method.rank": config.rank // 2, "method.alpha": config.alpha // 2 or 1}
        yield Change(7, f"Rank {config.rank // 2}", effect, edit)
    for each in sorted(smaller, key=lambda model: -model.parameters):
        effect = f"A model of {short(each.parameters)} parameters: faster, and knows less."
        edit = {"model.id": each.id, "model.revision": each.revision if each.source == "hub" else ""}
        yield Change(8, f"{model_name(each.id)} instead", effect, edit, each)


def _with(config: TrainingConfig, change: Change, model: Model, ask: Ask) -> Quote | None:
    """Return the quote with a change, unless the change goes with nothing else that is chosen."""
    try:
        changed = from_document(with_edit(config.model_dump(), change.edit))
    except StudioError:
        return None
    return ask(changed, change.model or model)


def _all_of(config: TrainingConfig, changes: list[Change], model: Model, ask: Ask) -> list[tuple[Change, Quote]]:
    """Return all changes at once that cost little of what is learned, where none alone is enough."""
    # of each kind the one that saves most; 4 bits are less than 8
    chosen = {change.kind: change for change in changes if change.kind < TOGETHER and change.kind != INT8}.values()
    edit = {key: value for change in chosen for key, value in change.edit.items()}
    words = ", ".join(change.words[0].lower() + change.words[1:] for change in chosen)
    together = Change(TOGETHER, f"All of these: {words}", "Slower, slightly less exact.", edit)
    quote = _with(config, together, model, ask) if len(chosen) > 1 else None
    return [(together, quote)] if quote else []
