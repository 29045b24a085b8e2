"""Write docs/reference from the code: `python build/reference.py`; a test fails while the pages are stale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from studio.cli import app
from studio.domain.config import TrainingConfig
from studio.domain.terms import TERMS

ROOT = Path(__file__).parents[1]
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
TYPES = {"string": "text", "boolean": "`true`, `false`", "array": "list of names", "object": "key: value"}
NOTE = "\nThis page is written by `python build/reference.py`; change the code, not the page.\n"


def configuration() -> str:
    """Return the page of every key of the configuration, with its default, limits and meaning."""
    schema = TrainingConfig.model_json_schema()
    lines = [
        "# Configuration",
        NOTE,
        "One document for the form, YAML, JSON, `--set group.key=value` and Python. A run writes its own as",
        "`config.yaml`; `peft-studio train config.yaml` repeats it, and `peft-studio train --schema` prints the",
        "JSON Schema.",
        "",
    ]
    groups = {"": schema} | {name: field for name, field in schema["properties"].items() if "$ref" in field}
    for name, field in groups.items():
        group = schema if not name else _definition(schema, field)
        lines += [f"## {name}", "", group["description"], ""] if name else []
        lines += ["| key | default | values | meaning |", "| --- | --- | --- | --- |"]
        for key, item in group["properties"].items():
            if "$ref" not in item:
                path = f"{name}.{key}".removeprefix(".")
                default = f"`{_value(item['default'])}`" if "default" in item else "required"
                meaning = f"**{item['title']}.** {item['description']}".replace("|", "\\|")
                lines.append(f"| `{path}` | {default} | {_values(item)} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _definition(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = schema["$defs"][field["$ref"].rsplit("/", 1)[1]]
    return definition


def _value(value: Any) -> str:
    """Return a default as it is written in YAML."""
    return {bool: str(value).lower(), dict: "{}"}.get(type(value), str(value) or '""')


def _values(item: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_kinds(item)))


def _kinds(item: dict[str, Any]) -> Iterator[str]:
    """Yield what a key takes, a branch of the schema at a time."""
    for branch in item.get("anyOf", []):
        yield from _kinds(branch)
    if "enum" in item:
        yield ", ".join(f"`{value}`" for value in item["enum"])
    elif "const" in item:
        yield f"`{item['const']}`"
    elif item.get("type") in ("integer", "number"):
        yield " ".join([item["type"], *(f"{words} {item[name]:,}" for name, words in BOUNDS.items() if name in item)])
    elif "type" in item:
        yield TYPES[item["type"]]


def commands() -> str:
    """Return the page of every command, with its arguments and options."""
    lines = [
        "# Commands",
        NOTE,
        "With `--json` a command prints one JSON document to standard output, everything else goes to standard",
        "error. Exit codes: 0 done, 1 failed with a reason, 2 wrong usage, 130 interrupted.",
        "",
    ]
    for words, command in tree(typer.main.get_command(app), "peft-studio"):
        lines += [f"## {words}", "", (command.help or "").split("\n\n")[0].replace("\n", " "), ""]
        rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
        if rows:
            lines += ["| argument or option | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def tree(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with the words that call it."""
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield words, command
    for name, child in children.items():
        if not child.hidden:
            yield from tree(child, f"{words} {name}")


def _row(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if option else parameter.metavar or parameter.name.upper()
    return f"| `{name}` | {(getattr(parameter, 'help', '') or '').replace('|', chr(92) + '|')} |"


def glossary() -> str:
    """Return the page of the field's terms, as the page explains them where they stand."""
    lines = ["# Glossary", NOTE, "The page marks these words; press one to read the same there.", ""]
    lines += ["| term | meaning |", "| --- | --- |"]
    for term in sorted(TERMS, key=lambda each: each.name.casefold()):
        also = f" ({', '.join(term.also)})" if term.also else ""
        lines.append(f"| **{term.name}**{also} | {term.text} |")
    return "\n".join(lines)


PAGES = {"configuration.md": configuration, "commands.md": commands, "glossary.md": glossary}


def main() -> None:
    folder = ROOT / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page().rstrip() + "\n", encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
