"""A Hub and an Ollama on this machine for the services that ask them."""

from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from tests.services.fake_hub import FakeHub, serve
from tests.services.fake_ollama import FakeOllama
from tests.services.fake_ollama import serve as serve_ollama


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found


@pytest.fixture
def ollama_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    with serve_ollama() as found:
        monkeypatch.setenv("OLLAMA_HOST", found.address)
        yield found
