"""The documents are true: links resolve, commands exist, every tab has its page, the reference is fresh."""

import ast
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from studio.cli import app
from studio.domain.methods import METHODS
from studio.ui.app import TABS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / ".kiro").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(peft-studio[^`]*)`")


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(text: str) -> list[str]:
    """Return the `peft-studio` commands of a page, from its fenced blocks and from its sentences."""
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\||;", line.split("  #")[0])]
    return [part for part in parts if part.startswith("peft-studio")] + INLINE.findall(text)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.spec("C1.2")
@pytest.mark.parametrize("page", PAGES, ids=short)
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.spec("C4.1")
def test_documents_lie_in_the_three_places() -> None:
    places = {page.relative_to(DOCS).parts[0] for page in DOCS.rglob("*") if page.is_file()}
    assert places == {"README.md", "user-guide", "developer-guide", "reference"}


@pytest.mark.spec("C1.1", "C4.2")
def test_the_index_names_every_page_once() -> None:
    linked = [link for link in LINK.findall((DOCS / "README.md").read_text(encoding="utf-8")) if "../" not in link]
    assert sorted(linked) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*/*.md"))


@pytest.mark.spec("C1.1")
def test_every_tab_has_its_page() -> None:
    pages = {page.stem for page in (DOCS / "user-guide").glob("*.md")}
    assert pages == {*TABS, "getting-started", "programs"}


@pytest.mark.spec("C3.1")
def test_no_document_is_a_quick_start_of_its_own() -> None:
    names = [page for page in ROOT.rglob("*.md") if ".venv" not in page.parts and "node_modules" not in page.parts]
    assert [short(page) for page in names if re.search(r"quick.?start", page.stem, re.IGNORECASE)] == []


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the words call, and the words left for it."""
    command = typer.main.get_command(app)
    while words and (child := getattr(command, "commands", {}).get(words[0])):
        command, words = child, words[1:]
    return command, words


@pytest.mark.spec("C3.2")
@pytest.mark.parametrize("page", [page for page in PAGES if ".kiro" not in page.parts], ids=short)
def test_commands_in_documents_exist(page: Path) -> None:
    for text in commands(page.read_text(encoding="utf-8")):
        command, rest = resolve(shlex.split(text.replace("…", ""))[1:])
        if rest and getattr(command, "commands", None):
            assert rest[0].startswith("-"), f"{text}: there is no command {rest[0]}"
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert options <= known | {"--help"}, f"{text}: no option {', '.join(sorted(options - known))}"


def test_the_train_page_has_a_line_for_every_method() -> None:
    text = (DOCS / "user-guide" / "train.md").read_text(encoding="utf-8")
    table = text.split("## Methods\n")[1].split("\n## ")[0].split("| --- |")[-1]
    wanted = []
    for row in METHODS.values():
        able = ["yes" if can else "no" for can in (row.quantized_base, row.packing)]
        wanted.append(f"| {' | '.join([row.title, row.when, ', '.join(row.knobs), *able])} |")
    assert [line for line in table.splitlines() if line.startswith("| ")] == wanted
    assert f"`{'`, `'.join(METHODS)}`" in text


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.spec("C8.1")
def test_the_readme_is_short() -> None:
    assert len(readme().splitlines()) <= 120


@pytest.mark.spec("C8.2")
def test_the_tree_in_the_readme_is_there() -> None:
    block = re.search(r"## What is here\n+```\n(.*?)```", readme(), re.DOTALL)
    assert block
    parent = ROOT
    for line in block[1].splitlines():
        name = line.split()[0]
        path = (parent if line.startswith("  ") else ROOT) / name
        assert path.exists(), name
        assert path.is_dir() == name.endswith("/"), name
        if name.endswith("/") and not line.startswith("  "):
            parent = path
    named = {line.split()[0].rstrip("/") for line in block[1].splitlines() if line.startswith("  ")}
    layers = {path.name for path in (ROOT / "studio").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert layers <= named


@pytest.mark.spec("C8.3")
def test_the_readme_links_the_documents() -> None:
    assert {"docs/README.md", ".kiro/specs/README.md", "CHANGELOG.md", "LICENSE"} <= set(LINK.findall(readme()))


def test_the_two_commands_are_in_the_readme() -> None:
    blocks = re.findall(r"<!-- (\w+) -->\n```bash\n(.*?)\n```", readme(), re.DOTALL)
    assert dict(blocks) == {
        "quickstart": "pip install -c build/constraints.txt -e . && peft-studio quickstart",
        "test": 'pip install -c build/constraints.txt -e ".[test]" && pytest',
    }


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "build" / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(reference: ModuleType) -> None:
    folder = DOCS / "reference"
    measured = {"benchmarks.md"}  # written by hand, from what the commands in it print
    assert {page.name for page in folder.iterdir()} == set(reference.PAGES) | measured
    for name, page in reference.PAGES.items():
        fresh = page().rstrip() + "\n"
        assert (folder / name).read_text(encoding="utf-8") == fresh, f"{name} is stale: run `python build/reference.py`"


def dependencies(*extras: str) -> set[str]:
    """Return the names of the dependencies, with those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {re.split(r"[<>=~!\[; ]", item)[0] for items in lists for item in items} - {"peft-studio"}


def test_every_dependency_has_its_reason_and_its_pin() -> None:
    names = dependencies("llama", "lm-eval", "test", "dev")
    page = (DOCS / "developer-guide" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w.-]+)` \| \w", page, re.MULTILINE)) == names
    pins = (ROOT / "build" / "constraints.txt").read_text(encoding="utf-8")
    pinned = {normal(name) for name in re.findall(r"^([\w.-]+)==[\w.]+$", pins, re.MULTILINE)}
    assert {normal(name) for name in names} <= pinned


@pytest.mark.spec("U31.2")
def test_every_dependency_is_used() -> None:
    imported = {
        module.split(".")[0]
        for path in (ROOT / "studio").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    named_otherwise = {"pyyaml": "yaml", "nvidia-ml-py": "pynvml", "python-stdnum": "stdnum"}
    unused = {name for name in dependencies() if named_otherwise.get(name, name.replace("-", "_")) not in imported}
    assert unused <= {"accelerate", "bitsandbytes", "gguf", "sentencepiece"}  # transformers imports these for us


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
