"""Cross-entropy on labelled positions only, in chunks, with the gradient formed in the forward pass."""

from typing import Any

import torch

CHUNK = 512  # positions; 512 × 49,152 logits in fp32 are 100 MB


class HeadLoss(torch.autograd.Function):
    """Summed cross-entropy of a frozen head. The logits of a chunk become its gradient, then are dropped."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """hidden [N, H], weight [V, H], labels [N] → sum over N of −log softmax(hidden·weightᵀ)[label]."""
        gradient = torch.empty_like(hidden)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(labels), CHUNK):
            here = slice(start, start + CHUNK)
            logits = (hidden[here] @ weight.t()).float()
            wanted = labels[here, None]
            total += (logits.logsumexp(-1) - logits.gather(1, wanted)[:, 0]).sum()
            logits = logits.softmax(-1).scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0))
            gradient[here] = logits.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].to(gradient.dtype), None, None


def packed(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Summed loss of a packed batch: one row [1, T], `lengths` of its examples, labels already shifted."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = inner.model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], lengths=batch["lengths"], use_cache=False
    ).last_hidden_state
    labels = batch["labels"]
    return HeadLoss.apply(hidden[labels != -100], inner.lm_head.weight, labels[labels != -100])


def padded(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Summed loss of a padded batch [B, T] by the model's own head; labels already shifted."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"]
    return torch.nn.functional.cross_entropy(logits[labels != -100].float(), labels[labels != -100], reduction="sum")
