"""A configuration as a document: read with the wrong key named, changed by assignments, written as YAML."""

from typing import Any

import yaml
from pydantic import ValidationError

from studio.domain.config import TrainingConfig
from studio.domain.errors import StudioError

ABOUT = "about"  # in a file that was passed on: what the run came to, and on what; it sets nothing


def from_document(document: Any) -> TrainingConfig:
    """Validate a document (the content of a YAML or JSON file), naming the key that is wrong."""
    if not isinstance(document, dict):
        raise StudioError("The configuration is not a list of keys and values.", "Write `model:` and `data:` groups.")
    try:
        return TrainingConfig.model_validate({key: value for key, value in document.items() if key != ABOUT})
    except ValidationError as error:
        raise StudioError(explain(error), "`peft-studio train --schema` lists every key with its limits.") from error


def explain(error: ValidationError) -> str:
    """Return pydantic's findings as one sentence a key, without its internals."""
    sentences = []
    for item in error.errors():
        # union branches add parts such as 'constrained-int' or "literal['auto']" to the path
        keys = [str(part) for part in item["loc"] if str(part).isidentifier() and part not in ("int", "float", "str")]
        name = ".".join(keys) or "configuration"
        sentence = f"{name}: {item['msg'].removeprefix('Value error, ').rstrip('.')}"
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


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as group.key → value; what stands in no group has its own name."""
    result: dict[str, Any] = {}
    for group, its in document.items():
        result |= {f"{group}.{key}": value for key, value in its.items()} if isinstance(its, dict) else {group: its}
    return result


def with_edit(document: dict[str, Any], edit: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the changes a resumed run carries: group.key → value."""
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in document.items()}
    for key, value in edit.items():
        group, name = key.split(".", 1)
        result.setdefault(group, {})[name] = value
    return result


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text[:1].isdigit() or text[:1] in "+-."
