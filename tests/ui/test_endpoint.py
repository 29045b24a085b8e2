"""The endpoint for programs: OpenAI's own client and curl against a served studio with a small real model."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from studio.domain.records import Model, Run, Status
from studio.services.models import RECORD
from studio.studio import Studio
from studio.ui import endpoint
from studio.ui.app import create, serve
from tests.engine.conftest import make_model
from tests.engine.test_generate import make_adapter

ASK: Any = [{"role": "user", "content": "What is the colour of the sky?"}]
CONTEXT = 20_000  # tokens: an answer without a limit takes longer than any test
GREEDY: Any = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with the base `tiny` and two versions of the adapter `desk`, the first of them active."""
    studio = Studio(tmp_path_factory.mktemp("home"))
    folder = make_model(studio.home.models / "tiny", max_position_embeddings=CONTEXT)
    model = Model(id="tiny", path=str(folder), source="folder", context=CONTEXT, bytes=200_000)
    (folder / RECORD).write_text(model.model_dump_json())
    for version in (1, 2):
        made = make_adapter(folder, studio.home.adapters / "desk" / f"v{version}", version)
        facts = {"base": {"id": "tiny", "path": str(folder)}, "created": f"2026-11-2{version}T10:00:00+00:00"}
        (made / "studio.json").write_text(json.dumps(facts))
    studio.adapters.activate("desk@v1")
    yield studio
    studio.chat.unload()


@pytest.fixture(scope="module")
def address(studio: Studio) -> Iterator[str]:
    demo = serve(studio, create(studio), browser=False)
    yield str(demo.local_url).rstrip("/") + "/v1"
    demo.close()
    studio.lock.release()


@pytest.fixture
def key(studio: Studio) -> str:
    studio.programs.switch(True)
    return studio.programs.new_key()


@pytest.fixture
def client(address: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0)


@pytest.fixture
def raw(address: str, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60) as opened:
        yield opened


def test_it_is_off_until_it_is_switched_on_and_then_wants_the_key(address: str, studio: Studio) -> None:
    studio.programs.file.unlink(missing_ok=True)
    stranger = openai.OpenAI(base_url=address, api_key="sk-anything", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="Switch it on in Settings"):
        stranger.models.list()
    studio.programs.switch(True)
    with pytest.raises(openai.AuthenticationError, match="The key is missing or wrong"):
        stranger.models.list()
    first = studio.programs.new_key()
    for wrong in ("", "Bearer", f"Basic {first}", "Bearer sk-anything", f"Bearer {first[:-1]}", f"Bearer {first}x"):
        told = httpx.get(f"{address}/models", headers={"authorization": wrong})
        assert told.status_code == 401
        assert told.json()["error"]["code"] == "invalid_api_key"
        assert told.headers["www-authenticate"] == "Bearer"
    known = openai.OpenAI(base_url=address, api_key=first, max_retries=0)
    assert known.models.list().data
    studio.programs.new_key()
    with pytest.raises(openai.AuthenticationError):
        known.models.list()


def test_bases_and_adapters_are_listed_with_their_versions(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [each.id for each in listed] == ["tiny", "tiny:desk@v2", "tiny:desk@v1"]
    assert listed[1].model_dump()["parent"] == "tiny"
    assert time.gmtime(listed[1].created)[:3] == (2026, 11, 22)
    assert client.models.retrieve("tiny:desk").id == "tiny:desk@v1", "the name alone is the active version"
    with pytest.raises(openai.NotFoundError, match="There is no model gpt"):
        client.models.retrieve("gpt")


def test_each_model_answers_as_it_does_in_the_chat(client: openai.OpenAI, studio: Studio) -> None:
    said, others = {}, engines()  # other tests' may still be there
    for name, worn, full in (
        ("tiny", None, "tiny"),
        ("tiny:desk@v2", "desk@v2", "tiny:desk@v2"),
        ("tiny:desk@1", "desk@v1", "tiny:desk@v1"),
        ("tiny:desk", "desk@v1", "tiny:desk@v1"),
        ("desk", "desk@v1", "tiny:desk@v1"),
    ):
        answer = client.chat.completions.create(model=name, messages=ASK, **GREEDY)
        done = list(studio.chat.answer("tiny", worn, ASK, max_new_tokens=12, temperature=0))[-1]
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content) == ("assistant", done.text)
        assert answer.model == full
        assert answer.usage
        assert answer.usage.completion_tokens == done.tokens  # type: ignore[union-attr]
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        said[full] = done.text
    assert len(set(said.values())) == 3
    assert len(engines() - others) == 1, "the page and programs share one engine with one base"


def engines() -> set[psutil.Process]:
    return {each for each in psutil.Process().children(recursive=True) if "studio.engine" in each.cmdline()}


def test_a_stream_says_the_same_and_counts(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASK, **GREEDY)
    stream = client.chat.completions.create(
        model="tiny", messages=ASK, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    pieces = list(stream)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == whole.choices[0].message.content
    assert {piece.id for piece in pieces} == {pieces[0].id}
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].usage == whole.usage
    assert [piece.usage for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    uncounted = list(client.chat.completions.create(model="tiny", messages=ASK, stream=True, **GREEDY))
    assert all(piece.choices for piece in uncounted)


def test_what_ends_an_answer_is_said_and_limits_hold(client: openai.OpenAI) -> None:
    free = client.chat.completions.create(model="tiny", messages=ASK, temperature=0, max_completion_tokens=40)
    text = free.choices[0].message.content or ""
    assert free.choices[0].finish_reason == "length"
    assert free.usage
    assert free.usage.completion_tokens == 40
    word = text[10:13]
    cut = client.chat.completions.create(model="tiny", messages=ASK, temperature=0, max_tokens=40, stop=[word, "zzz"])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text[: text.index(word)]


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    def say(seed: int) -> str | None:
        made = client.chat.completions.create(
            model="tiny", messages=ASK, temperature=1.5, top_p=1, seed=seed, max_tokens=20, user="me", n=1
        )
        return made.choices[0].message.content

    assert say(1) == say(1) != say(2)


def test_messages_may_be_parts_and_an_answer_can_be_sent_back(client: openai.OpenAI) -> None:
    talk: Any = [
        {"role": "developer", "content": "Be short."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is the colour "}, {"type": "text", "text": "of it?"}],
        },
    ]
    one = client.chat.completions.create(model="tiny", messages=talk, **GREEDY)
    plain: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is the colour of it?"}]
    assert one.choices[0].message.content == (
        client.chat.completions.create(model="tiny", messages=plain, **GREEDY).choices[0].message.content
    )
    more = [*plain, one.choices[0].message, {"role": "user", "content": "Why?"}]
    assert client.chat.completions.create(model="tiny", messages=more, **GREEDY).choices[0].message.content


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 2}, "n"),
        ({"stop": [""]}, "stop[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
        ({"messages": [{"role": "user", "content": "x " * CONTEXT}]}, "messages"),
    ],
)
def test_what_cannot_be_answered_is_named(client: openai.OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**({"model": "tiny", "messages": ASK, **GREEDY} | wrong))
    assert refused.value.param == param
    assert param.split("[")[0] in str(refused.value) or "tokens" in str(refused.value)
    assert client.chat.completions.create(model="tiny", messages=ASK, **GREEDY).choices, "the engine goes on"


def test_unknown_models_paths_and_verbs_are_errors_of_the_same_shape(raw: httpx.Client) -> None:
    body = {"model": "nobody", "messages": ASK}
    for answer, status in (
        (raw.post("/chat/completions", json=body), 404),
        (raw.post("/chat/completions", content=b"{"), 400),
        (raw.get("/chat/completions"), 405),
        (raw.post("/embeddings", json=body), 404),
        (raw.post("/chat/completions", content=b" " * (endpoint.LIMIT + 1)), 413),
    ):
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_foreign_page_or_name_is_refused_also_with_the_key(raw: httpx.Client) -> None:
    body = {"model": "tiny", "messages": ASK}
    assert raw.post("/chat/completions", json=body, headers={"origin": "https://evil.example"}).status_code == 403
    assert raw.get("/models", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_stops_the_answer(raw: httpx.Client, client: openai.OpenAI, studio: Studio, stream: bool) -> None:
    client.chat.completions.create(model="tiny", messages=ASK, **GREEDY)  # loaded
    endless = {"model": "tiny", "messages": ASK, "temperature": 1.9, "seed": 4, "stop": None, "stream": stream}
    if stream:
        with raw.stream("POST", "/chat/completions", json=endless) as answer:
            lines = answer.iter_lines()
            assert sum(1 for _ in zip(range(12), lines, strict=False)) == 12
    else:
        with pytest.raises(httpx.ReadTimeout):
            raw.post("/chat/completions", json=endless, timeout=1.0)
    begin = time.monotonic()
    assert client.chat.completions.create(model="tiny", messages=ASK, **GREEDY).choices
    assert time.monotonic() - begin < 10
    assert not studio.chat.server.turn.locked()


def test_programs_wait_for_each_other_and_too_many_are_sent_away(
    raw: httpx.Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_: int) -> int:
        return raw.post("/chat/completions", json={"model": "tiny:desk", "messages": ASK, **GREEDY}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == [200] * 6
    monkeypatch.setattr(endpoint, "WAITING", 2)
    with studio.chat.server.turn, ThreadPoolExecutor(6) as pool:  # the page is being answered
        asked = [pool.submit(ask, number) for number in range(6)]
        while sum(each.done() for each in asked) < 3:
            time.sleep(0.05)
        refused = [each.result() for each in asked if each.done()]
        assert refused == [503] * 3
        studio.chat.server.turn.release()
        answered = [each.result() for each in asked]
        studio.chat.server.turn.acquire()
    assert sorted(answered) == [200] * 3 + [503] * 3


def examples(language: str) -> list[str]:
    """Return the guide's examples that ask something, for the models of this test."""
    guide = (Path(__file__).parents[2] / "docs" / "user-guide" / "programs.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    asking = [block for block in blocks if "openai" in block or "curl" in block]
    return [each.replace("starter:tickets", "tiny:desk").replace("100", "12") for each in asking]


@pytest.mark.parametrize("language", ["python", "bash"])
def test_the_examples_of_the_guide_work(address: str, key: str, language: str) -> None:
    (code,) = examples(language)
    run = {"python": [sys.executable, "-c"], "bash": ["bash", "-euc"]}[language]
    environment = os.environ | {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": key}
    said = subprocess.run([*run, code], capture_output=True, text=True, env=environment, timeout=120, check=True).stdout
    if language == "bash":
        listed, answer = said.replace("}{", "}\n{").splitlines()
        assert json.loads(listed)["data"][0]["id"] == "tiny"
        assert json.loads(answer)["model"] == "tiny:desk@v1"
        assert json.loads(answer)["choices"][0]["message"]["content"]
    else:
        assert len(said.strip()) > 2


def test_the_key_is_in_no_file_and_no_log(client: openai.OpenAI, key: str, studio: Studio) -> None:
    client.chat.completions.create(model="tiny", messages=ASK, **GREEDY)
    assert studio.programs.file.stat().st_mode & 0o077 == 0
    for file in studio.home.root.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert key.encode() not in file.read_bytes(), file
    served = httpx.get(f"{client.base_url}".removesuffix("/v1/") + f"/gradio_api/file={studio.programs.file}")
    assert served.status_code in (403, 404)


def test_an_engine_that_dies_is_an_error_within_the_stream(client: openai.OpenAI, studio: Studio) -> None:
    stream = client.chat.completions.create(model="tiny", messages=ASK, temperature=1.9, stream=True)
    with pytest.raises(openai.APIError, match="ended by the system"):  # noqa: PT012
        for number, _ in enumerate(stream):
            if number == 3 and studio.chat.server.engine:
                studio.chat.server.engine.process.kill()


def test_while_a_run_leaves_no_room_the_time_to_come_back_is_said(
    client: openai.OpenAI, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"name": "desk", "path": "", "model": "tiny", "dataset": "d", "method": "lora", "created": ""}
    run = Run(id="desk-1", status=Status.TRAINING, seconds_left=(40, 60), **facts)
    monkeypatch.setattr(studio.runs, "list", lambda: [run])
    studio.chat.unload()
    live = studio.machine.live()
    full = live.model_copy(update={"memory_free_bytes": 100_000, "gpu_free_bytes": None})
    monkeypatch.setattr(studio.machine, "live", lambda: full)
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="tiny", messages=ASK, stream=True, **GREEDY)
    assert busy.value.status_code == 503
    assert busy.value.response.headers["retry-after"] == "40"
    assert busy.value.code == "busy"
