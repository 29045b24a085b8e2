"""A job that serves: requests in, answers out as JSON lines; ends when its input closes or nobody asks for long."""

import json
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from studio.domain.errors import StudioError

IDLE_SECONDS = 300.0
Message = dict[str, Any]
Answer = Callable[[Message, Callable[[], bool]], Iterator[Message]]  # a request, whether to stop → lines


def serve(folder: Path, words: str, load: Callable[[Path], tuple[Answer, Message]]) -> None:
    """Load what is in `folder` while `words` say so, then answer until told to exit.

    `load` returns what answers, and facts for the line that says it is ready.
    """
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not garble the protocol

    def say(**message: Any) -> None:
        out.write(json.dumps(message, ensure_ascii=False) + "\n")

    requests: queue.Queue[Message | None] = queue.Queue()
    stopped = [-1.0]  # answers up to this number are to end; a stop may come before its answer has begun
    threading.Thread(target=_listen, args=(requests, stopped), daemon=True).start()
    begin = time.monotonic()
    say(type="phase", words=words)
    try:
        answer, facts = load(folder)
    except StudioError as error:
        say(type="error", id=None, **_told(error))
        return
    say(type="ready", seconds=round(time.monotonic() - begin, 2), **facts)
    while True:
        try:
            request = requests.get(timeout=float(os.environ.get("PEFT_STUDIO_IDLE_SECONDS", IDLE_SECONDS)))
        except queue.Empty:
            return
        if request is None or request.get("do") == "exit":
            return
        number = int(request["id"])
        try:
            for message in answer(request, partial(_over, number, stopped)):
                say(id=number, **message)
        except StudioError as error:
            say(type="error", id=number, **_told(error))


def _told(error: StudioError) -> Message:
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}


def _over(number: int, stopped: list[float]) -> bool:
    return number <= stopped[0]


def _listen(requests: "queue.Queue[Message | None]", stopped: list[float]) -> None:
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
