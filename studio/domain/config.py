"""TrainingConfig: every knob, spelled once. The form, the flags, YAML, the schema and the docs come from here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from studio.domain.fields import Auto, Group, OnOff
from studio.domain.methods import METHODS, Method
from studio.domain.profiles import GENERAL, PROFILES
from studio.domain.safety import CheckpointConfig, GuardConfig

SIZES = {"block_size", "virtual_tokens"}  # knobs of single methods that say how large an adapter is


class ModelConfig(Group):
    """The base model."""

    id: Annotated[str, Field(title="Model", description="`starter`, a Hub id, a folder or a .gguf file.", min_length=1)]
    revision: Annotated[
        str,
        Field(title="Revision", description="Commit or tag on the Hub. Empty: the one here, else the newest."),
    ] = ""
    quantization: Annotated[
        Literal["none", "int8", "nf4"] | Auto,
        Field(
            title="Quantisation",
            description="Hold the frozen base in 8 or 4 bits to save memory. Auto: as the method needs.",
        ),
    ] = "auto"


class DataConfig(Group):
    """The examples."""

    path: Annotated[
        str,
        Field(
            title="Data", description="A data file, the id of a data set, or one of the Hub: owner/name.", min_length=1
        ),
    ]
    format: Annotated[
        Literal[
            "auto",
            "messages",
            "sharegpt",
            "alpaca",
            "prompt-completion",
            "question-answer",
            "classification",
            "preference",
            "feedback",
            "text",
        ],
        Field(title="Structure", description="How the rows are laid out. Auto: detected from names and values."),
    ] = "auto"
    map: Annotated[
        dict[str, str],
        Field(
            title="Columns",
            description="What each column means: prompt, response, system, input, messages, text, history, tools, "
            "rejected or label → column.",
        ),
    ] = {}  # noqa: RUF012 - pydantic copies it
    eval_fraction: Annotated[
        float,
        Field(title="Held out", description="Share of the rows kept for testing, never trained on.", ge=0, le=0.5),
    ] = 0.1
    max_length: Annotated[
        Annotated[int, Field(ge=32, le=1_000_000)] | Auto,
        Field(
            title="Longest example, tokens",
            description="Auto: the longest example, as far as the model's context reaches.",
        ),
    ] = "auto"
    over_length: Annotated[
        Literal["ask", "drop", "split"],
        Field(
            title="Longer examples",
            description="Ask: stop and say how many. Drop: leave them out. Split: train on pieces.",
        ),
    ] = "ask"
    skip_bad_rows: Annotated[
        bool, Field(title="Leave out bad rows", description="Rows that cannot be used are left out, not refused.")
    ] = False
    repairs: Annotated[
        list[str], Field(title="Repairs", description="Findings of the data check to mend first: encoding, duplicates.")
    ] = []  # noqa: RUF012 - pydantic copies it


class MethodConfig(Group):
    """The adapter."""

    name: Annotated[
        Literal[*METHODS],  # type: ignore[valid-type]
        Field(title="Method", description="How the adapter is built."),
    ] = "lora"
    rank: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Auto,
        Field(title="Rank", description="How much the adapter can hold. Auto: as is usual for the method."),
    ] = "auto"
    alpha: Annotated[
        Annotated[int, Field(ge=1, le=4096)] | Auto,
        Field(title="Alpha", description="How strongly the adapter acts. Auto: twice the rank."),
    ] = "auto"
    dropout: Annotated[
        float, Field(title="Dropout", description="Share of the adapter's input left out at random.", ge=0, lt=1)
    ] = 0.0
    targets: Annotated[
        Literal["all-linear", "attention"] | list[str],
        Field(title="Layers", description="Which layers get an adapter: all-linear, attention, or module names."),
    ] = "all-linear"
    block_size: Annotated[
        int,
        Field(title="Block size", description="OFT: inputs turned together. Larger blocks hold more.", ge=2, le=1024),
    ] = 32
    virtual_tokens: Annotated[
        int,
        Field(
            title="Virtual tokens",
            description="Prompt and prefix tuning: learned tokens before the text. More hold more.",
            ge=1,
            le=1024,
        ),
    ] = 20


class TrainConfig(Group):
    """How it learns."""

    objective: Annotated[
        Literal["auto", "sft", "text"],
        Field(title="Objective", description="sft: learn the answers. text: learn plain text. Auto: as the data is."),
    ] = "auto"
    epochs: Annotated[
        Annotated[float, Field(gt=0, le=1000)] | Auto,
        Field(title="Passes over the data", description="How often each example is seen (epochs)."),
    ] = "auto"
    max_steps: Annotated[
        int, Field(title="Step limit", description="End after this many steps. 0: no limit.", ge=0)
    ] = 0
    learning_rate: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | Auto,
        Field(title="Learning rate", description="How big each correction is."),
    ] = "auto"
    schedule: Annotated[
        Literal["cosine", "linear", "constant"],
        Field(title="Schedule", description="How the learning rate changes from first step to last."),
    ] = "cosine"
    warmup: Annotated[
        float, Field(title="Warm-up", description="Share of the steps in which the rate rises.", ge=0, le=0.5)
    ] = 0.05
    batch_tokens: Annotated[
        Annotated[int, Field(ge=32)] | Auto,
        Field(
            title="Tokens at once",
            description="Tokens in one forward pass. Less needs less memory, with the same result.",
        ),
    ] = "auto"
    effective_rows: Annotated[
        Annotated[int, Field(ge=1, le=4096)] | Auto,
        Field(title="Examples a step", description="How many examples each correction is averaged over."),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        Field(title="Precision", description="Auto: bf16 where this hardware is fast with it, else fp32."),
    ] = "auto"
    recompute: Annotated[
        OnOff,
        Field(
            title="Recompute activations",
            description="Half the memory, a third slower. Auto: only the layers that would not fit otherwise.",
        ),
    ] = "auto"
    packing: Annotated[
        OnOff,
        Field(title="Packing", description="Examples side by side in one row instead of padding. Same result."),
    ] = "auto"
    optimizer: Annotated[
        Literal["adamw", "adamw_8bit"],
        Field(title="Optimiser", description="The 8-bit one needs less memory on large adapters."),
    ] = "adamw"
    label_smoothing: Annotated[
        float,
        Field(
            title="Label smoothing",
            description="Share of each answer's weight spread over all tokens, against overconfidence.",
            ge=0,
            le=0.5,
        ),
    ] = 0.0
    max_grad_norm: Annotated[
        float, Field(title="Gradient limit", description="Longer gradients are shortened to this length.", gt=0)
    ] = 1.0
    seed: Annotated[int, Field(title="Seed", description="Same seed, same run.", ge=0, le=2**31 - 1)] = 42


class EvaluateConfig(Group):
    """Checks while it learns, and at the end."""

    every: Annotated[
        Annotated[int, Field(ge=1)] | Auto,
        Field(title="Check every, steps", description="How often the held-out loss is measured. Auto: 5 times a run."),
    ] = "auto"
    early_stopping: Annotated[
        int,
        Field(
            title="Early stop",
            description="End when the held-out loss was worse at this many checks in a row. 0: never.",
            ge=0,
            le=100,
        ),
    ] = 3
    answers: Annotated[
        int,
        Field(
            title="Questions asked at the end",
            description="Held-out questions answered by base and adapter, to compare. 0: none.",
            ge=0,
            le=10_000,
        ),
    ] = 24
    general: Annotated[
        bool,
        Field(
            title="General texts at the end",
            description="Whether the adapter forgot what the base knew, by a small set of general texts.",
        ),
    ] = True
    samples: Annotated[
        int,
        Field(
            title="Questions asked at each check",
            description="The same held-out questions every time, to see how the answers change. 0: none.",
            ge=0,
            le=20,
        ),
    ] = 2
    prompts: Annotated[
        list[str],
        Field(title="Your own test prompts", description="Asked at each check too, a prompt an entry."),
    ] = []  # noqa: RUF012 - pydantic copies it
    max_new_tokens: Annotated[
        Annotated[int, Field(ge=1, le=8192)] | Auto,
        Field(title="Longest test answer, tokens", description="Auto: a little above the longest expected answer."),
    ] = "auto"


class HardwareConfig(Group):
    """Where it runs."""

    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(title="Device", description="Auto: a CUDA card when there is one, else the processor."),
    ] = "auto"
    processes: Annotated[
        Annotated[int, Field(ge=1, le=64)] | Auto,
        Field(
            title="Processes",
            description="How many share each step's examples, with the same result. Auto: one for each CUDA card.",
        ),
    ] = "auto"
    sharding: Annotated[
        Literal["none", "fsdp"],
        Field(title="Share the base", description="fsdp: each process holds only its part of the base's layers."),
    ] = "none"


class TrainingConfig(Group):
    """One training run. `model.id` and `data.path` are the only values a user must give."""

    name: Annotated[
        str, Field(title="Name", description="Name of the adapter. Empty: named after the data.", max_length=80)
    ] = ""
    profile: Annotated[
        Literal[*PROFILES],  # type: ignore[valid-type]
        Field(title="Purpose", description="What the model is trained for; values you leave open follow from it."),
    ] = GENERAL
    model: ModelConfig
    data: DataConfig
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    hardware: HardwareConfig = HardwareConfig()

    @model_validator(mode="after")
    def _quantised_base(self) -> "TrainingConfig":
        if self.quantization != "none" and not self.row.quantized_base:
            raise ValueError(f"{self.row.title} needs the base unquantised: set model.quantization to none.")
        if self.method.name == "qlora" and self.quantization == "none":
            raise ValueError("QLoRA needs a quantised base: set model.quantization to nf4 or int8.")
        if self.hardware.sharding != "none" and self.quantization != "none":
            raise ValueError("A quantised base cannot be shared: set hardware.sharding to none.")
        return self

    @model_validator(mode="after")
    def _asked_of_the_method(self) -> "TrainingConfig":
        for name, field in MethodConfig.model_fields.items():
            if name not in ("name", *self.row.knobs) and getattr(self.method, name) != field.default:
                raise ValueError(
                    f"{self.row.title} does not use method.{name}: set it to {field.default}, or choose another method."
                )
        for name, able in (("packing", self.row.packing), ("recompute", self.row.recompute)):
            if getattr(self.train, name) == "on" and not able:
                raise ValueError(
                    f"{self.row.title} does not work with train.{name}: set it to auto, or choose another method."
                )
        return self

    @property
    def row(self) -> Method:
        """What the table says of the method."""
        return METHODS[self.method.name]

    @property
    def quantization(self) -> str:
        """The base's quantisation, `auto` resolved by the method."""
        chosen = self.model.quantization
        return self.row.quantization if chosen == "auto" else chosen

    @property
    def rank(self) -> int:
        return self.row.rank if self.method.rank == "auto" else self.method.rank

    @property
    def alpha(self) -> int:
        return 2 * self.rank if self.method.alpha == "auto" else self.method.alpha

    @property
    def virtual_tokens(self) -> int:
        """How many places of the model's context the adapter takes."""
        return self.method.virtual_tokens if "virtual_tokens" in self.row.knobs else 0

    def length_limit(self, context: int, longest: int) -> int:
        """Tokens an example may have, in a model that reads `context` and among examples of up to `longest`."""
        most = self.data.max_length
        return min(context - self.virtual_tokens, longest) if most == "auto" else most

    def when_longer(self, kind: str) -> str:
        """What is done with longer examples: ask, drop or split. Plain text has no answer to lose and is split."""
        return "split" if kind == "text" else self.data.over_length

    @property
    def adapter(self) -> str:
        """The method and its size in a few words: LoRA, rank 16, alpha 32."""
        sizes = {"rank": self.rank, "alpha": self.alpha, **self.method.model_dump(include=SIZES)}
        said = [f"{name.replace('_', ' ')} {value}" for name, value in sizes.items() if name in self.row.knobs]
        return ", ".join([self.row.title, *said])
