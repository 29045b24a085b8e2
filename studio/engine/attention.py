"""Attention over packed rows: several examples side by side in one row, none sees another."""

import contextlib
import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

attend_rows: Any = varlen.varlen_attn  # what it takes differs from release to release
TAKES = inspect.signature(attend_rows).parameters
VARLEN = "window_size" in TAKES  # torch 2.10 takes none: there it is a call for each segment

NAME = "packed"
# Causal attention through transformers' interface, and a head of one matrix: checked by a test each.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text")
BLOCK = 256  # queries whose scores are held at once


class Segments(torch.autograd.Function):
    """Causal attention within each segment by plain matrix products; the scores are formed again for the gradient.

    On a processor this takes about half the time of torch's fused kernel, which is made for few, long rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: list[int],
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """query [1, heads, T, d]; key, value [1, groups, T, d] → [1, T, heads, d]."""
        ctx.save_for_backward(query, key, value)
        ctx.settings = lengths, scale, window, softcap
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        for start, stop, first in _blocks(lengths, window):
            q, k, v = _cut(query, start, stop, key.shape[1]), key[0, :, first:stop], value[0, :, first:stop]
            share, _ = _shares(q, k, start - first, scale, window, softcap)
            _paste(out, torch.bmm(share, v), start, stop)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[Any, ...]:
        query, key, value = ctx.saved_tensors
        lengths, scale, window, softcap = ctx.settings
        gradient = grad_outputs[0].transpose(1, 2)
        groups = key.shape[1]
        d_query = torch.empty_like(grad_outputs[0])
        d_key, d_value = torch.zeros_like(key[0]), torch.zeros_like(value[0])
        for start, stop, first in _blocks(lengths, window):
            q, k, v = _cut(query, start, stop, groups), key[0, :, first:stop], value[0, :, first:stop]
            g = _cut(gradient, start, stop, groups)
            share, bent = _shares(q, k, start - first, scale, window, softcap)
            d_value[:, first:stop] += torch.bmm(share.transpose(1, 2), g)
            d_share = torch.bmm(g, v.transpose(1, 2))
            d_score = torch.ops.aten._softmax_backward_data(d_share, share, -1, share.dtype)
            if bent is not None:
                d_score *= 1 - bent.square()
            _paste(d_query, torch.bmm(d_score, k).mul_(scale), start, stop)
            d_key[:, first:stop] += torch.bmm(d_score.transpose(1, 2), q).mul_(scale)
        return d_query.transpose(1, 2), d_key[None], d_value[None], None, None, None, None


def _blocks(lengths: list[int], window: int | None) -> list[tuple[int, int, int]]:
    """Cut segments into blocks of queries [start, stop), each with the first key it sees."""
    cut, begin = [], 0
    for length in lengths:
        for start in range(begin, begin + length, BLOCK):
            first = max(begin, start - window + 1) if window else begin
            cut.append((start, min(start + BLOCK, begin + length), first))
        begin += length
    return cut


def _cut(heads: torch.Tensor, start: int, stop: int, groups: int) -> torch.Tensor:
    """[1, heads, T, d] → [groups, heads/groups · (stop − start), d], the heads that share a key below one another."""
    return heads[0, :, start:stop].reshape(groups, -1, heads.shape[3])


def _paste(out: torch.Tensor, part: torch.Tensor, start: int, stop: int) -> None:
    """Put what `_cut` laid below one another back in place: out [1, T, heads, d]."""
    out[0, start:stop] = part.view(out.shape[2], stop - start, -1).transpose(0, 1)


def _shares(
    q: torch.Tensor, k: torch.Tensor, offset: int, scale: float, window: int | None, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what share of its attention each query gives to each key, and tanh of its capped scores."""
    rows, keys = k.shape[1] - offset, k.shape[1]
    hidden = mask(rows, keys, window, q.shape[1] // rows, q.dtype, q.device)
    if not softcap:
        return torch.softmax(torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale), -1), None
    bent = torch.bmm(q, k.transpose(1, 2)).mul_(scale / softcap).tanh_()
    return torch.softmax((bent * softcap).add_(hidden), -1), bent


@functools.lru_cache(maxsize=64)  # the shapes of one pack serve every layer
def mask(
    rows: int, keys: int, window: int | None, heads: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """−∞ where the last `rows` of `keys` must not look, 0 elsewhere [heads · rows, keys]: later, before its window."""
    place = torch.arange(keys, device=device)
    here = place[keys - rows :, None]
    blind = place > here
    if window:
        blind |= place <= here - window
    return torch.zeros_like(blind, dtype=dtype).masked_fill_(blind, -torch.inf).repeat(heads, 1)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    lengths: list[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each of `lengths`. query [1, heads, T, d]; key, value [1, groups, T, d] → [1, T, heads, d]."""
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    window, softcap = kwargs.get("sliding_window"), kwargs.get("softcap")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if not softcap and _flashes(query, value):
        return _flash(query, key, value, lengths, scale, window), None
    if query.device.type == "cpu" or window or softcap:
        return Segments.apply(query, key, value, lengths, scale, window, softcap), None
    grouped = query.shape[1] != key.shape[1]
    parts = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _flashes(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's flash attention over rows of many lengths takes them: Ampere and later, 16 bits, heads ≤ 256."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[3] == value.shape[3] <= 256
        and query.shape[3] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and VARLEN
    )


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scale: float, window: int | None
) -> torch.Tensor:
    """One kernel for all segments. Its window counts the keys before a query, transformers' the query too."""
    begins, longest = starts(tuple(lengths), query.device), max(lengths)
    # before torch 2.13 it need not be told that several heads share a key
    grouped: dict[str, bool] = {"enable_gqa": query.shape[1] != key.shape[1]} if "enable_gqa" in TAKES else {}
    return attend_rows(
        *(part[0].transpose(0, 1) for part in (query, key, value)),
        *(begins, begins, longest, longest),
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        **grouped,
    )[None]


@functools.lru_cache(maxsize=8)  # one pack's serve every layer
def starts(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where each segment begins, and the end of the last [segments + 1]."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)


AttentionInterface.register(NAME, attend)


def packable(config: Any) -> bool:
    """Whether rows may be packed for this architecture: no other was tried, and none may drop attention."""
    return config.model_type in ARCHITECTURES and not getattr(config, "attention_dropout", 0)


@contextlib.contextmanager
def through(model: Any, packed: bool) -> Iterator[None]:
    """Attend within packed rows, or as transformers would with a mask, whatever the model is set to; then as before.

    The mask is made for the implementation that is set: for packed rows there is none, so that an answer beside
    padding would see it, and scores would be neither capped nor kept within their window.
    """
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME if packed else "sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
