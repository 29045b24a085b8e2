"""The chat job: requests in and answers out as JSON lines; ends when its input closes or nobody asks for a while."""

import json
import math
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from studio.domain.errors import StudioError

IDLE_SECONDS = 300.0


def serve(folder: Path) -> None:
    """Load the base in `folder`, then answer until told to exit."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not garble the protocol

    def say(**message: Any) -> None:
        out.write(json.dumps(message, ensure_ascii=False) + "\n")

    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
    stopped = [-1.0]  # answers up to this number are to end; a stop may come before its answer has begun
    threading.Thread(target=_listen, args=(requests, stopped), daemon=True).start()
    begin = time.monotonic()
    say(type="phase", words=f"Loading {folder.name}")
    try:
        from studio.engine import models  # after the first word: importing torch takes seconds
        from studio.engine.generate import Pipeline

        pipeline = Pipeline(folder)
    except StudioError as error:
        say(type="error", id=None, message=error.message, hint=error.hint)
        return
    say(type="ready", seconds=round(time.monotonic() - begin, 2), memory_bytes=models.memory_bytes(pipeline.device))
    while True:
        try:
            request = requests.get(timeout=float(os.environ.get("PEFT_STUDIO_IDLE_SECONDS", IDLE_SECONDS)))
        except queue.Empty:
            return
        if request is None or request.get("do") == "exit":
            return
        try:
            _answer(pipeline, request, stopped, say)
        except StudioError as error:
            say(type="error", id=request.get("id"), message=error.message, hint=error.hint)


def _listen(requests: "queue.Queue[dict[str, Any] | None]", stopped: list[float]) -> None:
    latest = -1
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("do") == "stop":
            stopped[0] = latest
        else:
            latest = request.get("id", latest)
            requests.put(request)
    stopped[0] = math.inf
    requests.put(None)


def _answer(pipeline: Any, request: dict[str, Any], stopped: list[float], say: Any) -> None:
    number, adapter = request["id"], request.get("adapter")
    swap = pipeline.select(Path(adapter) if adapter else None)
    text = ""
    for piece in pipeline.answer(
        request["messages"],
        room=int(request.get("max_new_tokens", 256)),
        temperature=float(request.get("temperature", 0.7)),
        top_p=float(request.get("top_p", 0.95)),
        seed=request.get("seed"),
        stopped=lambda: number <= stopped[0],
    ):
        if isinstance(piece, str):
            text += piece
            say(type="token", id=number, text=piece)
        else:
            say(type="done", id=number, text=text, swap_seconds=round(swap, 4), **piece)
