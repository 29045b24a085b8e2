"""An Ollama on this machine: compares hashes, wants the shapes and names the real one wants, and remembers."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KNOWN = {"model", "files", "from", "template", "parameters", "system", "messages", "license", "quantize", "stream"}
REAL_NAME = re.compile(r"(?:[a-zA-Z0-9_][\w-]{0,79}/)?[a-zA-Z0-9_][\w.-]{0,79}(?::[a-zA-Z0-9_][\w.-]{0,79})?")


class FakeOllama(ThreadingHTTPServer):
    """`fails` maps a path's beginning to what is answered there: a status and a body, or lines of a stream."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.version: Any = "0.12.6"
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, tuple[int, str]] = {}
        self.sent: list[str] = []
        self.asked: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeOllama
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._say(200 if self.path.removeprefix("/api/blobs/") in self.server.blobs else 404)

    def do_GET(self) -> None:
        if self._failed():
            return
        if self.path == "/api/version":
            self._say(200, {"version": self.server.version})
        elif self.path == "/api/tags":
            self._say(200, {"models": [{"name": name, "model": name} for name in self.server.models]})
        else:
            self._say(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._failed():
            return
        if self.path.startswith("/api/blobs/"):
            self._blob(body)
        elif self.path == "/api/create":
            self._create(json.loads(body))
        elif self.path == "/api/chat":
            self._chat(json.loads(body))
        else:
            self._say(404, {"error": "not found"})

    def _blob(self, body: bytes) -> None:
        wanted, found = self.path.removeprefix("/api/blobs/"), f"sha256:{hashlib.sha256(body).hexdigest()}"
        if wanted != found:
            self._say(400, {"error": f'digest mismatch, expected "{wanted}", got "{found}"'})
            return
        self.server.blobs[found] = body
        self.server.sent.append(found)
        self._say(201)

    def _create(self, asked: dict[str, Any]) -> None:
        files = asked.get("files") or {}
        if set(asked) - KNOWN or not isinstance(asked.get("parameters", {}), dict):
            self._say(400, {"error": "json: cannot unmarshal"})
        elif not REAL_NAME.fullmatch(asked.get("model", "")):
            self._say(400, {"error": "invalid model name"})
        elif not files:
            self._say(400, {"error": "neither 'from' or 'files' was specified"})
        elif any(name.startswith("/") or ".." in name for name in files):
            self._say(400, {"error": "file path must be relative"})
        elif any(digest not in self.server.blobs for digest in files.values()):
            self._say(400, {"error": "blob not found"})
        elif not all(self.server.blobs[digest].startswith(b"GGUF") for digest in files.values()):
            self._stream([{"error": "supplied file was not in GGUF format", "status": 400}])
        else:
            name = asked["model"] if ":" in asked["model"] else f"{asked['model']}:latest"
            self.server.models[name] = asked
            self._stream([{"status": "parsing GGUF"}, {"status": "writing manifest"}, {"status": "success"}])

    def _chat(self, asked: dict[str, Any]) -> None:
        self.server.asked.append(asked)
        if not {asked["model"], f"{asked['model']}:latest"} & set(self.server.models):
            self._say(404, {"error": f"model '{asked['model']}' not found"})
            return
        message = {"role": "assistant", "content": f"You asked: {asked['messages'][-1]['content']}"}
        self._say(200, {"model": asked["model"], "message": message, "done": True, "done_reason": "stop"})

    def _failed(self) -> bool:
        for path, (status, text) in self.server.fails.items():
            if self.path.startswith(path):
                self._raw(status, text.encode())
                return True
        return False

    def _stream(self, lines: list[dict[str, Any]]) -> None:
        self._raw(200, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _say(self, status: int, body: dict[str, Any] | None = None) -> None:
        self._raw(status, json.dumps(body).encode() if body is not None else b"")

    def _raw(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[FakeOllama]:
    server = FakeOllama()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
