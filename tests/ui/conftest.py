"""A page on a home folder of its own, handlers found by what a user presses, and a browser."""

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.storage.paths import Home
from studio.studio import Studio
from studio.ui.common import Shell, Tab

TERM = re.compile(r"<dfn><button[^>]*>(.*?)</button></dfn><span popover.*?</span>", re.DOTALL)
TABS = ("home", "data", "train", "runs", "adapters", "chat", "settings")


@pytest.fixture
def studio(home: Home) -> Studio:
    return Studio()


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """A table of three columns whose names say nothing."""
    path = tmp_path / "tickets.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["nr", "they_wrote", "we_said"])
        table.writerows([i, f"Where is parcel {i}?", f"Parcel {i} is at the depot."] for i in range(40))
    return path


def unexplained(text: str) -> str:
    """Return HTML as it reads before a term is pressed."""
    return TERM.sub(r"\1", text)


class Page:
    """One tab built on its own. Handlers are called as the page calls them; what they return is kept by component."""

    def __init__(self, studio: Studio, build: Callable[[Studio, Shell], Tab], name: str) -> None:
        with gr.Blocks() as self.demo:
            items = {each: gr.State("") for each in TABS}
            with gr.Tabs() as tabs:
                self.shell = Shell(tabs, items)
                with gr.Tab(name):
                    self.tab = build(studio, self.shell)
        self.name = name
        self.item = items[name]
        self.values: dict[Any, Any] = {block: getattr(block, "value", None) for block in self.demo.blocks.values()}
        self.states: list[dict[str, Any]] = []  # what each update said, in order

    def find(self, label: str) -> Any:
        """Return the component with this label or, for a button, this text."""
        for block in self.demo.blocks.values():
            if label in (getattr(block, "label", None), getattr(block, "value", None)):
                return block
        raise LookupError(label)

    def refresh(self, item: str = "") -> None:
        self.values[self.item] = item
        self._take(self.tab.refresh(item, *[self.values[each] for each in self.tab.inputs]), list(self.tab.outputs))

    def press(self, label: str, event: str = "click", value: Any = None) -> None:
        """Do what the page does when a control is used; `value` is what the user set it to."""
        component = self.find(label)
        if value is not None:
            self.values[component] = value
        for handler in self.demo.fns.values():
            if (component._id, event) in handler.targets and handler.fn:
                inputs = [self.values[each] for each in handler.inputs]
                result = handler.fn(*inputs)
                for each in result if hasattr(result, "__next__") else [result]:
                    self._take(each, handler.outputs)

    def row(self, label: str) -> Any:
        """Return the row of a knob, whose last child is its reason."""
        control = self.find(label)
        rows = [block for block in self.demo.blocks.values() if "knob" in str(getattr(block, "elem_classes", ""))]
        return next(row for row in rows if control in [row.children[0], *getattr(row.children[0], "children", [])])

    def pick(self, label: str, id: str) -> None:
        """Choose a row of the list with this label."""
        marked = f'aria-label="{label}"'
        self.take(next(each for each, value in self.values.items() if marked in str(value)), id)

    def take(self, component: Any, id: str) -> None:
        """Press what carries this id inside a block of choices."""
        event = gr.SelectData(None, {"index": id, "value": id})
        for handler in self.demo.fns.values():
            if (component._id, "select") in handler.targets and handler.fn:
                result = handler.fn(event, *[self.values[each] for each in handler.inputs])
                for each in result if hasattr(result, "__next__") else [result]:
                    self._take(each, handler.outputs)

    def _take(self, result: Any, outputs: list[Any]) -> None:
        if not isinstance(result, dict) or "__type__" in result:
            result = dict(zip(outputs, result if len(outputs) > 1 else [result], strict=True))
        assert set(result) <= set(outputs)
        said = {}
        for component, value in result.items():
            if isinstance(value, dict) and value.get("__type__") == "update":
                said[component] = value
                if "value" in value:
                    self.values[component] = value["value"]
            elif isinstance(value, gr.blocks.Block):
                said[component] = dict(value.constructor_args)
                if "value" in value.constructor_args:
                    self.values[component] = value.constructor_args["value"]
            else:
                self.values[component] = value
                said[component] = {"value": value}
        self.states.append(said)

    def seen(self) -> str:
        """Return all text that stands in HTML pieces now, its terms not explained."""
        texts = [value for block, value in self.values.items() if isinstance(block, gr.HTML) and value]
        return unexplained("\n".join(map(str, texts)))

    def was(self, label: str, key: str) -> Any:
        """Return the last thing said about a component's property."""
        component = self.find(label)
        return next(said[component][key] for said in reversed(self.states) if key in said.get(component, {}))


@pytest.fixture
def page(studio: Studio) -> Callable[..., Page]:
    return lambda build, name: Page(studio, build, name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: the system's, else Playwright's own."""
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=30_000)  # a busy machine is not a failure
    with sync_api.sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except sync_api.Error as error:
            pytest.skip(f"no browser here: {error}")
        yield opened
        opened.close()
