"""A Hub on this machine: it serves folders as models and data sets, with the answers and headers of the real one."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTED = "89abcdef0123456789abcdef0123456789abcdef"  # the commit of converted Parquet files


@dataclass
class Repo:
    folder: Path
    licence: str = "mit"
    refused: str = ""  # an error code of the Hub, such as GatedRepo
    converted: Path | None = None  # of a data set: the Parquet files the Hub made of it
    wrong: dict[str, bytes] = field(default_factory=dict)  # files sent other than announced


@dataclass
class FakeHub:
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # paths of the requests so far
    address: str = ""


@contextmanager
def serve() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            name = next((name for name in hub.repos if f"/{name}/" in f"{path}/"), None)
            if name is None:
                self.refuse(401, "RepoNotFound")
            elif hub.repos[name].refused:
                self.refuse(403, hub.repos[name].refused)
            else:
                self.answer(hub.repos[name], name, path)

        do_HEAD = do_GET

        def answer(self, repo: Repo, name: str, path: str) -> None:
            converted = repo.converted if CONVERTED in path or "refs/convert" in path else None
            folder = converted or repo.folder
            files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
            if path.startswith("/api/") and "/tree/" in path:
                self.send([{"type": "file", "path": name, **facts(file)} for name, file in files.items()])
            elif path.startswith("/api/"):
                known = ("main", COMMIT, CONVERTED, "parquet" if converted else "main")
                if "/revision/" in path and path.rpartition("/")[2] not in known:
                    self.refuse(404, "RevisionNotFound")
                    return
                siblings = [{"rfilename": name, "blobId": "b", **facts(file)} for name, file in files.items()]
                commit = CONVERTED if converted else COMMIT
                card = {"license": repo.licence}
                self.send({"id": name, "sha": commit, "siblings": siblings, "cardData": card, "tags": []})
            else:
                commit = CONVERTED if converted else COMMIT
                wanted = path.split(f"/resolve/{commit}/")[1]
                content = repo.wrong.get(wanted, files[wanted].read_bytes())
                etag = hashlib.sha256(files[wanted].read_bytes()).hexdigest()
                self.send_bytes(content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

        def send(self, document: object) -> None:
            self.send_bytes(json.dumps(document).encode(), {"Content-Type": "application/json"})

        def send_bytes(self, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def facts(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    found: dict[str, object] = {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if file.suffix == ".safetensors":
        sums = {"sha256": hashlib.sha256(content).hexdigest(), "oid": hashlib.sha256(content).hexdigest()}
        found["lfs"] = {**sums, "size": len(content), "pointerSize": 130}
    return found
