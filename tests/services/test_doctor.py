"""The doctor finds what is missing and names the remedy."""

import socket
from importlib import metadata
from pathlib import Path

import pytest

from studio.services import doctor
from studio.services.machine import Machine
from studio.services.models import Models
from studio.storage.paths import Home
from studio.storage.store import Store


def found(check: str) -> doctor.Finding:
    return next(finding for finding in doctor.environment() if finding.check == check)


def here(home: Home, check: str) -> doctor.Finding:
    findings = doctor.installation(home, Store(home), Models(home), Machine(home))
    return next(finding for finding in findings if finding.check == check)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages of an environment, as their versions."""
    versions = {"torch": "2.13.0+cpu", "peft": "0.21.2"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    asked = ["torch>=2.10", "peft>=0.20", 'nothing>=1; python_version < "3"', 'pytest>=8; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    monkeypatch.setattr(metadata, "version", version)
    return versions


def test_what_the_package_asks_for_is_there(installed: dict[str, str]) -> None:
    finding = found("packages")
    assert finding.ok
    assert finding.detail == "torch 2.13.0+cpu, peft 0.21.2"


def test_missing_and_old_packages_are_named(installed: dict[str, str]) -> None:
    del installed["torch"]
    installed["peft"] = "0.19.1"
    finding = found("packages")
    assert not finding.ok
    assert finding.detail == "torch is missing; peft is 0.19.1, >=0.20 is needed"
    assert finding.remedy


def test_another_package_called_studio_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"studio": ["peft-studio", "unsloth"]})
    finding = found("package name")
    assert not finding.ok
    assert "unsloth" in finding.detail
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"studio": ["peft-studio"]})
    assert found("package name").ok


def test_a_busy_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(doctor, "PORT", server.getsockname()[1])
        assert "in use" in found("port").detail
    assert "is free" in found("port").detail


def test_a_card_that_torch_cannot_use_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "cards", lambda self: ["a card"])
    monkeypatch.setattr("studio.services.machine.torch_version", lambda: "2.13.0+cpu")
    finding = here(home, "graphics card")
    assert not finding.ok
    assert "CUDA" in finding.remedy


def test_a_full_disk_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM", 1e18)
    finding = here(home, "disk")
    assert not finding.ok
    assert "PEFT_STUDIO_HOME" in finding.remedy


def test_missing_large_pages_are_told(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "PAGES", tmp_path / "enabled")
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(Machine, "cards", lambda self: [])
    for text, remedy in (("always [madvise] never", ""), ("always madvise [never]", "echo madvise"), (None, "echo")):
        if text:
            (tmp_path / "enabled").write_text(text)
        else:
            (tmp_path / "enabled").unlink()
        assert remedy in here(home, "large pages").remedy
        assert bool(remedy) == bool(here(home, "large pages").remedy)
