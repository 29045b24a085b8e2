"""The rank a base's widths ask for: the adapter is to hold what the examples can teach."""

from typing import Any

from studio.domain.config import TrainingConfig
from studio.domain.methods import Method
from studio.domain.records import Model
from studio.domain.words import short
from studio.services.footprint import shape_of

# Bits that a number of an adapter holds, and that a trained token teaches: Schulman et al. 2025, LoRA Without Regret.
HELD, TAUGHT = 2, 1
MOST = 128  # higher ranks were not tried, and cost as much as they add
GROWS = ("LORA", "ADALORA", "MISS")  # kinds whose numbers grow with the rank


def rank_for(document: dict[str, Any], method: Method, model: Model, tokens: float) -> tuple[int, str]:
    """Return the rank for so many trained tokens, the usual one or a doubling of it, with its reason."""
    usual = f"Usual for {method.title}"
    if method.peft not in GROWS or not tokens:
        return method.rank, f"{usual}."
    shape, rank = shape_of(model), method.rank

    def numbers() -> int:
        changed = {**document, "method": {**document["method"], "name": method.name, "rank": rank}}
        return shape.adapter_parameters(TrainingConfig.model_validate(changed))

    while HELD * numbers() < TAUGHT * tokens and rank < min(MOST, shape.hidden // 4):
        rank *= 2
    holds = f"{short(numbers())} numbers in this model's layers"
    if rank == method.rank:
        return rank, f"{usual}: {holds} hold more than {short(tokens)} trained tokens teach."
    enough = "hold" if HELD * numbers() >= TAUGHT * tokens else "hold most of"
    return rank, f"{holds} {enough} what {short(tokens)} trained tokens teach."
