"""The straight line in a real browser: a data file becomes an adapter that one chats with."""

import csv
import json
import re
from pathlib import Path

import psutil
import pytest

STEPS = 20
TOPICS = ["Delivery", "Refund", "Payment", "Fault", "Order"]


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """A file of three columns whose names say nothing, the answers before the questions."""
    file = tmp_path / "tickets.csv"
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["nr", "went out", "came in"])
        for i in range(60):
            topic = TOPICS[i % len(TOPICS)]
            question = f"Case {i}: I have a question about my {topic.lower()}."
            writer.writerow([i + 1, f"Topic: {topic} | Priority: low", question])
    return file


def shown(page, text: str, timeout: float = 30_000) -> None:
    page.get_by_text(re.compile(text)).and_(page.locator(":visible")).first.wait_for(timeout=timeout)


def choose(page, label: str, option: str) -> None:
    """Pick a column, and wait until the file was read with it."""
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(300)  # the reading begins
    page.get_by_text("Reading tickets.csv").and_(page.locator(":visible")).first.wait_for(state="detached")


def answers(page) -> list[str]:
    return page.locator(".said li:not(.user) p:visible").all_inner_texts()


def ask(page, question: str, wanted: int) -> None:
    """Send a message and wait until so many answers stand there complete."""
    page.get_by_label("Message").fill(question)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "n => document.querySelectorAll('.said li:not(.user) .role').length === n", arg=wanted, timeout=180_000
    )
    page.get_by_role("button", name="Send").wait_for(timeout=180_000)


@pytest.mark.timeout(1800)  # a busy machine of two cores trains slowly
def test_a_data_file_becomes_an_adapter_one_chats_with(server, browser, tickets):
    page = browser.open(server.address)
    shown(page, "Teach a model your own examples")

    # data: three columns, mapped by hand, with a preview
    page.get_by_role("button", name="Add your data").click()
    page.locator("#drop input[type=file]").set_input_files(str(tickets))
    shown(page, "What the model will learn from", 60_000)
    choose(page, "Question", "came in")
    choose(page, "Answer", "went out")
    page.locator("mark", has_text="Topic: Delivery | Priority: low").wait_for()
    shown(page, r"Case 0: I have a question about my delivery\.")
    page.get_by_role("button", name="Train on this data", disabled=False).click()

    # train: the step limit is set in the form
    shown(page, "Ready to start", 60_000)
    page.get_by_role("button", name="Back").click()
    page.get_by_role("button", name=re.compile("^How it learns")).click()
    page.wait_for_timeout(2000)  # the values are still being recommended
    page.get_by_label("Step limit").fill(str(STEPS))
    page.keyboard.press("Enter")
    shown(page, f"step limit {STEPS}")
    page.get_by_role("button", name="Review").click()
    page.locator(".facts:visible div", has_text="Steps").get_by_text(str(STEPS), exact=True).wait_for()
    page.get_by_role("button", name="Start training").click()

    # the run, live: the chart moves
    shown(page, "tickets, run 1", 120_000)
    shown(page, rf"step [1-9]\d* of {STEPS}", 300_000)
    chart = page.locator("figure svg.desk[aria-label^=Loss]")
    first = chart.get_attribute("aria-label")
    page.wait_for_function(
        "before => document.querySelector('figure svg.desk[aria-label^=Loss]').getAttribute('aria-label') !== before",
        arg=first,
        timeout=300_000,
    )
    address = page.url
    assert "run=tickets-1" in address

    # paused: the engine and its memory are gone; resumed: it goes on from there
    engine = json.loads((server.home / "runs" / "tickets-1" / "process.json").read_text())["pid"]
    page.get_by_role("button", name="Pause").click()
    shown(page, r"Paused at step [1-9]\d*\.", 60_000)
    shown(page, "Memory is free: it held")
    page.wait_for_timeout(1000)
    assert not psutil.pid_exists(engine)
    page.get_by_role("button", name="Resume").click()
    shown(page, rf"step [1-9]\d* of {STEPS}, .* so far", 120_000)

    # closed and opened again mid-run: the same run goes on, from its files
    page.close()
    page = browser.open(address)
    shown(page, "tickets, run 1")
    page.locator("figure svg.desk[aria-label^=Loss]").wait_for(timeout=60_000)
    shown(page, "Finished", 900_000)
    shown(page, "Did it get better")
    page.locator("figure svg.desk text", has_text="resumed").wait_for(state="attached")
    shown(page, "Answers at each checkpoint")
    page.get_by_text(re.compile("Better|Not better|Mixed|Worse")).first.wait_for()

    # chat with it, then the base, then it again
    page.get_by_role("button", name="Chat with it").click()
    page.get_by_text("tickets v1").and_(page.locator(".lane-head b")).wait_for()
    ask(page, "I have a question about my refund.", 1)
    first_answer = answers(page)
    assert first_answer[0].strip()
    shown(page, r"tokens/s")
    shown(page, "SmolLM2-135M-Instruct is in memory")
    page.get_by_role("combobox", name="Who answers").click()
    page.get_by_role("option", name=re.compile("no adapter")).click()
    page.keyboard.press("Escape")
    ask(page, "And about my order?", 3)
    heads = page.locator(".lane-head:visible").all_inner_texts()
    assert [head.split("\n")[0] for head in heads] == ["tickets v1", "SmolLM2-135M-Instruct (no adapter)"]
    assert "swap" in heads[1]
    ask(page, "Thank you.", 5)
    assert "swap" in page.locator(".lane-head:visible").first.inner_text()

    assert browser.left == []
    assert browser.complaints == []
