"""Settings for a run, each with its reason: from the size of the model, the examples and this machine."""

import math
from typing import Any

from studio.domain.config import TrainingConfig
from studio.domain.errors import ModelError
from studio.domain.fields import Group
from studio.domain.methods import METHODS, Method
from studio.domain.profiles import PROFILES
from studio.domain.records import Dataset, Model
from studio.domain.words import count, model_name, plural, rate, short
from studio.services.check import Lengths
from studio.services.machine import MachineFacts
from studio.services.rank import rank_for

NO_LIMIT = math.inf
# Starting points, found by trying; (up to this many, value), read from the top.
LEARNING_RATE = ((0.3e9, 1e-3), (1e9, 5e-4), (4e9, 2e-4), (NO_LIMIT, 1e-4))  # parameters of the model
EPOCHS = ((100, 5), (500, 3), (5_000, 2), (NO_LIMIT, 1))  # examples to train on
EFFECTIVE_ROWS = ((500, 8), (NO_LIMIT, 16))  # examples to train on
BATCH_TOKENS_CPU = 2_048  # activations of more no longer fit the processor's cache
BATCH_TOKENS_GPU = ((16e9, 4_096), (NO_LIMIT, 8_192))  # bytes of the card's memory
TEXT_PIECE = 1_024  # tokens; longer pieces of plain text make for too few corrections
CHECKS = 5  # measurements of the held-out loss in a run
ANSWERS = 0.4  # share of a conversation that is usually trained
USUAL_RATE = 2e-4  # what the method table's learning rates are relative to

# Why the defaults are what they are, for the values that do not depend on anything.
DEFAULTS = {
    "data.eval_fraction": "A tenth is enough to see whether it got better.",
    "data.over_length": "Nothing is left out without your word.",
    "data.skip_bad_rows": "A row that cannot be used is shown to you first.",
    "data.repairs": "Nothing is changed that you did not choose.",
    "method.dropout": "Off, whatever the model: with few passes over the data it costs more than it gives.",
    "method.targets": "An adapter on every linear layer learns more than one on attention alone.",
    "method.block_size": "Blocks of 32 hold about as much as LoRA's rank 16.",
    "method.virtual_tokens": "20 hold a task; each takes a place of the model's context.",
    "train.max_steps": "The passes over the data decide.",
    "train.schedule": "The rate falls smoothly, so that the last steps settle.",
    "train.warmup": "A short rise keeps the first corrections small.",
    "train.precision": "The engine takes bf16 where this hardware is fast with it.",
    "train.label_smoothing": "None: the examples are taken at their word.",
    "train.recompute": "Only where the memory would not be enough: it costs up to a third of the speed.",
    "train.packing": "Examples side by side waste no work on padding.",
    "train.optimizer": "Adapters are small; 8 bits would save little.",
    "train.max_grad_norm": "One odd example cannot throw the run off course.",
    "train.seed": "Any number does; the same one repeats the run.",
    "evaluate.early_stopping": "Three worse checks in a row are more than chance.",
    "evaluate.answers": "Enough answers for a verdict, few enough to wait for.",
    "evaluate.general": "What was forgotten shows only on texts of other kinds; it takes seconds with small models.",
    "evaluate.samples": "Two answers at each check show how the model changes, for little time.",
    "evaluate.prompts": "Held-out questions are asked; add what you care about.",
    "evaluate.max_new_tokens": "The engine allows a little more than the longest expected answer.",
    "checkpoint.every_steps": "The clock decides, as steps may take long.",
    "checkpoint.every_minutes": "A crash costs five minutes at most.",
    "checkpoint.keep": "Two, in case the disk damages one; the best besides.",
    "guard.invalid": "Such a run cannot be saved by going on: it goes back and learns more slowly.",
    "guard.divergence": "Whether to go on is for you to say; nothing is lost by waiting.",
    "guard.explosion": "One bad step should not cost the run.",
    "guard.flat": "Some data is learned late.",
    "guard.overfitting": "The best step is kept, so nothing is lost by ending.",
    "guard.memory": "Half as much at once gives the same result, only slower.",
    "hardware.device": "A CUDA card where there is one, else the processor.",
    "hardware.processes": "One for each CUDA card; a processor is best used by one.",
    "hardware.sharding": "A whole base in each process is fastest, where it fits.",
}


def recommend(
    config: TrainingConfig, model: Model, dataset: Dataset, facts: MachineFacts, lengths: Lengths
) -> tuple[TrainingConfig, dict[str, str]]:
    """Return the config with every `auto` resolved that can be before the tokens are counted, and a reason per key.

    Where the user says nothing, the purpose's row goes before the usual rule.
    """
    profile = PROFILES[config.profile]
    said = {key for key in DEFAULTS | {"method.name": ""} if _name(key) in _group(config, key).model_fields_set}
    method, why = config.row, config.row.when
    if "method.name" in profile.settings and "method.name" not in said:
        name, why = profile.settings["method.name"]
        method = METHODS[name]
    special = {key: each for key, each in profile.settings.items() if _possible(key, config, method)}
    document = config.model_dump()
    document["method"]["name"] = method.name
    reasons = {"method.name": why}

    def settle(key: str, value: Any, reason: str) -> Any:
        """Set an `auto`; beside another choice of the user's, say what is recommended."""
        group, name = key.split(".")
        value, reason = special.get(key, (value, reason))
        if key in profile.times:
            factor, also = profile.times[key]
            value, reason = value * factor, f"{reason} For this purpose {factor:g} times that: {also}"
        mine = document[group][name]
        if mine == "auto":
            document[group][name] = mine = value
        same = mine == value
        reasons[key] = reason if same else f"You set this. Recommended: {_shown(key, value)}. {reason}"
        return mine

    for key, reason in DEFAULTS.items():
        group, name = key.split(".")
        usual, reason = special.get(key, (type(_group(config, key)).model_fields[name].default, reason))
        if key in special and key not in said:
            document[group][name] = usual
        same = document[group][name] == usual
        word = "Recommended" if key in special else "Usual"
        reasons[key] = reason if same else f"You set this. {word}: {_shown(key, usual)}. {reason}"
    unused = [knob for knob in document["method"] if knob not in ("name", *method.knobs)]
    reasons |= {f"method.{knob}": f"{method.title} does not use it." for knob in unused}
    text = dataset.kind == "text"
    tokens = lengths.total / lengths.a_token * (1 - dataset.eval_rows / max(dataset.usable, 1))
    rank = method.rank
    if "rank" in method.knobs:
        enough, why = rank_for(document, method, model, tokens * (1 if text else ANSWERS))
        if method.rank <= special.get("method.rank", (0,))[0] < enough:
            del special["method.rank"]  # there is more to learn than is usual for the purpose
        rank = settle("method.rank", enough, why)
    if "alpha" in method.knobs:
        settle("method.alpha", 2 * rank, "Twice the rank is the usual strength.")
    settle("model.quantization", method.quantization, _quantization(method.quantization, method.title))
    settle("train.objective", "text" if text else "sft", f"The data is {'plain text' if text else 'conversations'}.")

    rows = dataset.train_rows
    context = model.context or NO_LIMIT
    wanted = config.data.max_length
    if wanted != "auto" and wanted > context:
        raise ModelError(
            f"data.max_length is {wanted:,} tokens, and {model_name(model.id)} reads {context:,} at most.",
            f"Set it to {context:,} or less, or leave it open.",
        )
    if "data.max_length" in special:
        length, reason = special["data.max_length"]
        special["data.max_length"] = min(length, context), reason
    if text:
        piece = settle(
            "data.max_length",
            int(min(TEXT_PIECE, context)),
            "Plain text is cut into pieces; shorter ones give more corrections for the same text.",
        )
        rows = max(rows, round(tokens / piece))
    elif "data.max_length" in special:
        settle("data.max_length", "auto", "")
    elif config.data.max_length == "auto":
        reach = f" of {count(context)} tokens" if model.context else ""
        reasons["data.max_length"] = f"The longest example, as far as the model's context{reach} reaches."
    else:
        reasons["data.max_length"] = "You set this. Usual: the longest example."

    each = min(_row(EFFECTIVE_ROWS, rows), max(rows, 1))
    examples = plural(rows, "piece" if text else "example")
    each = settle(
        "train.effective_rows",
        each,
        f"{examples}: {'few, so small steps see more of them' if each < 16 else 'enough for steady steps'}.",
    )
    steps_a_pass = math.ceil(max(rows, 1) / each)
    if config.train.max_steps and config.train.epochs == "auto":
        steps = config.train.max_steps
        reasons["train.max_steps"] = "You set this. It alone says how long the run is."
        reasons["train.epochs"] = "The step limit decides."
    else:
        passes = settle("train.epochs", float(_row(EPOCHS, rows)), _passes(rows, examples))
        steps = math.ceil(passes * steps_a_pass)
        steps = min(steps, config.train.max_steps or steps)
    settle(
        "evaluate.every",
        max(1, round(steps / CHECKS)),
        f"About {CHECKS} checks in the {plural(steps, 'step')} of this run."
        if dataset.eval_rows
        else "No rows are held out, so nothing is checked.",
    )
    settle(
        "train.learning_rate",
        _row(LEARNING_RATE, model.parameters) * (method.learning_rate / USUAL_RATE),
        f"Models of this size ({short(model.parameters)} parameters) learn well with it; larger ones need less."
        if model.parameters
        else "A careful rate, as the model's size is not known.",
    )
    if facts.gpu:
        settle(
            "train.batch_tokens", _row(BATCH_TOKENS_GPU, facts.gpu.memory_bytes), f"Keeps the {facts.gpu.name} busy."
        )
    else:
        settle("train.batch_tokens", BATCH_TOKENS_CPU, "Without a graphics card more at once is not faster.")
    return TrainingConfig.model_validate(document), reasons


def _group(config: TrainingConfig, key: str) -> Group:
    group: Group = getattr(config, key.split(".")[0])
    return group


def _name(key: str) -> str:
    return key.split(".")[1]


def _possible(key: str, config: TrainingConfig, method: Method) -> bool:
    """Whether a method can do what a purpose asks for."""
    match key.split("."):
        case "method", knob:
            return knob in method.knobs
        case "model", "quantization":
            return method.quantized_base and config.hardware.sharding == "none"
        case "train", "recompute":
            return method.recompute
    return True


def _row(table: tuple[tuple[float, Any], ...], size: float) -> Any:
    return next(value for limit, value in table if size <= limit)


def _passes(rows: int, examples: str) -> str:
    if rows <= EPOCHS[0][0]:
        return f"{examples} are very few: each has to be seen several times."
    if rows <= EPOCHS[1][0]:
        return f"{examples} are few: they need several passes."
    return (
        f"{examples}: a pass more begins to memorise." if rows <= EPOCHS[2][0] else f"{examples}: one pass is enough."
    )


def _quantization(kind: str, title: str) -> str:
    return f"{title} keeps the base as it is." if kind == "none" else f"{title} holds the base in 4 bits."


def _shown(key: str, value: Any) -> str:
    if key == "train.learning_rate":
        return rate(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return count(value) if isinstance(value, int | float) and value == int(value) else str(value)
