"""The layers: who may import whom, what stays out of the control plane, and who builds the services."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# domain ← storage, connectors ← services ← ui, cli · domain ← engine; `studio` is the module that builds the services
MAY_IMPORT = {
    "domain": {"domain"},
    "storage": {"storage", "domain"},
    "connectors": {"connectors", "domain"},
    "services": {"services", "storage", "connectors", "domain"},
    "engine": {"engine", "domain"},
    "studio": {"services", "storage", "connectors", "domain"},
    "ui": {"ui", "studio", "services", "domain"},
    "cli": {"commands", "studio", "services", "ui", "domain"},
    "commands": {"commands", "studio", "services", "ui", "domain"},
    "app": {"cli", "ui", "studio"},
}
# pure helpers for names and places below the home folder; the store itself is for services
EVERYWHERE = {"studio", "studio.storage.paths"}
LEARNING = {"torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "trl", "lm_eval"}
SERVICES = {"Store", "Machine", "Models", "Datasets", "Runs", "Adapters", "Chat", "Evaluate", "Meter"}
SERVICES |= {"Conversations", "Notify", "Inspect", "Estimates", "Power", "Programs", "Vllm"}
BUILDERS = {
    "studio.studio",
    "studio.services.apart",  # the main of a child process, which has no Studio of its own
}


def sources() -> dict[str, ast.Module]:
    paths = [ROOT / "app.py", *sorted((ROOT / "studio").rglob("*.py"))]
    return {name(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(module: str) -> str:
    """Return the part of the tree a module belongs to: the second word, or `app` for app.py and the package itself."""
    return module.split(".")[1] if "." in module else "app"


def imports(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Yield every module imported anywhere in the tree, also inside functions and by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                inner = {f"{module}.{alias.name}" for alias in node.names}
                yield from (inner & modules) or {module}
            case ast.ImportFrom():
                yield "relative import"
            case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]):
                if ast.unparse(function) in ("import_module", "importlib.import_module", "__import__"):
                    yield module


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    trees = sources()
    return {module: set(imports(tree, set(trees))) for module, tree in trees.items()}


def test_imports_follow_the_arrows(imported: dict[str, set[str]]) -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imported.items()
        for other in sorted(others)
        if other == "relative import"
        or (
            other.split(".")[0] == "studio"
            and other not in EVERYWHERE
            and layer(other) not in MAY_IMPORT.get(layer(module), set())
        )
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.spec("U14.3", "U36.1")
def test_learning_libraries_are_imported_in_the_engine_only(imported: dict[str, set[str]]) -> None:
    wrong = {
        module: heavy
        for module, others in imported.items()
        if layer(module) != "engine" and (heavy := {other.split(".")[0] for other in others} & LEARNING)
    }
    assert not wrong


def test_gradio_is_imported_in_the_page_only(imported: dict[str, set[str]]) -> None:
    users = {module for module, others in imported.items() if "gradio" in {o.split(".")[0] for o in others}}
    assert {layer(module) for module in users} <= {"ui", "app"}


def test_only_the_studio_builds_services() -> None:
    wrong = [
        f"{module}:{node.lineno} builds {node.func.id}"
        for module, tree in sources().items()
        if module not in BUILDERS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SERVICES
    ]
    assert not wrong, "\n".join(wrong)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a new Python has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_command_line_loads_neither_page_nor_data_readers() -> None:
    loaded = loaded_by("import studio.cli")
    assert "typer" in loaded
    assert not loaded & (LEARNING | {"gradio", "pyarrow", "pandas", "huggingface_hub"})


@pytest.mark.spec("U14.3", "U30.2", "U36.1")
def test_the_page_loads_no_learning_library() -> None:
    loaded = loaded_by("import studio.ui.app")
    assert "gradio" in loaded
    assert not loaded & LEARNING
