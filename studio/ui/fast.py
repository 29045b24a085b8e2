"""Import Gradio in about half its time and memory: no stub files written, pandas left until it is asked for."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import version
from types import ModuleType
from typing import Any

# (major, minor) this was tried with: first, and first not
TRIED = ((6, 22), (6, 40))
STUBS = "gradio.component_meta"  # writes a .pyi file beside every module that makes a component


class Later(ModuleType):
    """Stands in for a module until something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


class NoStubs(SourceFileLoader):
    """Loads the stub writer switched off."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


class Finder:
    """Finds the stub writer, and leaves every other module to the next finder."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == STUBS else None
        if spec and spec.origin:
            spec.loader = NoStubs(name, spec.origin)
        return spec


def import_gradio() -> bool:
    """Import gradio, quickly where this release was tried; return whether the short way was taken."""
    # Gradio sums up all its events in a pandas table after each one, for a dashboard that is off here.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    release = tuple(int(part) for part in version("gradio").split(".")[:2])
    quick = TRIED[0] <= release < TRIED[1] and "gradio" not in sys.modules
    finder, pandas = Finder(), Later("pandas")
    if quick:
        sys.meta_path.insert(0, finder)
        sys.modules.setdefault("pandas", pandas)
    try:
        import gradio  # noqa: F401
    finally:
        if quick:
            sys.meta_path.remove(finder)
        if sys.modules.get("pandas") is pandas:  # whoever imports it from now on gets the real one
            del sys.modules["pandas"]
    return quick
