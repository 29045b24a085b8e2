"""lm-eval tasks of a folder, read as plain settings; what would run code or fetch data is refused.

Task files come from strangers. lm-eval imports the functions they name, loads metrics from files of Python, hands
settings of answering to transformers, which can load code by them, and fetches data. So only settings that are known
to do none of that go on to it, and it never reads the files themselves. Templates are not looked at here: the engine
renders them in a sandbox.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from studio.domain.errors import DataError, NotFound

SPLITS = {"training_split", "validation_split", "test_split", "fewshot_split"}
TEMPLATES = {"doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "target_delimiter", "fewshot_delimiter"}
KEYS = {"task", "task_alias", "tag", "dataset_path", "dataset_name", "dataset_kwargs", *SPLITS, *TEMPLATES}
KEYS |= {"description", "fewshot_config", "num_fewshot", "output_type", "generation_kwargs", "repeats", "metric_list"}
KEYS |= {"filter_list", "should_decontaminate", "doc_to_decontamination_query", "metadata"}
PARTS = {
    "fewshot_config": {"sampler", "split", "samples", "fewshot_indices", *TEMPLATES},
    # others load code: transformers takes `custom_generate` from any folder
    "generation_kwargs": {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature"}
    | {"top_p", "top_k", "min_p", "num_beams", "repetition_penalty"},
}
# Kinds of data that hold no code, and the settings of their readers. Not pandas: it reads pickles.
READERS = {
    "json": {"field", "encoding"},
    "csv": {"sep", "delimiter", "header", "names", "column_names", "quotechar", "quoting", "escapechar", "encoding"},
    "parquet": {"columns"},
    "text": {"keep_linebreaks", "sample_by", "encoding"},
}
RUNS = {"class", "custom_dataset", "process_docs", "process_results", "unsafe_code"}
ELSEWHERE = "Tasks here are settings and templates alone; for one that needs Python, run lm-eval itself."
BESIDE = (
    "Put the data beside it: dataset_path is json, csv, parquet or text, and dataset_kwargs.data_files names the file."
)


class _Code(str):
    """What `!function` names."""


class _Loader(yaml.SafeLoader):
    """Plain YAML, but `!function` is kept as a mark and nothing may stand for something else (a bomb is made so)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*) is not taken here", mark)
        return super().compose_node(parent, index)


_Loader.add_constructor("!function", lambda loader, node: _Code(node.value))


def gather(folder: Path, names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the tasks of a folder by name, or only those named, each with the paths of its data."""
    if not folder.is_dir():
        what = f"{folder} is a file, not a folder." if folder.exists() else f"There is no folder {folder}."
        raise NotFound(what, "--tasks takes the folder that holds the YAML files of the tasks.")
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
    if not files:
        raise DataError(f"{folder} holds no YAML file.", "A task is one, with its data beside it.")
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in files:
        config = _read(file)
        name = config.get("task")
        if not isinstance(name, str) or "group" in config:  # settings for others to include, or a list of tasks
            continue
        if name in found:
            both = f"{found[name][0].name} and {file.name}"
            raise DataError(f"There are two tasks {name}: {both}.", "Give each a name of its own.")
        found[name] = file, config
    if not found:
        raise DataError(f"No YAML file in {folder} says `task: NAME`.", "A task of lm-eval begins with its name.")
    if missing := [name for name in names if name not in found]:
        raise NotFound(f"There is no task {missing[0]} in {folder}.", f"There are: {', '.join(found)}.")
    return {name: _plain(name, found[name][1], found[name][0].parent) for name in names or found}


def _read(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a file, over those of the files it includes; nothing where it holds none."""
    if file in seen:
        raise DataError(f"{file} includes itself.", "Take the `include` out.")
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "it is not YAML"
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{file}{where}: {why}.", "Correct it, or move it elsewhere.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}.", "Correct it, or move it elsewhere.") from error
    if not isinstance(config, dict):
        return {}
    included = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    for each in included if isinstance(included, list) else [included]:
        path = (file.parent / str(each)).resolve()
        if not path.is_file():
            raise DataError(f"{file} includes {each}, which is not there.", "Paths are from the folder of the file.")
        merged |= _read(path, (*seen, file.resolve()))
    return merged | config


def _plain(name: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a task with whole paths to its data, or say what of them is not taken."""
    config = {key: value for key, value in config.items() if value is not None}
    if code := _code(config):
        _runs(name, f"{code[0]}: !function {code[1]}")
    for key, value in config.items():
        if key in RUNS and value:
            _runs(name, key)
        if key not in KEYS | RUNS:
            raise DataError(f"The task {name} has the key {key}, which is not taken here.", ELSEWHERE)
        if key in PARTS:
            _only(name, key, value, PARTS[key])
    for metric in config["metric_list"] if isinstance(config.get("metric_list"), list) else []:
        if isinstance(metric, dict) and metric.get("hf_evaluate"):
            _runs(name, f"metric_list: hf_evaluate, which loads {metric.get('metric')} as a program")
    if not {"test_split", "validation_split"} & set(config):
        raise DataError(f"The task {name} does not say which rows it asks.", "It needs test_split or validation_split.")
    plain = {key: value for key, value in config.items() if key not in RUNS}
    return plain | {"dataset_kwargs": _data(name, config, folder)}


def _data(name: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a task's data; every file of it is on this machine."""
    kind, settings = str(config.get("dataset_path")), config.get("dataset_kwargs", {})
    if kind.endswith(".py"):
        _runs(name, f"dataset_path: {kind}")
    if kind not in READERS:
        raise DataError(f"The data of the task {name} is not a local file (dataset_path: {kind}).", BESIDE)
    if isinstance(settings, dict):
        settings = dict(settings)
        if settings.pop("trust_remote_code", False):
            _runs(name, "dataset_kwargs.trust_remote_code")
    _only(name, "dataset_kwargs", settings, READERS[kind] | {"data_files"})

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {split: whole(each) for split, each in value.items()}
        if isinstance(value, list):
            return [whole(each) for each in value]
        path = (folder / str(value)).resolve()
        if not path.is_file() or "::" in str(path):  # `a::b` is a chain of addresses to what opens it
            raise DataError(
                f"The data of the task {name} is not a local file (dataset_kwargs.data_files: {value}).",
                f"There is no {path}; paths are from the folder of the task's YAML file.",
            )
        return str(path)

    if not settings.get("data_files"):
        raise DataError(f"The task {name} names no file of data (dataset_kwargs.data_files).", BESIDE)
    return settings | {"data_files": whole(settings["data_files"])}


def _only(name: str, key: str, value: Any, taken: set[str]) -> None:
    """Refuse a group of settings with another in it than those taken."""
    if not isinstance(value, dict):
        raise DataError(
            f"{key} of the task {name} does not hold settings.", f"It can hold: {', '.join(sorted(taken))}."
        )
    if other := sorted(str(each) for each in value.keys() - taken):
        raise DataError(
            f"The task {name} has {key}.{other[0]}, which is not taken here.",
            f"Taken are: {', '.join(sorted(taken))}.",
        )


def _code(value: Any, key: str = "") -> tuple[str, str] | None:
    """Return where in the settings a function is named, and which; None where none is."""
    if isinstance(value, _Code):
        return key, str(value)
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        parts = [*value.items(), *((each, each) for each in value)]
    elif isinstance(value, list):
        parts = [(key, each) for each in value]
    return next((found for part, each in parts if (found := _code(each, str(part)))), None)


def _runs(name: str, what: str) -> NoReturn:
    raise DataError(f"The task {name} runs code of its own ({what}), which is refused.", ELSEWHERE)
