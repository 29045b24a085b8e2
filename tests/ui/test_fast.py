"""Gradio comes in the short way, and the long way still works. Each case needs an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from studio.ui import fast

BEGIN = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("fast", {fast.__file__!r})
fast = importlib.util.module_from_spec(spec); spec.loader.exec_module(fast)
finders = list(sys.meta_path)
"""
COMPONENT = """
import gradio as gr
class Mine(gr.Textbox):
    EVENTS = list(gr.Textbox.EVENTS)
"""


def run(code: str, folder: Path) -> None:
    (folder / "component.py").write_text(COMPONENT, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", BEGIN + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_short_way(tmp_path: Path) -> None:
    code = """
assert fast.import_gradio() is True
assert "pandas.core" not in sys.modules and "pyarrow" not in sys.modules
assert sys.meta_path == finders and "pandas" not in sys.modules, "everything is as it was"
import component
import pandas
assert pandas.DataFrame({"a": [1]}).a.sum() == 1, "whoever wants pandas gets the real one"
import gradio.caching
assert gradio.caching.pd.DataFrame is pandas.DataFrame
"""
    run(code, tmp_path)
    assert not list(tmp_path.glob("*.pyi"))


def test_a_release_that_was_not_tried_is_imported_plainly(tmp_path: Path) -> None:
    code = """
fast.TRIED = ((0, 0), (0, 1))
assert fast.import_gradio() is False
import component, gradio as gr
assert "pandas.core" in sys.modules and gr.Textbox("x").value == "x"
"""
    run(code, tmp_path)
    assert list(tmp_path.glob("*.pyi")), "the stub writer ran, so the test above can fail"


@pytest.mark.spec("U36.1")
def test_the_page_loads_no_library_of_the_engine(tmp_path: Path) -> None:
    code = f"""
import os
os.environ["PEFT_STUDIO_HOME"] = {str(tmp_path / "home")!r}
from studio.studio import Studio
from studio.ui.app import create
create(Studio())
heavy = {{"torch", "transformers", "peft", "datasets", "trl", "accelerate", "bitsandbytes", "pyarrow", "pandas"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
