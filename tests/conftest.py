"""What every test may use: a home folder of its own."""

from pathlib import Path

import pytest
from hypothesis import settings

from studio.storage.paths import Home

# a busy machine is not a failure
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PEFT_STUDIO_HOME", str(tmp_path / "home"))
    return Home().prepare()
