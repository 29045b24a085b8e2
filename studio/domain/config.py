"""TrainingConfig: every knob, spelled once. The form, the flags, YAML, the schema and the docs come from here."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from studio.domain.errors import StudioError
from studio.domain.methods import METHODS

Auto = Literal["auto"]
# YAML reads on and off as true and false
OnOff = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))
]


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


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

    path: Annotated[str, Field(title="Data", description="A data file, or the id of a data set.", min_length=1)]
    format: Annotated[
        Literal["auto", "messages", "sharegpt", "alpaca", "prompt-completion", "question-answer", "text"],
        Field(title="Structure", description="How the rows are laid out. Auto: detected from names and values."),
    ] = "auto"
    map: Annotated[
        dict[str, str],
        Field(
            title="Columns",
            description="What each column means: prompt, response, system, input, messages or text → column.",
        ),
    ] = {}
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


class MethodConfig(Group):
    """The adapter."""

    name: Annotated[
        Literal["lora", "loraplus", "rslora", "dora", "pissa", "qlora"],
        Field(title="Method", description="How the adapter is built."),
    ] = "lora"
    rank: Annotated[int, Field(title="Rank", description="How much the adapter can hold.", ge=1, le=1024)] = 16
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
        Field(title="Early stop", description="End after this many checks without progress. 0: never.", ge=0, le=100),
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


class TrainingConfig(Group):
    """One training run. `model.id` and `data.path` are the only values a user must give."""

    name: Annotated[
        str, Field(title="Name", description="Name of the adapter. Empty: named after the data.", max_length=80)
    ] = ""
    model: ModelConfig
    data: DataConfig
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    hardware: HardwareConfig = HardwareConfig()

    @model_validator(mode="after")
    def _quantised_base(self) -> "TrainingConfig":
        if self.quantization != "none" and not METHODS[self.method.name].quantized_base:
            raise ValueError(
                f"{METHODS[self.method.name].title} needs the base unquantised: set model.quantization to none."
            )
        if self.method.name == "qlora" and self.quantization == "none":
            raise ValueError("QLoRA needs a quantised base: set model.quantization to nf4 or int8.")
        return self

    @property
    def quantization(self) -> str:
        """The base's quantisation, `auto` resolved by the method."""
        chosen = self.model.quantization
        return METHODS[self.method.name].quantization if chosen == "auto" else chosen

    @property
    def alpha(self) -> int:
        return 2 * self.method.rank if self.method.alpha == "auto" else self.method.alpha


def from_document(document: Any) -> TrainingConfig:
    """Validate a document (the content of a YAML or JSON file), naming the key that is wrong."""
    if not isinstance(document, dict):
        raise StudioError("The configuration is not a list of keys and values.", "Write `model:` and `data:` groups.")
    try:
        return TrainingConfig.model_validate(document)
    except ValidationError as error:
        raise StudioError(explain(error), "`peft-studio train --schema` lists every key with its limits.") from error


def explain(error: ValidationError) -> str:
    """Return pydantic's findings as one sentence a key, without its internals."""
    sentences = []
    for item in error.errors():
        # union branches add parts such as 'constrained-int' or "literal['auto']" to the path
        keys = [str(part) for part in item["loc"] if str(part).isidentifier() and part not in ("int", "float", "str")]
        name = ".".join(keys) or "configuration"
        sentence = f"{name}: {item['msg'].removeprefix('Value error, ')}"
        if sentence not in sentences:
            sentences.append(sentence)
    return "; ".join(sentences) + "."


def to_yaml(config: TrainingConfig, reasons: dict[str, str] | None = None) -> str:
    """Return the document as YAML, with the reason of a value as a comment on its line."""
    lines = []
    group = ""
    for line in yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=10_000).splitlines():
        key = line.split(":")[0]
        if not line.startswith((" ", "-")):
            group = key.strip()
        reason = (reasons or {}).get(f"{group}.{key.strip()}") if line.startswith("  ") else None
        lines.append(f"{line}  # {reason}" if reason else line)
    return "\n".join(lines) + "\n"


def override(document: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return the document with `group.key=value` assignments applied; values are read as YAML."""
    result: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in document.items()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise StudioError(f"`{assignment}` is not an assignment.", "Write --set group.key=value.")
        try:
            value = yaml.safe_load(text)
            if isinstance(value, str):  # YAML 1.1 reads 2e-4 as text
                value = float(value) if _number(value) else value
        except yaml.YAMLError as error:
            raise StudioError(f"The value of `{path}` cannot be read.", "Quote it, or write it as YAML.") from error
        place = result
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise StudioError(f"`{path}` names a key inside a value.", "See `peft-studio train --schema`.")
        place[keys[-1]] = value
    return result


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text[:1].isdigit() or text[:1] in "+-."
