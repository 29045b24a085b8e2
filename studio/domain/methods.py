"""The PEFT methods, a row each: when to choose one, what peft needs to be told, what it can and cannot do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LORA = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}


@dataclass(frozen=True)
class Method:
    """One row. `peft` is peft's name of the kind; `knobs` says which argument of its config each knob of ours is.

    `fixed` holds the arguments that make the method what it is, `planned` those that follow from rank and steps.
    """

    name: str
    title: str
    when: str
    peft: str = "LORA"
    knobs: dict[str, str] = field(default_factory=lambda: LORA)
    fixed: dict[str, Any] = field(default_factory=dict)
    planned: Callable[[int, int], dict[str, Any]] = lambda rank, steps: {}
    rank: int = 16  # when the user names none
    learning_rate: float = 2e-4  # usual for a model of about 1 B parameters
    b_ratio: float = 1.0  # how many times faster B learns than A (LoRA+, Hayou et al. 2024)
    quantization: str = "none"  # the base's quantisation when the user names none
    quantized_base: bool = True  # whether a quantised base may be used with it
    changes_base: bool = False  # whether its start alters the base's weights
    packing: bool = True  # whether examples may stand side by side in one row
    recompute: bool = True  # whether layers may be computed again for the gradient


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
            fixed={"use_rslora": True},
        ),
        Method(
            "dora",
            "DoRA",
            "A little better at low ranks; about a quarter slower and larger in memory.",
            fixed={"use_dora": True},
        ),
        Method(
            "pissa",
            "PiSSA",
            "Starts from the model's main directions: learns faster in short runs; the start takes longer.",
            fixed={"init_lora_weights": "pissa_niter_4"},
            quantized_base=False,
            changes_base=True,
        ),
        Method(
            "qlora",
            "QLoRA",
            "LoRA on a base held in 4 bits: a quarter of the memory for the weights, slightly less exact.",
            quantization="nf4",
        ),
        Method(
            "adalora",
            "AdaLoRA",
            "Spends the rank where it helps most: layers that matter little give theirs up. For 100 steps and more.",
            peft="ADALORA",
            knobs=LORA | {"rank": "target_r"},
            # Half as much again at the start, all of it for a tenth of the run, then down to the target (Zhang 2023).
            planned=lambda rank, steps: {
                "init_r": -(-3 * rank // 2),
                "total_step": max(2, steps),
                "tinit": steps // 10,
                "deltaT": max(1, steps // 100),
            },
            learning_rate=2e-3,
        ),
        Method(
            "oft",
            "OFT",
            "Turns the inputs of a layer and keeps their lengths: forgets less of what the model knew; slower.",
            peft="OFT",
            knobs={"block_size": "oft_block_size", "dropout": "module_dropout", "targets": "target_modules"},
        ),
        Method(
            "miss",
            "MiSS",
            "One matrix a layer where LoRA has two, about as good: a second try where LoRA does not get there.",
            peft="MISS",
            knobs={"rank": "r", "dropout": "miss_dropout", "targets": "target_modules"},
            rank=64,
        ),
        Method(
            "vera",
            "VeRA",
            "A twentieth of LoRA's weights: two vectors a layer, around matrices drawn once. For many small adapters.",
            peft="VERA",
            knobs={"rank": "r", "dropout": "vera_dropout", "targets": "target_modules"},
            rank=256,
            learning_rate=8e-3,
        ),
        Method(
            "ia3",
            "IA³",
            "Tiny: one number for each output of a layer. For a tone or a format, from few examples.",
            peft="IA3",
            knobs={"targets": "target_modules"},
            # Scaling what the up-projection says is scaling what the down-projection hears: none needs its own rule.
            fixed={"feedforward_modules": []},
            learning_rate=4e-3,
        ),
        Method(
            "prompt",
            "Prompt tuning",
            "Learned tokens before the text, the model untouched: kilobytes a task. For large models; learns slowly.",
            peft="PROMPT_TUNING",
            knobs={"virtual_tokens": "num_virtual_tokens"},
            fixed={"prompt_tuning_init": "SAMPLE_VOCAB"},
            learning_rate=4e-3,
            packing=False,
        ),
        Method(
            "prefix",
            "Prefix tuning",
            "Learned keys and values before the text, in every layer: holds more than prompt tuning; model untouched.",
            peft="PREFIX_TUNING",
            knobs={"virtual_tokens": "num_virtual_tokens"},
            fixed={"init_weights": "zero"},
            learning_rate=8e-3,
            packing=False,
            recompute=False,
        ),
    )
}
