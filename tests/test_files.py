"""The tree holds what it should and nothing else: sources, lengths, first sentences, mirrored tests, modules in use."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = {
    ".ci",
    ".github",
    ".gitignore",
    ".kiro",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "app.py",
    "build",
    "docs",
    "pyproject.toml",
    "studio",
    "tests",
}
LONGEST = 350  # lines of a source file
LARGEST = 500_000  # bytes of a tracked file
WHOLE_TREE = {"architecture", "docs", "files", "specs"}  # tests of the tree itself, which mirror no file
MADE_BY_TOOLS = re.compile(
    r"(^|/)(__pycache__|\.hypothesis|\.(pytest|ruff|mypy)_cache|node_modules|dist|release|\.venv|\.gradio)/"
    r"|\.(log|pyc|db|sqlite3?|safetensors|gguf|tmp|bak|orig|swp)$|\.egg-info/|(^|/)\.DS_Store$"
)
PLACES = re.compile(r"(?<![\w.~-])/(wor[k]|roo[t]|op[t]|far[m]|tmp/[w]|Users/\w+|home/[a-z]\w*)/")
REGISTRIES = re.compile(r"pypi[.]org|python[h]osted|npmjs[.]|download[.]pytorch|anaconda[.]org|crates[.]io")
NOT_THE_REAL_THING = re.compile(r"(^|_)(example|demo|old|new|copy|backup|prototype|deprecated|unused|v\d)s?(_|$)")


def tracked() -> list[str]:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).exists()]


def sources() -> list[Path]:
    return [ROOT / "app.py", *sorted((ROOT / "studio").rglob("*.py")), *sorted((ROOT / "build").rglob("*.py"))]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_top_level_holds_what_is_listed_here() -> None:
    assert {path.split("/")[0] for path in tracked()} <= TOP


@pytest.mark.spec("C2.1")
def test_nothing_a_tool_made_is_tracked() -> None:
    assert [path for path in tracked() if MADE_BY_TOOLS.search(path)] == []


def test_no_large_file_is_tracked() -> None:
    assert [path for path in tracked() if (ROOT / path).stat().st_size > LARGEST] == []


@pytest.mark.spec("U31.1", "U31.4")
def test_the_package_holds_no_front_end_and_no_fonts_of_its_own() -> None:
    shipped = [ROOT / path for path in tracked() if path.startswith("studio/")]
    assert {path.suffix for path in shipped} <= {".py", ".css", ".csv", ".jsonl", ".md"}
    style = "\n".join(path.read_text(encoding="utf-8") for path in shipped if path.suffix == ".css")
    assert not re.search(r"@import|@font-face|url\(", style)


@pytest.mark.spec("C2.2")
@pytest.mark.parametrize(
    "path",
    [
        "studio/__pycache__/cli.cpython-311.pyc",
        ".pytest_cache/v",
        ".mypy_cache/3.11",
        ".ruff_cache/0",
        ".hypothesis/examples",
        ".gradio/flagged",
        "dist/peft_studio.whl",
        "release/studio.deb",
        ".venv/bin/python",
        "worker.log",
        "studio.db",
        "adapter/adapter_model.safetensors",
        "model.gguf",
    ],
)
def test_git_ignores_what_the_tools_write(path: str) -> None:
    tracked()
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0


def test_git_and_linters_read_the_build_folder() -> None:
    assert "build/constraints.txt" in tracked()
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert "build" not in ruff["exclude"]


def test_no_text_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tracked():
        try:
            lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(lines, 1)
            if PLACES.search(line) or REGISTRIES.search(line)
        ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sources(), ids=short)
def test_a_source_file_opens_with_a_sentence_and_fits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    opening = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    assert opening.endswith((".", "?")), "the file opens with a sentence that says what it is for"
    assert len(text.splitlines()) <= LONGEST


@pytest.mark.spec("C7.1", "C7.2")
def test_tests_mirror_the_sources() -> None:
    """Each test file is the one place for the tests of one source file; journeys and benchmarks cut across."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        place = path.relative_to(ROOT / "tests")
        subject = place.stem.removeprefix("test_")
        if place.parts[0] in ("journeys", "faults", "benchmarks") or (len(place.parts) == 1 and subject in WHOLE_TREE):
            continue
        candidates = [ROOT / "studio" / place.parent / f"{subject}.py", ROOT / "studio" / place.parent / subject]
        if len(place.parts) == 1:
            candidates += [ROOT / f"{subject}.py"]
        if not any(candidate.exists() for candidate in candidates):
            wrong.append(f"{short(path)} mirrors no source file")
    assert not wrong, "\n".join(wrong)


@pytest.mark.spec("C6.2")
def test_every_module_is_used() -> None:
    """A module is imported, started with `-m`, or an entry point."""
    texts = {short(path): path.read_text(encoding="utf-8") for path in sources()}
    used = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    unused = []
    for path in texts:
        module = path.removesuffix(".py").replace("/", ".")
        parent, _, leaf = module.rpartition(".")
        if not path.startswith("studio/") or leaf in ("__init__", "__main__"):
            continue
        others = "\n".join(text for other, text in texts.items() if other != path)
        imported = rf"\b{re.escape(module)}\b|from {re.escape(parent)} import [^#]*?\b{leaf}\b"
        if not re.search(imported, others) and module not in used:
            unused.append(path)
    assert unused == []


@pytest.mark.spec("C6.1")
def test_nothing_stands_beside_the_real_thing() -> None:
    assert [short(path) for path in sources() if NOT_THE_REAL_THING.search(path.stem)] == []


@pytest.mark.spec("C6.1")
def test_no_function_or_class_is_dead() -> None:
    """What a module defines is used somewhere in the product: by its own module, another one, or an entry point."""
    trees = {short(path): ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    uses: dict[str, int] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            for name in names(node):
                uses[name] = uses.get(name, 0) + 1
    dead = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.decorator_list
        and not uses.get(node.name)
        and f":{node.name}" not in pyproject
    ]
    assert not dead, "\n".join(dead)


def names(node: ast.AST) -> list[str]:
    """Return the names a node refers to."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.ImportFrom(names=aliases):
            return [alias.name for alias in aliases]
        case _:
            return []
