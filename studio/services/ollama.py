"""Ollama: an exported package put into a running server by its REST API, and asked one question there.

The server is that of OLLAMA_HOST, as Ollama's own programs read it, or this machine's. It does not push to ollama.com.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from studio.domain.errors import StudioError
from studio.domain.events import Phase, Report, ignore
from studio.domain.records import Adapter

PORT = 11434
LEAST = (0, 5, 5)  # the first that makes models of files sent to it
PIECE = 1 << 20  # bytes sent at once
SOON, LONG = 5.0, 600.0  # seconds for an answer about itself; for a model to be stored or loaded
ANSWER = 128  # tokens of the answer to the question
LOCAL = ("localhost", "127.0.0.1", "::1")
# model or namespace/model, and a tag
NAME = re.compile(r"(?:\w[\w-]{0,79}/)?\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?", re.ASCII)
TEMPLATE = re.compile(r'^TEMPLATE """(.*?)"""$', re.MULTILINE | re.DOTALL)
STOP = re.compile(r'^PARAMETER stop "(.*)"$', re.MULTILINE)


class NameTaken(StudioError):
    """The server has a model of that name."""


@dataclass(frozen=True)
class Server:
    """An Ollama server that answered."""

    address: str
    version: str

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.address).hostname in LOCAL

    def names(self) -> set[str]:
        """Return the models it has, each with its tag."""
        with self._asked(SOON) as client:
            found = _read(client.get("/api/tags"))
        return {str(model.get("name", "")).lower() for model in found.get("models") or []}

    def has(self, name: str) -> bool:
        """Whether it has a model of that name; refuse what is no name."""
        if not NAME.fullmatch(name):
            raise StudioError(
                f"{name or 'Nothing'} is no name for Ollama.", "Letters, figures, dots, dashes: tickets or tickets:v2."
            )
        return (name if ":" in name else f"{name}:latest").lower() in self.names()

    def take(
        self,
        export: Mapping[str, Any],
        name: str,
        question: list[dict[str, str]],
        *,
        replace: bool = False,
        report: Report = ignore,
    ) -> dict[str, Any]:
        """Make the model `name` of an exported package, ask it the question, and return what it answers.

        `export` is what the export returned: its folder, and its files with their hashes.
        """
        folder = Path(export["path"])
        said = (folder / "Modelfile").read_text(encoding="utf-8")
        template = TEMPLATE.search(said)
        if not template:
            raise StudioError(f"{folder / 'Modelfile'} holds no template.", "Export again.")
        if self.has(name) and not replace:
            raise NameTaken(f"Ollama has a model {name} already.", "Give another name, or replace it.")
        digests = {
            file["name"]: f"sha256:{file['sha256']}" for file in export["files"] if file["name"].endswith(".gguf")
        }
        with self._asked(LONG) as client:
            for file, digest in digests.items():
                _send(client, folder / file, digest, report)
            asked = {
                "model": name,
                "files": digests,
                "template": template[1],
                "parameters": {"stop": STOP.findall(said)},
            }
            report(Phase(words="Ollama makes the model"))
            _create(client, asked, report)
            report(Phase(words=f"Asking {name} a question"))
            options = {"temperature": 0, "num_predict": ANSWER}
            body = {"model": name, "messages": question, "stream": False, "options": options}
            answer = _read(client.post("/api/chat", json=body))
        text = str((answer.get("message") or {}).get("content", ""))
        return {"model": name, "address": self.address, "version": self.version, "question": question, "answer": text}

    @contextmanager
    def _asked(self, seconds: float) -> Iterator[httpx.Client]:
        try:
            # Not through a proxy: it is on this machine or named by its address.
            with httpx.Client(base_url=self.address, timeout=seconds, trust_env=False) as client:
                yield client
        except httpx.TimeoutException as error:
            raise StudioError(
                f"Ollama at {self.address} has not answered for {seconds:.0f} seconds.", "Look at its log, try again."
            ) from error
        except httpx.HTTPError as error:
            raise StudioError(
                f"Ollama at {self.address} ended the connection.", "Look whether it still runs, try again."
            ) from error


def find() -> Server:
    """Return the server that answers, if it is new enough."""
    address = _address(os.environ.get("OLLAMA_HOST", ""))
    try:
        found = httpx.get(f"{address}/api/version", timeout=SOON, trust_env=False)
        version = str(found.raise_for_status().json()["version"])
    except httpx.ConnectError as error:
        raise StudioError(
            f"No Ollama answers at {address}.", "Start it (`ollama serve`), or set OLLAMA_HOST to where it is."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise StudioError(f"What answers at {address} is no Ollama.", "Set OLLAMA_HOST to where it is.") from error
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:3])
    if (0, 0, 0) != numbers < LEAST:  # 0.0.0 is one that was built by hand
        least = ".".join(map(str, LEAST))
        raise StudioError(f"Ollama {version} at {address} is too old.", f"Update it to {least} or newer.")
    return Server(address, version)


def default_name(adapter: Adapter) -> str:
    """Return what a version is called in Ollama: its number is the tag."""
    name = re.sub(r"[^\w.-]", "-", adapter.name, flags=re.ASCII).lstrip(".-")[:80] or "adapter"
    return f"{name}:v{adapter.version}" if adapter.version else name


def _address(host: str) -> str:
    """Return the URL that OLLAMA_HOST names, by Ollama's own rules; one to listen on everywhere is this machine."""
    host = host.strip().strip("\"'")
    scheme, _, rest = host.rpartition("://")
    port = {"http": 80, "https": 443}.get(scheme, PORT)
    bare = rest.count(":") > 1 and not rest.startswith("[")  # an IPv6 address without brackets
    try:
        parts = urlsplit(f"{scheme or 'http'}://{f'[{rest}]' if bare else rest}")
        name, port = parts.hostname or "127.0.0.1", parts.port or port
    except ValueError as error:
        raise StudioError(f"OLLAMA_HOST is no address: {host}.", "It looks like 127.0.0.1:11434.") from error
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"


def _send(client: httpx.Client, path: Path, digest: str, report: Report) -> None:
    """Send a file unless the server has it; the server compares it with its hash."""
    if client.head(f"/api/blobs/{digest}").status_code == httpx.codes.OK:
        return
    size = path.stat().st_size

    def pieces() -> Iterator[bytes]:
        done = 0
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
                done += len(piece)
                report(Phase(words=f"Sending {path.name}", done=done, total=size, unit="bytes"))

    _read(client.post(f"/api/blobs/{digest}", content=pieces(), headers={"Content-Length": str(size)}))


def _create(client: httpx.Client, asked: Mapping[str, Any], report: Report) -> None:
    """Let the server make the model; what goes wrong after its first words stands among them."""
    with client.stream("POST", "/api/create", json=asked) as answer:
        if answer.is_error:
            answer.read()
            _read(answer)
        last: dict[str, Any] = {}
        for line in answer.iter_lines():
            last = _parsed(line) if line.strip() else last
            if error := last.get("error"):
                raise _refused(str(error))
            if status := last.get("status"):
                report(Phase(words=f"Ollama: {status}", done=last.get("completed"), total=last.get("total")))
    if last.get("status") != "success":
        raise StudioError("Ollama stopped before the model was made.", "Look at its log, try again.")


def _read(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer holds; raise StudioError with the server's reason."""
    found = _parsed(answer.text) if answer.content else {}
    if answer.is_error:
        raise _refused(str(found.get("error") or f"HTTP {answer.status_code}"))
    return found


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"error": text.strip()[:200]}
    return found if isinstance(found, dict) else {"error": text.strip()[:200]}


def _refused(reason: str) -> StudioError:
    if "no space left" in reason or "not enough space" in reason:
        return StudioError("The disk of Ollama's models is full.", "Make room there (`ollama rm NAME`), try again.")
    if "digest mismatch" in reason:
        return StudioError("A file came to Ollama other than it was exported: it was changed.", "Export again.")
    return StudioError(f"Ollama refuses: {reason}.", "The exported package is as it was.")
