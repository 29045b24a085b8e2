"""The published functions: what scripts may call through Gradio's client. Every other event is private to the page."""

from typing import Any

import gradio as gr

from studio.domain.document import from_document
from studio.services import apart
from studio.services.chat import Done
from studio.services.check import Check
from studio.studio import Studio

FILES = {"path"}  # left out: Gradio's client takes a record with this key for a file, and asks for it


def publish(studio: Studio) -> None:
    """Add the published functions to the page being built."""

    def list_datasets() -> list[dict[str, Any]]:
        """List the data sets, the newest first."""
        return [dataset.model_dump(exclude=FILES) for dataset in studio.datasets.list()]

    def list_runs() -> list[dict[str, Any]]:
        """List the training runs, the newest first."""
        return [run.model_dump(mode="json", exclude=FILES) for run in studio.runs.list()]

    def list_adapters() -> list[dict[str, Any]]:
        """List the versions of all adapters."""
        return [adapter.model_dump(exclude=FILES) | {"ref": adapter.ref} for adapter in studio.adapters.list()]

    def check_data(path: str, columns: dict[str, str] | None = None) -> dict[str, Any]:
        """Check a data file on the studio's machine; `columns` maps prompt, response, system or text to a column."""
        found = next(each for each in apart.check(studio.home, path, map=columns) if isinstance(each, Check))
        return found.model_dump()

    def start_training(settings: dict[str, Any]) -> dict[str, Any]:
        """Start a run with a settings document, or queue it; `model.id` and `data.path` are all it needs."""
        run = studio.runs.prepare(from_document(settings))
        return studio.queue.submit(run.id).model_dump(mode="json", exclude=FILES)

    def stop_run(run: str) -> dict[str, Any]:
        """End a run at its next step; the adapter so far is kept."""
        return studio.runs.stop(run).model_dump(mode="json", exclude=FILES)

    def chat(message: str, adapter: str = "", model: str = "", max_new_tokens: int = 256) -> str:
        """Answer one message, with an adapter such as `support-desk@v2`, or with a base model alone."""
        asked = [{"role": "user", "content": message}]
        answer = studio.chat.answer(model or None, adapter or None, asked, max_new_tokens=max_new_tokens)
        return next(each.text for each in answer if isinstance(each, Done))

    for function in (list_datasets, list_runs, list_adapters, check_data, start_training, stop_run):
        gr.api(function, api_name=function.__name__)
    gr.api(chat, api_name="chat", concurrency_id="chat", concurrency_limit=1)
