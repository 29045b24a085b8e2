"""Start-up and idle memory of the studio beside a stock Gradio hello-world: `python -m tests.benchmarks.startup`.

Both are started in turn, each on a port of its own, and timed from the start of the process to the first whole page
(HTTP 200 of `/`, which holds the page's configuration). Then the studio's memory is read idle, after every tab was
opened once in a headless Chromium, and after a small model has been trained by an engine of its own, with Runs open.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
STUDIO = [sys.executable, "-m", "studio.cli", "ui", "--no-browser", "--port"]
HELLO = """
import sys, gradio as gr
gr.Interface(lambda name: f"Hello {name}", "text", "text").launch(server_port=int(sys.argv[1]))
"""
STOCK = [sys.executable, "-c", HELLO]
GOALS = {"ratio": 1.0, "idle_mb": 170, "all_tabs_mb": 200, "idle_cpu_percent": 1}
SETTLE = 3  # seconds until memory is read
IDLE = 60  # seconds over which the idle load is taken


@contextmanager
def started(command: list[str]) -> Iterator[tuple[str, psutil.Process, float]]:
    """Start a server; yield its address, its process and the seconds until its first page was there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {
            "PEFT_STUDIO_HOME": home,
            "PYTHONPATH": str(ROOT),
            "GRADIO_ANALYTICS_ENABLED": "False",  # no request to elsewhere in either
            "GRADIO_TEMP_DIR": home,
        }
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home}
        began = time.perf_counter()
        child = subprocess.Popen([*command, str(port)], env=environment, **quiet)  # type: ignore[call-overload]
        try:
            address = f"http://127.0.0.1:{port}/"
            while not _page(address):
                if child.poll() is not None:
                    raise SystemExit(f"{command[1:3]} ended with code {child.returncode}")
                time.sleep(0.01)
            yield address, psutil.Process(child.pid), time.perf_counter() - began
        finally:
            child.terminate()
            child.wait()


def _page(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return b"gradio_config" in answer.read()
    except OSError:
        return False


def seconds(command: list[str]) -> tuple[float, float]:
    """Return wall and processor seconds to the first page."""
    with started(command) as (_, process, wall):
        spent = process.cpu_times()
        return wall, spent.user + spent.system


def train(home: str) -> None:
    """Train a model of two layers to the end in an engine, which the studio of this home folder watches."""
    from tests.engine.conftest import make_model

    rows = "".join(f"Is {number} even?,{'Yes' if number % 2 == 0 else 'No'}.\n" for number in range(60))
    data = Path(home, "rows.csv")
    data.write_text("question,answer\n" + rows)
    model = str(make_model(Path(home, "tiny")))
    command = [sys.executable, "-m", "studio.cli", "train", "--model", model, "--dataset", str(data), "--json"]
    environment = os.environ | {"PEFT_STUDIO_HOME": home, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--max-steps", "20"], env=environment, cwd=home, check=True, capture_output=True)


def at_rest() -> dict[str, float]:
    """Return the studio's memory and load: with no page open, after each tab was opened once, and after a run."""
    from playwright.sync_api import sync_playwright

    with started(STUDIO) as (address, process, _):
        home = process.cwd()
        time.sleep(SETTLE)
        idle = process.memory_info().rss / 1e6
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
            page = browser.new_page()
            page.goto(address)
            buttons = page.locator("#shell > .tab-wrapper [role=tablist] button[role=tab]")
            buttons.first.wait_for()
            for number in range(buttons.count()):
                buttons.nth(number).click()
                page.locator("h1:visible").wait_for()
                page.wait_for_timeout(1000)
            page.close()
            time.sleep(SETTLE)
            found = {"idle_mb": idle, "all_tabs_mb": process.memory_info().rss / 1e6}
            found["idle_cpu_percent"] = process.cpu_percent(IDLE)
            train(home)
            page = browser.new_page()
            page.goto(f"{address}?view=runs")
            page.locator("em:visible", has_text="Finished").first.wait_for()
            time.sleep(SETTLE)
            found["after_run_cpu_percent"] = process.cpu_percent(IDLE)
            found["after_run_mb"] = process.memory_info().rss / 1e6
            browser.close()
        return found


def measure(rounds: int) -> dict[str, Any]:
    """Start both in turn and return the figures."""
    taken: dict[str, list[tuple[float, float]]] = {"studio": [], "stock": []}
    for number in range(rounds + 1):  # the first warms the disk's cache and is not counted
        for name, command in (("studio", STUDIO), ("stock", STOCK)):
            figures = seconds(command)
            print(f"round {number}  {name:6}  {figures[0]:5.2f} s, {figures[1]:5.2f} s of processor", file=sys.stderr)
            if number:
                taken[name].append(figures)
    wall = {name: median(each[0] for each in figures) for name, figures in taken.items()}
    spent = {name: median(each[1] for each in figures) for name, figures in taken.items()}
    return {
        "studio_s": round(wall["studio"], 2),
        "stock_s": round(wall["stock"], 2),
        "ratio": round(wall["studio"] / wall["stock"], 2),
        "processor_ratio": round(spent["studio"] / spent["stock"], 2),
        **{name: round(value, 2) for name, value in at_rest().items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up and idle memory of the studio.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found | {"goals": GOALS}))
        return
    print(f"First page: studio {found['studio_s']} s, stock Gradio {found['stock_s']} s (medians of {options.rounds})")
    print(f"Ratio: {found['ratio']} (goal: at most {GOALS['ratio']}); of processor time: {found['processor_ratio']}")
    print(f"Memory: {found['idle_mb']:.0f} MB idle (goal: at most {GOALS['idle_mb']}), ", end="")
    print(f"{found['all_tabs_mb']:.0f} MB after every tab was opened (goal: under {GOALS['all_tabs_mb']})")
    print(f"Load at rest: {found['idle_cpu_percent']} % of a processor (goal: under {GOALS['idle_cpu_percent']})")
    print(f"After a run, Runs open: {found['after_run_cpu_percent']} %, {found['after_run_mb']} MB")


if __name__ == "__main__":
    main()
