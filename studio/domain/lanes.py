"""What of the engine's ways a run's settings allow: its own linear layers, and batches side by side on a processor."""

from studio.domain.config import TrainingConfig

LANE = 512  # tokens of a batch, under which a matrix product no longer fills a core


def plain(config: TrainingConfig) -> bool:
    """Whether the engine's own linear takes every adapted layer: LoRA and DoRA without dropout, over 4 bits LoRA."""
    held = ("none",) if config.row.fixed.get("use_dora") else ("none", "nf4")
    return config.row.peft == "LORA" and not config.method.dropout and config.quantization in held


def lanes(config: TrainingConfig, cores: int, size: int) -> int:
    """How many batches a processor computes side by side with `size` tokens in all, as far as settings tell.

    One where order matters, as with dropout, and where bitsandbytes computes: two of its products were not tried.
    """
    ours = config.quantization == "none" or (plain(config) and config.method.targets == "all-linear")
    return max(1, min(cores, size // LANE)) if ours and not config.method.dropout else 1
