"""The judge, asked through a real server: order cancels out, ties count, luck is no verdict, faults are named."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from studio.domain.errors import StudioError
from studio.services import judge as module
from studio.services.judge import KEY, Judge

PAIRS = [{"prompt": f"{i}?", "expected": f"right {i}", "base": "no idea", "adapter": f"right {i}"} for i in range(12)]


class Endpoint(ThreadingHTTPServer):
    """Speaks the chat completions protocol; `choose` is given reference, answer A and answer B."""

    choose: Callable[[str, str, str], str]
    statuses: list[int]
    seen: list[tuple[str, str | None, dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        parts = re.search(
            r"Reference answer:\n(.*)\n\nAnswer A:\n(.*)\n\nAnswer B:\n(.*)\n\nWhich", body["messages"][1]["content"]
        )
        assert parts
        said = {"choices": [{"message": {"role": "assistant", "content": self.server.choose(*parts.groups())}}]}
        data = json.dumps(said if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.delenv(KEY, raising=False)
    server = Endpoint(("127.0.0.1", 0), Handler)
    server.statuses, server.seen = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(
    server: Endpoint, choose: Callable[[str, str, str], str], pairs: list[dict[str, str]] = PAIRS
) -> dict[str, Any]:
    server.choose = choose
    return Judge(f"http://127.0.0.1:{server.server_port}/v1/", "judge-1").compare(pairs)


def fair(expected: str, a: str, b: str) -> str:
    return "T" if a == b else "A" if a == expected else "B"


def test_each_pair_is_asked_twice_in_both_orders(endpoint: Endpoint) -> None:
    found = ask(endpoint, fair)
    assert (found["wins"], found["ties"], found["losses"], found["swayed"]) == (12, 0, 0, 0)
    assert found["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "p": 1 / 2000}
    assert found["verdict"] == "Better by judge-1: of 12 pairs 12 won, 0 lost, 0 tied."
    assert len(endpoint.seen) == 24
    path, key, body = endpoint.seen[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", None, "judge-1", 0)
    first, second = (each[2]["messages"][1]["content"] for each in endpoint.seen[:2])
    assert first.index("no idea") < first.index("Answer B") < second.index("no idea")


def test_a_judge_that_prefers_the_first_place_decides_nothing(endpoint: Endpoint) -> None:
    found = ask(endpoint, lambda expected, a, b: "Answer A is better: A")
    assert (found["wins"], found["ties"], found["swayed"], found["difference"]["mean"]) == (0, 12, 12, 0)
    assert found["verdict"].startswith("Not better")


def test_the_worse_adapter_is_called_worse_and_ties_count(endpoint: Endpoint) -> None:
    turned = [pair | {"base": pair["adapter"], "adapter": pair["base"]} for pair in PAIRS[:10]]
    alike = [pair | {"base": pair["adapter"]} for pair in PAIRS[10:]]
    found = ask(endpoint, fair, turned + alike)
    assert (found["wins"], found["ties"], found["losses"]) == (0, 2, 10)
    assert found["difference"]["mean"] == pytest.approx(-10 / 12)
    assert found["verdict"].startswith("Worse")


@pytest.mark.parametrize("said", ["", "A tie.", "Neither.", "T"])
def test_what_names_no_answer_is_a_tie(endpoint: Endpoint, said: str) -> None:
    assert ask(endpoint, lambda *_: said, PAIRS[:2])["ties"] == 2


def test_the_key_comes_from_the_environment_and_never_crosses_a_network_in_plain(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "secret-1")
    ask(endpoint, fair, PAIRS[:1])
    assert endpoint.seen[0][1] == "Bearer secret-1"
    with pytest.raises(StudioError, match="readable to all"):
        Judge("http://judge.example/v1", "m").compare(PAIRS)


def test_a_busy_judge_is_asked_again_and_other_faults_are_named(endpoint: Endpoint) -> None:
    endpoint.statuses = [429, 503]
    assert ask(endpoint, fair, PAIRS[:1])["wins"] == 1
    for status, words in ((401, "refuses the key"), (404, "answers with an error, 404")):
        endpoint.statuses = [status]
        with pytest.raises(StudioError, match=words):
            ask(endpoint, fair, PAIRS[:1])
    endpoint.statuses = [500] * module.TRIES
    with pytest.raises(StudioError, match="an error, 500"):
        ask(endpoint, fair, PAIRS[:1])
    for url, words in (("nowhere", "no address"), ("http://127.0.0.1:9/v1", "does not answer")):
        with pytest.raises(StudioError, match=words):
            Judge(url, "m").compare(PAIRS)
    with pytest.raises(StudioError, match="no answers to judge"):
        Judge("http://127.0.0.1:9/v1", "m").compare([])
