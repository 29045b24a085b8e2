"""The first time: from the start page to a sensible training of a real data set, in few clicks and without typing."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.domain.profiles import PROFILES

BANKING = Path(__file__).parents[3] / "shared" / "data" / "banking77" / "train.csv"
MOST = 8  # clicks


@dataclass
class Visitor:
    """Somebody who only clicks; every click is counted, choosing the file as one."""

    page: Any
    clicks: int = 0

    def press(self, name: str) -> None:
        self.clicks += 1
        button = self.page.get_by_role("button", name=name, exact=True, disabled=False)
        button.and_(self.page.locator(":visible")).first.click(timeout=60_000)

    def drop(self, file: Path) -> None:
        self.clicks += 1
        self.page.locator("#drop input[type=file]").set_input_files(str(file))

    def sees(self, text: str, timeout: float = 60_000) -> None:
        self.page.get_by_text(re.compile(text)).and_(self.page.locator(":visible")).first.wait_for(timeout=timeout)

    def map(self, label: str, column: str) -> None:
        """The mapping, which is not counted: what a column means only its owner knows."""
        box = self.page.get_by_role("combobox", name=label)
        if box.input_value() == column:
            return
        box.click()
        self.page.get_by_role("option", name=column, exact=True).click()
        self.page.wait_for_timeout(300)  # the reading begins
        self.page.get_by_text("Reading train.csv").and_(self.page.locator(":visible")).first.wait_for(state="detached")


@pytest.mark.skipif(not BANKING.exists(), reason="The real data set is not beside the project.")
@pytest.mark.timeout(1200)  # a busy machine of two cores trains slowly
def test_a_first_training_takes_few_clicks_and_no_typing(server, browser):
    visitor = Visitor(browser.open(server.address))
    visitor.sees("Teach a model your own examples")
    visitor.press("Add your data")
    visitor.drop(BANKING)
    visitor.sees("What the model will learn from")
    visitor.map("Question", "text")
    visitor.map("Answer", "category")
    visitor.press("Train on this data")
    visitor.sees("Ready to start")
    visitor.sees("Sort and extract. The answers repeat: 7[0-7] short answers")
    visitor.press("Start training")
    visitor.sees("train, run 1", 120_000)
    visitor.sees(r"step [1-9]\d* of", 600_000)
    assert visitor.clicks <= MOST

    # sensible: made for labels, every value settled, and the loss is that of a model that already knows the language
    config = yaml.safe_load((server.home / "runs" / "train-1" / "config.yaml").read_text(encoding="utf-8"))
    assert config["profile"] == "classification"
    assert config["train"]["epochs"] == PROFILES["classification"].times["train.epochs"][0]
    assert config["train"]["learning_rate"] == 1e-3 * PROFILES["classification"].times["train.learning_rate"][0]
    assert config["evaluate"]["early_stopping"] > 0
    assert browser.left == []
    assert browser.complaints == []
