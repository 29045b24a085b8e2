"""What stands before Gradio: only known names, only our own pages, only bodies of a sane size, and strict headers."""

import os
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 2 * 10**9  # bytes; larger files are named by their path
MAX_BODY = 16 * 10**6  # bytes of any other request: a form full of text stays far below

# Gradio's page builds functions from text, hence unsafe-eval. Images only from here: a remote one tells who looks.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)


def known_hosts(host: str) -> set[str]:
    """Return the names a page served on `host` may be asked for."""
    names = {"localhost", "127.0.0.1", "::1", host.strip("[]").lower()}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        names |= {address.address.split("%")[0] for card in psutil.net_if_addrs().values() for address in card}
    if os.environ.get("SPACE_HOST"):
        names.add(os.environ["SPACE_HOST"].lower())
    return names


class HostGuard:
    """Refuses a request for a name that is not ours: a foreign name that was rebound to this address."""

    def __init__(self, app: ASGIApp, hosts: set[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] == "lifespan" or _hostname(Headers(scope=scope).get("host", "")) in self.hosts
        if not known:
            refusal = PlainTextResponse("This name does not belong to the studio.", 400)
            return await refusal(scope, receive, send)
        await self.app(scope, receive, send)


class OriginGuard:
    """Refuses what a page from elsewhere sends, whatever the verb or the type of the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
                refusal = PlainTextResponse("Only the studio's own page may do this.", 403)
                return await refusal(scope, receive, send)
        await self.app(scope, receive, send)


class SizeGuard:
    """Refuses a body over the limit, announced or counted while it arrives. Uploads have Gradio's own limit."""

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int) -> None:
        self.app, self.limit, self.upload_limit = app, limit, upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = self.upload_limit if scope["path"].endswith("/upload") else self.limit
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            refusal = PlainTextResponse("Too large.", 413)
            return await refusal(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(413, "Too large.")
            return message

        await self.app(scope, counted, send)


class SafeHeaders:
    """Adds the headers that keep the page out of foreign frames and foreign content out of the page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.policy = POLICY + ("'self' https://huggingface.co" if os.environ.get("SPACE_ID") else "'self'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", self.policy)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"
            await send(message)

        await self.app(scope, receive, with_headers)


def middleware(hosts: set[str], limit: int = MAX_BODY, upload_limit: int = MAX_UPLOAD) -> Iterable[Middleware]:
    """Return the guards, outermost first. `hosts` may grow while the page is served (a share link's name)."""
    return [
        Middleware(SafeHeaders),
        Middleware(HostGuard, hosts=hosts),
        Middleware(OriginGuard),
        Middleware(SizeGuard, limit=limit, upload_limit=upload_limit + 10**6),  # the form around the file
    ]


def _hostname(header: str) -> str:
    """Return a Host header's name without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""
