"""A Hub on this machine for the services that ask one."""

from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from tests.services.fake_hub import FakeHub, serve


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield found
