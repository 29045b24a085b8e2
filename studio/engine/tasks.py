"""Base against adapter on lm-eval tasks, whose settings the studio has read and found plain (`services/tasks.py`)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.metrics as lm_metrics  # fills the registry that is asked below
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from jinja2 import BaseLoader, StrictUndefined, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lm_eval import utils as lm_utils
from lm_eval.api.registry import aggregation_registry, metric_registry
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from studio.domain.errors import DataError, StudioError
from studio.engine import evaluate, generate, models, tokens
from studio.engine.report import Reporter, write_json
from studio.engine.verdict import difference

FEWEST = 6  # documents; if the adapter won each of five, a sign test would still say p = 0.06
# what `datasets` says of files without rows, where its reader does not just stop
EMPTY = ("corresponds to no data", "at least one example", "No columns to parse from file")
ESCAPE = "{{ ''.__class__.__mro__ }}"
# what lm-eval and the readers of data raise on settings, templates and rows that do not fit each other
WRONG: tuple[type[Exception], ...] = (ValueError, LookupError, TypeError, AttributeError, AssertionError, SyntaxError)
WRONG += (ArithmeticError, NotImplementedError, RecursionError, FileNotFoundError, TemplateError, DatasetsError)


def run(directory: Path, reporter: Reporter) -> None:
    """The `tasks` job: compare on the tasks in the folder `tasks`, write result.json."""
    request = models.request(directory)
    models.use_all_cores()
    device = models.pick_device("auto")
    result = compare(
        Path(request["model"]["path"]),
        Path(request["adapter"]),
        directory / "tasks",
        quantization=request["quantization"],
        dtype=models.pick_dtype("auto", device),
        device=device,
        limit=request["limit"],
        chat_template=request["chat_template"],
        seed=request["seed"],
        phase=reporter.phase,
    )
    write_json(directory / "result.json", result)


def compare(
    folder: Path,
    adapter: Path,
    tasks: Path,
    *,
    quantization: str,
    dtype: torch.dtype,
    device: torch.device,
    limit: int | None,
    chat_template: bool,
    seed: int,
    phase: Callable[..., None],
) -> dict[str, Any]:
    """Run lm-eval over the base and over the base with the adapter, and compare the scores of each document.

    Returns documents, base, adapter and difference by task and metric, and the verdict.
    """
    phase("Reading the tasks")
    _enclose()
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    ready = {name: _prepared(manager, name) for name in manager.all_subtasks}
    tokenizer = tokens.load_tokenizer(folder)
    generate.lock_template(tokenizer, adapter)
    tokens.template_of(tokenizer)

    phase("Loading the model to compare")
    pipeline = evaluate.pipeline_for(adapter, folder, quantization, dtype, device)
    found: dict[str, dict[str, Any]] = {"base": {}, "adapter": {}}
    for side, words in (("base", "the base model"), ("adapter", "the adapter")):
        pipeline.select(adapter if side == "adapter" else None)
        # a question at a time, as lm-eval does unless told otherwise: figures of others are made so
        model = _Model(pretrained=pipeline.model, tokenizer=tokenizer, batch_size=1)
        for number, (name, task) in enumerate(ready.items()):
            phase(f"Measuring {words} on {name}", number, len(ready), "tasks")
            with _told(name):
                found[side][name] = simple_evaluate(
                    model,
                    tasks=[task],
                    task_manager=manager,
                    limit=limit,
                    bootstrap_iters=0,  # intervals of the difference are ours
                    log_samples=True,
                    apply_chat_template=chat_template,
                )
    return report(ready, found, seed)


class _Model(HFLM):
    """lm-eval's own model, but chat templates are rendered in their child process."""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if add_generation_prompt:
            return tokens.render(self.tokenizer, chat_history, prompt=True)
        *talk, begun = chat_history  # the answer's beginning, from which the model goes on
        return tokens.render(self.tokenizer, talk, prompt=True) + begun["content"]


def _enclose() -> None:
    """Have lm-eval render the templates of tasks in jinja's sandbox: in its own they can reach all of Python."""
    sandbox = ImmutableSandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters |= lm_utils.env.filters
    lm_utils.env = sandbox
    try:
        lm_utils.apply_template(ESCAPE, {})
    except SecurityError:
        return
    raise StudioError(
        "This version of lm-eval renders templates in a way that cannot be kept from running code.",
        'Install the version that was tried: `pip install "lm_eval==0.4.13"`.',
    )


def _prepared(manager: TaskManager, name: str) -> Any:
    """Return a task with its documents, or say what it lacks."""
    config = manager.task_index[name].cfg
    with _told(name):
        for each in config.get("metric_list") or []:
            # lm-eval would look for any other as a file of Python, here and on the Hub
            _known(name, "metric", each["metric"], metric_registry)
            _known(name, "aggregation", each.get("aggregation", "mean"), aggregation_registry)
        data = _rows(name, config)
        split = config.get("test_split") or config.get("validation_split")
        if split not in data:
            raise DataError(
                f"The task {name} asks for the split {split}, which its data has not.",
                f"It has: {', '.join(data)}. Write dataset_kwargs.data_files as {split}: FILE.",
            )
        return manager.load([name])["tasks"][name]


def _rows(name: str, config: dict[str, Any]) -> Any:
    try:
        return datasets.load_dataset(config["dataset_path"], config.get("dataset_name"), **config["dataset_kwargs"])
    except (StopIteration, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        if not isinstance(cause, StopIteration) and not any(words in str(cause) for words in EMPTY):
            raise
        raise DataError(f"The data of the task {name} holds no rows.", "Add some, or leave the task out.") from error


def _known(name: str, what: str, value: Any, registry: Any) -> None:
    if value not in registry:
        there = ", ".join(sorted(registry))
        raise DataError(f"lm-eval has no {what} {value}, which the task {name} asks for.", f"It has: {there}.")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say which task lm-eval could not run, and why."""
    try:
        yield
    except WRONG as error:
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        words = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        raise DataError(
            f"lm-eval cannot run the task {name}. {words}", "Correct the task or its data, or leave it out with --task."
        ) from error


def report(tasks: dict[str, Any], found: dict[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    """Put what lm-eval found for both sides side by side, each metric with the interval of its difference.

    Only a mean of the documents' scores has one: what lm-eval makes of all answers at once has no score for each.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"documents": {}, "base": {}, "adapter": {}, "difference": {}}
    better: dict[str, dict[str, bool]] = {}
    for name, task in tasks.items():
        sides = [found[side][name] for side in ("base", "adapter")]
        for part in ("base", "adapter", "difference"):
            result[part][name] = {}
        result["documents"][name] = sides[0]["results"][name]["sample_len"]
        better[name] = sides[0]["higher_is_better"][name]
        for key, value in sides[0]["results"][name].items():
            metric, comma, kept = key.partition(",")
            before, after = _number(value), _number(sides[1]["results"][name].get(key))
            if not comma or metric.endswith("_stderr") or before is None or after is None:
                continue
            label = metric if kept == "none" else key  # of a filter's answers: metric,filter
            result["base"][name][label], result["adapter"][name][label] = before, after
            if task.aggregation().get(metric) is lm_metrics.mean:
                scores = _paired([side["samples"][name] for side in sides], metric, kept)
                result["difference"][name][label] = difference(*scores, np.ones(len(scores[0])), rng)
            else:
                result["difference"][name][label] = {"mean": after - before}
    result["verdict"] = verdict(result, better)
    return result


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float | np.number) and math.isfinite(value) else None


def _paired(samples: list[list[dict[str, Any]]], metric: str, kept: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the documents that both sides answered, in one order."""
    scores = [{each["doc_id"]: float(each[metric]) for each in side if each["filter"] == kept} for side in samples]
    shared = sorted(scores[0].keys() & scores[1].keys())
    return np.array([scores[0][at] for at in shared]), np.array([scores[1][at] for at in shared])


def verdict(result: dict[str, Any], better: dict[str, dict[str, bool]]) -> str:
    """One plain sentence: on which tasks the adapter is better or worse, by the first metric that has an interval.

    `better` says whether a higher value is. Both words need the whole 95 % interval on one side of zero.
    """
    told: dict[str, list[str]] = {"better on": [], "worse on": [], "no clear difference on": [], "not judged:": []}
    for name, differences in result["difference"].items():
        label = next((key for key, each in differences.items() if "low" in each), "")
        higher = better[name].get(label.partition(",")[0])
        if higher is None:
            told["not judged:"].append(name)
            continue
        found = differences[label]
        side = 0 if result["documents"][name] < FEWEST else (found["low"] > 0) - (found["high"] < 0)
        figures = f"{name} ({label} {result['adapter'][name][label]:.3f} against {result['base'][name][label]:.3f})"
        words = "no clear difference on" if not side else "better on" if (side > 0) == higher else "worse on"
        told[words].append(figures)
    sentence = "; ".join(f"{words} {', '.join(names)}" for words, names in told.items() if names)
    return f"{sentence[:1].upper()}{sentence[1:]}."
