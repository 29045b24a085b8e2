"""AdaLoRA's part of a step: its matrices are kept orthogonal, and rank goes from where it matters least."""

from typing import Any

import peft
import torch

KEPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what the allocator remembers of each weight


def follow(optimizer: torch.optim.Optimizer, model: peft.PeftModel) -> None:
    """Let every step of the optimizer do what AdaLoRA asks for.

    What the allocator remembers lies in the optimizer's state, so that it is saved and read back with it.
    """
    inner: Any = model.base_model
    config: Any = model.peft_config["default"]
    trained = {name: value for name, value in inner.model.named_parameters() if value.requires_grad}

    def before(*_: Any) -> None:
        # Its gradient is small; it comes after clipping, and stays out of the loss that is told.
        with torch.enable_grad():
            (config.orth_reg_weight * slant(trained)).backward()

    def after(*_: Any) -> None:
        step = int(next(iter(optimizer.state.values()))["step"])
        for kind in KEPT:
            known = {name: optimizer.state[value].get(kind) for name, value in trained.items()}
            setattr(inner.rankallocator, kind, {name: value for name, value in known.items() if value is not None})
        inner.update_and_allocate(step)
        for kind in KEPT:
            for name, value in getattr(inner.rankallocator, kind).items():  # empty after the last step
                optimizer.state[trained[name]][kind] = value
        # With a pattern peft would save cut matrices, which an earlier state no longer fits; what was given up is 0.
        config.rank_pattern = None

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def slant(trained: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far the rows of A and the columns of B are from orthogonal: the mean of ‖P·Pᵀ − 1‖."""
    sides = [value if "lora_A" in name else value.t() for name, value in trained.items() if "lora_E" not in name]
    return torch.stack(
        [torch.linalg.matrix_norm(side @ side.t() - torch.eye(len(side), device=side.device)) for side in sides]
    ).mean()
