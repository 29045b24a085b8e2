"""The endpoint for programs: OpenAI's models and chat completions, served beside the page to whoever has the key."""

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.domain.completions import ChatRequest, Document, Refused, chunk, completion, failure, usage
from studio.domain.errors import StudioError
from studio.services.chat import Done, Token
from studio.services.programs import Busy, Programs, Voice

log = logging.getLogger(__name__)
PLACE = "/v1/"
LIMIT = 4 * 10**6  # bytes of a body: more text than any model here reads
WAITING = 16  # programs that wait for an answer; the next is told to come back
HEADERS = {"cache-control": "no-store"}
Reading = AbstractAsyncContextManager[AsyncGenerator[Token | Done]]


class Gone(Exception):
    """The program hung up."""


class Endpoint:
    """Answers what is asked below /v1/, and leaves the rest to the page."""

    def __init__(self, app: ASGIApp, programs: Programs) -> None:
        self.app, self.programs = app, programs
        self.readers = Readers()
        self.routes = Starlette(
            routes=[
                Route(PLACE + "models", self.models),
                Route(PLACE + "models/{name:path}", self.model),
                Route(PLACE + "chat/completions", self.complete, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http, StudioError: _known, Exception: _unknown},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PLACE):
            return await self.app(scope, receive, send)
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            self.programs.admit(key.strip() if kind.lower() == "bearer" else "")
        except Refused as error:
            return await _refusal(error)(scope, receive, send)
        await self.routes(scope, receive, send)

    def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_listed(voice) for voice in self.programs.voices()]})

    def model(self, request: Request) -> Response:
        return JSONResponse(_listed(self.programs.find(request.path_params["name"])))

    async def complete(self, request: Request) -> ASGIApp:
        asked = ChatRequest.read(await _body(request))
        voice = await to_thread.run_sync(self.programs.find, asked.model)
        if len(self.readers.tasks) > WAITING:
            raise Busy(f"{WAITING} others wait for an answer.")
        return Completion(asked, voice, self.readers.read(self.programs.answer(voice, asked), request.receive))


class Completion:
    """An answer on its way, whole or streamed. It begins with the first word: what fails before has a status."""

    def __init__(self, asked: ChatRequest, voice: Voice, reading: Reading) -> None:
        self.asked, self.reading = asked, reading
        self.facts = f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), voice.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self.reading as pieces, aclosing(pieces):
                if self.asked.stream:
                    await self._stream(pieces, send)
                else:
                    async for piece in pieces:
                        if isinstance(piece, Done):
                            whole = completion(*self.facts, piece.text, piece.finish, _used(piece))
                    await JSONResponse(whole, headers=HEADERS)(scope, receive, send)
        except Gone:
            log.info("A program hung up before its answer was complete.")

    async def _stream(self, pieces: AsyncGenerator[Token | Done], send: Send) -> None:
        options = self.asked.stream_options
        counted = options is not None and options.include_usage
        unknown: Document = {"usage": None} if counted else {}  # until the last piece
        first = await anext(pieces)
        kind = b"text/event-stream; charset=utf-8"
        headers = [(b"content-type", kind), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def tell(document: Document | str, more: bool = True) -> None:
            text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
            await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": more})

        async def say(piece: Token | Done) -> None:
            if isinstance(piece, Token):
                return await tell(chunk(*self.facts, {"content": piece.text}, **unknown))
            await tell(chunk(*self.facts, {}, piece.finish, **unknown))
            if counted:
                await tell(chunk(*self.facts, None, usage=_used(piece)))

        await tell(chunk(*self.facts, {"role": "assistant", "content": ""}, **unknown))
        try:
            await say(first)
            async for piece in pieces:
                await say(piece)
        except StudioError as error:  # too late for a status
            return await tell(failure(str(error), 500), more=False)
        await tell("[DONE]", more=False)


class Readers:
    """The threads that read answers: one at a time, the others wait without a thread."""

    def __init__(self) -> None:
        self.turn = CapacityLimiter(1)
        self.tasks: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def read(
        self, answer: Generator[Token | Done], receive: Receive
    ) -> AsyncIterator[AsyncGenerator[Token | Done]]:
        """Read an answer, and yield its pieces. When the program hangs up, or we leave, the answer stops."""
        loop, found, gone = asyncio.get_running_loop(), asyncio.Queue[Token | Done | None](), threading.Event()

        def read() -> None:
            if gone.is_set():  # while it waited for its turn
                return
            with closing(answer):
                for piece in answer:
                    if gone.is_set():
                        return
                    loop.call_soon_threadsafe(found.put_nowait, piece)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def pieces() -> AsyncGenerator[Token | Done]:
            while (piece := await found.get()) is not None:
                yield piece
            if not reader.done():
                raise Gone
            await reader  # raises what went wrong

        reader = asyncio.ensure_future(to_thread.run_sync(read, limiter=self.turn))
        watcher = asyncio.ensure_future(watch())
        for task in (reader, watcher):
            task.add_done_callback(lambda _: found.put_nowait(None))
        self.tasks.add(reader)
        reader.add_done_callback(self._forget)
        try:
            yield pieces()
        finally:
            # The thread is told, not given up: the next one waits until it has stopped the engine.
            gone.set()
            watcher.cancel()

    def _forget(self, reader: asyncio.Future[None]) -> None:
        self.tasks.discard(reader)
        if not reader.cancelled():
            reader.exception()  # perhaps nobody is left to hear it


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LIMIT:
            raise Refused(f"The request is larger than {LIMIT:,} bytes.", "Shorten it.", status=413)
    return bytes(body)


def _used(done: Done) -> Document:
    return usage(done.prompt_tokens, done.tokens)


def _listed(voice: Voice) -> Document:
    document = {"id": voice.name, "object": "model", "created": voice.made, "owned_by": "peft-studio"}
    return document | ({"parent": voice.model.id} if voice.adapter else {})


def _refusal(error: Refused) -> Response:
    headers = HEADERS | ({"www-authenticate": "Bearer"} if error.status == 401 else {})
    return JSONResponse(failure(str(error), error.status, error.param, error.code), error.status, headers)


def _known(request: Request, error: Any) -> Response:
    if isinstance(error, Refused):
        return _refusal(error)
    if isinstance(error, Busy):
        headers = HEADERS | {"retry-after": str(error.seconds)}
        return JSONResponse(failure(str(error), 503, code="busy"), 503, headers)
    return JSONResponse(failure(str(error), 500), 500, HEADERS)


def _http(request: Request, error: Any) -> Response:
    words = f"{request.method} {request.url.path}: {error.detail}."
    return JSONResponse(failure(words, error.status_code), error.status_code, error.headers)


def _unknown(request: Request, error: Exception) -> Response:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse(failure("Something failed here. The studio's log has the details.", 500), 500, HEADERS)
