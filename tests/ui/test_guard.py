"""What reaches the running page, and what is turned away before it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.studio import Studio
from studio.ui import guard
from studio.ui.app import create, serve

EVIL = "https://evil.example"
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODIES: dict[str, dict[str, Any]] = {
    "form file": {"files": {"files": ("a.csv", b"a,b\n1,2\n")}},
    "plain text": {"content": b"{}", "headers": {"content-type": "text/plain"}},
    "JSON": {"json": {"data": []}},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    studio = Studio(tmp_path_factory.mktemp("home"))
    hosts = guard.known_hosts("127.0.0.1")
    small = {"middleware": guard.middleware(hosts, limit=50_000, upload_limit=200_000)}
    demo = serve(studio, create(studio), browser=False, max_file_size=200_000, app_kwargs=small)
    with httpx.Client(base_url=str(demo.local_url)) as opened:
        opened.headers["x-files"] = str(studio.home.root)  # for the test that looks for them
        yield opened
    demo.close()


def own(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def test_the_page_and_its_own_requests_pass(client: httpx.Client) -> None:
    assert client.get("/").status_code == 200
    assert client.get("/config", headers={"origin": own(client)}).status_code == 200
    sent = client.post("/gradio_api/upload", headers={"origin": own(client)}, **BODIES["form file"])
    assert sent.status_code == 200
    assert Path(sent.json()[0]).is_relative_to(client.headers["x-files"])


@pytest.mark.parametrize("verb", VERBS)
def test_a_foreign_page_is_refused_whatever_the_verb(client: httpx.Client, verb: str) -> None:
    assert client.request(verb, "/gradio_api/queue/join", headers={"origin": EVIL}).status_code == 403
    assert client.request(verb, "/", headers={"origin": "null"}).status_code == 403


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/call/list_runs"])
def test_a_foreign_page_changes_nothing_whatever_it_sends(client: httpx.Client, path: str, body: str) -> None:
    before = sorted(Path(client.headers["x-files"]).rglob("*"))
    request = BODIES[body]
    sent = client.post(path, **(request | {"headers": {**request.get("headers", {}), "origin": EVIL}}))
    assert sent.status_code == 403
    assert "access-control-allow-origin" not in sent.headers
    assert sorted(Path(client.headers["x-files"]).rglob("*")) == before


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]:80", "localhost@evil.example", ""])
def test_a_foreign_name_is_refused(client: httpx.Client, host: str) -> None:
    for verb in VERBS:
        answer = client.request(verb, "/", headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]:7860"])
def test_every_local_name_is_known(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


def test_an_oversize_body_is_refused(client: httpx.Client) -> None:
    big = b"x" * 60_000
    announced = client.post("/gradio_api/queue/join", content=big, headers={"content-type": "application/json"})
    assert announced.status_code == 413


def test_an_oversize_body_is_counted_when_it_is_not_announced(client: httpx.Client) -> None:
    pieces = (b"x" * 10_000 for _ in range(100))
    try:
        answer = client.post("/gradio_api/queue/join", content=pieces, headers={"content-type": "application/json"})
    except httpx.WriteError:  # the server answered and closed while we were still sending
        return
    assert answer.status_code == 413


def test_an_oversize_upload_is_refused_and_kept_nowhere(client: httpx.Client) -> None:
    for size in (300_000, 3_000_000):
        sent = client.post("/gradio_api/upload", files={"files": ("big.csv", b"x" * size)})
        assert sent.status_code == 413
    kept = [path for path in Path(client.headers["x-files"]).rglob("big*") if path.is_file()]
    assert kept == []


def test_the_page_cannot_be_framed_and_takes_no_image_from_elsewhere(client: httpx.Client) -> None:
    headers = client.get("/").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["frame-ancestors"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"


def test_on_a_space_its_host_and_its_frame_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_HOST", "Somebody-studio.hf.space")
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert "somebody-studio.hf.space" in guard.known_hosts("0.0.0.0")

    async def nothing(*_: Any) -> None: ...

    assert guard.SafeHeaders(nothing).policy.endswith("frame-ancestors 'self' https://huggingface.co")


def test_a_named_address_is_known_and_an_open_one_knows_its_own() -> None:
    assert "studio.lan" in guard.known_hosts("studio.lan")
    assert len(guard.known_hosts("0.0.0.0")) > len(guard.known_hosts("127.0.0.1"))
