"""The PEFT methods, a row each: when to choose one, and what peft needs to be told."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """One row. `lora` holds the arguments of peft's LoraConfig that make the method what it is."""

    name: str
    title: str
    when: str
    lora: dict[str, Any] = field(default_factory=dict)
    quantization: str = "none"  # the base's quantisation when the user names none
    quantized_base: bool = True  # whether a quantised base may be used with it
    learning_rate: float = 2e-4  # usual for a model of about 1 B parameters
    b_ratio: float = 1.0  # how many times faster B learns than A (LoRA+, Hayou et al. 2024)


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("lora", "LoRA", "The safest start: small, fast, and good on almost everything."),
        Method(
            "loraplus",
            "LoRA+",
            "LoRA whose second matrix learns 16 times faster: fewer steps where LoRA learns slowly, less calm.",
            b_ratio=16.0,
            learning_rate=5e-5,
        ),
        Method(
            "rslora",
            "rsLoRA",
            "For high ranks (32 and more): the scale alpha/√rank keeps them learning.",
            {"use_rslora": True},
        ),
        Method(
            "dora",
            "DoRA",
            "A little better at low ranks; about a quarter slower and larger in memory.",
            {"use_dora": True},
        ),
        Method(
            "pissa",
            "PiSSA",
            "Starts from the model's main directions: learns faster in short runs; the start takes longer.",
            {"init_lora_weights": "pissa_niter_4"},
            quantized_base=False,
        ),
        Method(
            "qlora",
            "QLoRA",
            "LoRA on a base held in 4 bits: a quarter of the memory for the weights, slower, slightly less exact.",
            quantization="nf4",
        ),
    )
}
