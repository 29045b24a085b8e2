"""Cross-entropy on labelled positions only, in chunks, with the gradient formed in the forward pass."""

from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 256  # positions; 256 × 49,152 probabilities in fp32 are 50 MB
ON_CARD = 2**29  # bytes of such probabilities on a card, which small products leave idle


@dataclass(frozen=True)
class Head:
    """What becomes of the product of hidden states and weight: times `scale`, then cap·tanh(·/cap) if there is a cap.

    `smoothing` ε makes the loss (1 − ε)·nll + ε·mean over the vocabulary of −log p (Szegedy et al. 2016).
    """

    scale: float = 1.0
    cap: float | None = None
    smoothing: float = 0.0

    @classmethod
    def of(cls, config: Any, smoothing: float = 0.0) -> "Head":
        """Read a model's config: Gemma caps its logits, Granite divides them, Cohere multiplies them."""
        scale = float(getattr(config, "logit_scale", None) or 1) / float(getattr(config, "logits_scaling", None) or 1)
        return cls(scale, getattr(config, "final_logit_softcapping", None), smoothing)


PLAIN = Head()


class HeadLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen head. The probabilities of a chunk become its gradient, then are dropped."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, head: Head = PLAIN
    ) -> torch.Tensor:
        """hidden [N, H], weight [V, H], labels [N] → sum over N of the loss at its label."""
        gradient = torch.empty_like(hidden)
        total = hidden.new_zeros((), dtype=torch.float32)
        size, chunk = (_at_once(weight), _chunk_on_card) if hidden.is_cuda else (CHUNK, _chunk)
        for start in range(0, len(labels), size):
            here = slice(start, start + size)
            value, slope = chunk(hidden[here] @ weight.t(), labels[here, None], head)
            total += value
            gradient[here] = slope.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].to(gradient.dtype), None, None, None


def _chunk(logits: torch.Tensor, wanted: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss of raw logits [n, V] at labels [n, 1], and its derivative by them in fp32."""
    logits, bent = _bend(logits, head)
    # One pass over the row for the maximum, the exponentials and their sum. A probability under 1e-30 has lost digits
    # or is zero; its logarithm is then taken the long way.
    slope = torch.softmax(logits, -1, dtype=torch.float32)
    chosen = slope.gather(1, wanted)
    nll = -chosen.log()
    lost = (chosen < 1e-30)[:, 0]
    if lost.any():
        rare = logits[lost].float()
        nll[lost] = rare.logsumexp(-1, keepdim=True) - rare.gather(1, wanted[lost])
    slope.scatter_(1, wanted, chosen - (1 - head.smoothing))
    total = nll.sum()
    if head.smoothing:
        top = nll + logits.gather(1, wanted).float()  # the logarithm of the row's sum
        total = (1 - head.smoothing) * total + head.smoothing * (top[:, 0] - logits.float().mean(-1)).sum()
        slope -= head.smoothing / logits.shape[1]
    return total, _unbend(slope, bent, head)


def _bend(logits: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return logits as the head scales and caps them, and tanh of the capped ones."""
    if head.scale != 1:
        logits = logits * head.scale
    if not head.cap:
        return logits, None
    bent = (logits.float() / head.cap).tanh_()
    return bent * head.cap, bent


def _unbend(slope: torch.Tensor, bent: torch.Tensor | None, head: Head) -> torch.Tensor:
    """Return the derivative by raw logits of one by those that `_bend` made."""
    if bent is not None:
        slope *= 1 - bent.square_()
    return slope.mul_(head.scale) if head.scale != 1 else slope


def _at_once(weight: torch.Tensor) -> int:
    """Positions whose probabilities a card holds at once."""
    return max(CHUNK, ON_CARD // (4 * len(weight)))


def _chunk_on_card(logits: torch.Tensor, wanted: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_chunk`, without asking what the numbers are: a card would have to end its work for the answer."""
    logits, bent = _bend(logits, head)
    logs = torch.log_softmax(logits, -1, dtype=torch.float32)
    nll = -logs.gather(1, wanted).sum()
    total = (1 - head.smoothing) * nll - head.smoothing * logs.mean(-1).sum() if head.smoothing else nll
    slope = logs.exp_()
    slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, head.smoothing - 1))
    if head.smoothing:
        slope -= head.smoothing / logits.shape[1]
    return total, _unbend(slope, bent, head)


def packed(model: Any, batch: dict[str, Any], smoothing: float = 0.0) -> torch.Tensor:
    """Summed loss of a packed batch: one row [1, T], `lengths` of its examples, labels already shifted."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden, labels = _labelled(inner, batch)
    return HeadLoss.apply(hidden, inner.lm_head.weight, labels, Head.of(inner.config, smoothing))


def _labelled(inner: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden states [N, H] and the labels [N] of a packed batch, where there is a label.

    The labels may be left on the processor: a card would have to end its work to say how many there are.
    """
    hidden = inner.model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], lengths=batch["lengths"], use_cache=False
    ).last_hidden_state
    labels, given = batch["labels"][0], batch["labels"][0] != -100
    places, wanted = given.nonzero()[:, 0], labels[given]
    return hidden[0].index_select(0, places.to(hidden.device)), wanted.to(hidden.device)


def padded(model: torch.nn.Module, batch: dict[str, Any], smoothing: float = 0.0) -> torch.Tensor:
    """Summed loss of a padded batch [B, T] by the model's own head; labels already shifted."""
    logits, labels = _padded_logits(model, batch), batch["labels"]
    return torch.nn.functional.cross_entropy(
        logits[labels != -100].float(), labels[labels != -100], reduction="sum", label_smoothing=smoothing
    )


def _padded_logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Logits [B, T, V] of a padded batch; prompt tuning has more in front, of its own tokens."""
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    return out.logits[:, -batch["labels"].shape[1] :]


@torch.no_grad()
def per_token(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Loss at each labelled position of a batch, packed or padded, in fp32 [N]."""
    if "lengths" not in batch:
        labels, logits = batch["labels"], _padded_logits(model, batch)
        return torch.nn.functional.cross_entropy(
            logits[labels != -100].float(), labels[labels != -100], reduction="none"
        )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    (hidden, wanted), head = _labelled(inner, batch), Head.of(inner.config)
    losses = []
    for some, those in zip(hidden.split(CHUNK), wanted[:, None].split(CHUNK), strict=True):
        logits = inner.lm_head(some).float() * head.scale
        if head.cap:
            logits = (logits / head.cap).tanh_() * head.cap
        losses.append((logits.logsumexp(-1, keepdim=True) - logits.gather(1, those))[:, 0])
    return torch.cat(losses)
