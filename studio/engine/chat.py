"""The chat job: a base in memory, asked with or without an adapter."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studio.engine import serving


def run(folder: Path) -> None:
    """Load the base in `folder`, then answer until told to exit."""
    serving.serve(folder, f"Loading {folder.name}", _load)


def _load(folder: Path) -> tuple[serving.Answer, serving.Message]:
    from studio.engine import memory, models  # after the first word: importing torch takes seconds
    from studio.engine.generate import Pipeline

    device = models.pick_device("auto")
    held = models.fitting(folder, models.pick_dtype("auto", device), memory.free_bytes(device))
    pipeline = Pipeline(folder, held)

    def answer(request: serving.Message, stopped: Callable[[], bool]) -> Iterator[serving.Message]:
        yield from _answer(pipeline, request, stopped)

    return answer, {"memory_bytes": models.memory_bytes(pipeline.device), "quantization": held}


def _answer(pipeline: Any, request: serving.Message, stopped: Callable[[], bool]) -> Iterator[serving.Message]:
    lanes = request["lanes"]
    texts = [""] * len(lanes)
    figures: dict[str, Any] = {}
    for lane, piece in pipeline.answers(
        [Path(each["adapter"]) if each.get("adapter") else None for each in lanes],
        [each["messages"] for each in lanes],
        room=int(request.get("max_new_tokens", 256)),
        temperature=float(request.get("temperature", 0.7)),
        top_p=float(request.get("top_p", 0.95)),
        seed=request.get("seed"),
        stop=request.get("stop") or (),
        stopped=stopped,
    ):
        if isinstance(piece, str):
            texts[lane] += piece
            yield {"type": "token", "lane": lane, "text": piece}
        else:
            figures = piece
            yield {"type": "answer", "lane": lane, "text": texts[lane], **piece}
    yield {"type": "done", "memory_bytes": figures.get("memory_bytes")}
