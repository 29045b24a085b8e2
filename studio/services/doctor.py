"""Is everything here that a run needs? One finding for each part, with a remedy where something is missing."""

import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel

from studio.domain.errors import StudioError
from studio.domain.words import size
from studio.services.machine import Machine, torch_version
from studio.services.models import STARTER, Models
from studio.storage.paths import Home
from studio.storage.store import Store

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
DISTRIBUTION = "peft-studio"
PORT = 7860
ROOM = 3e9  # bytes; the starter, a data set and some runs


class Finding(BaseModel):
    """One part of the environment. `remedy` is empty when there is nothing to do."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def environment() -> Iterator[Finding]:
    """Look at what is there before any studio is: Python, the packages, the port."""
    yield _python()
    yield _packages()
    yield _name()
    yield _port()


def installation(home: Home, store: Store, models: Models, machine: Machine) -> Iterator[Finding]:
    """Look at the home folder and the hardware."""
    yield Finding(check="home folder", ok=True, detail=f"{home.root} can be written.")
    try:
        store.active()
        yield Finding(check="database", ok=True, detail="studio.db can be read.")
    except StudioError as error:
        yield no("database", error)
    yield from _hardware(machine)
    if models.find(STARTER):
        yield Finding(check="starter model", ok=True, detail="It is here.")
    else:
        remedy = "`peft-studio models fetch starter` fetches it."
        yield Finding(check="starter model", ok=True, detail="It is not here yet.", remedy=remedy)


def no(check: str, error: StudioError) -> Finding:
    """Return the finding of a part that failed."""
    return Finding(check=check, ok=False, detail=error.message, remedy=error.hint)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        check="python",
        ok=sys.version_info >= (3, 11),
        detail=f"{version} in {sys.prefix}",
        remedy="" if sys.version_info >= (3, 11) else "Install Python 3.11 or newer, and PEFT Studio in it.",
    )


def _packages() -> Finding:
    """Compare what is installed with what the package asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return Finding(
            check="packages",
            ok=False,
            detail="PEFT Studio runs from its sources without being installed.",
            remedy="In its folder: pip install -c build/constraints.txt -e .",
        )
    have, missing = [], []
    for each in wanted:
        if each.marker and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{each.name} is missing")
            continue
        have.append(f"{each.name} {version}")
        if not each.specifier.contains(version, prereleases=True):
            missing.append(f"{each.name} is {version}, {each.specifier} is needed")
    return Finding(
        check="packages",
        ok=not missing,
        detail="; ".join(missing) or ", ".join(have),
        remedy="pip install --upgrade peft-studio" if missing else "",
    )


def _name() -> Finding:
    """Another package that brings a folder `studio` overwrites files of ours; unsloth does."""
    others = [each for each in metadata.packages_distributions().get("studio", []) if each != DISTRIBUTION]
    return Finding(
        check="package name",
        ok=not others,
        detail=f"{', '.join(others)} brings a package `studio` of its own."
        if others
        else "Nothing else is called studio.",
        remedy="Install PEFT Studio in an environment of its own." if others else "",
    )


def _hardware(machine: Machine) -> Iterator[Finding]:
    facts = machine.facts()
    tight = facts.disk_free_bytes < ROOM
    yield Finding(
        check="disk",
        ok=not tight,
        detail=f"{size(facts.disk_free_bytes)} are free.",
        remedy="Make room, or set PEFT_STUDIO_HOME to a larger disk." if tight else "",
    )
    yield Finding(
        check="memory", ok=True, detail=f"{size(facts.memory_free_bytes)} of {size(facts.memory_bytes)} are free."
    )
    yield Finding(
        check="processor", ok=True, detail=f"{facts.processor}, {facts.cores} cores. Can train {facts.words}."
    )
    if facts.gpu:
        memory = f"{size(facts.gpu.memory_free_bytes)} of {size(facts.gpu.memory_bytes)} are free"
        yield Finding(check="graphics card", ok=True, detail=f"{facts.gpu.name}, {memory}.")
    elif machine.cards():
        yield Finding(
            check="graphics card",
            ok=False,
            detail=f"There is one, but torch {torch_version()} was built without CUDA.",
            remedy="Install the CUDA build of torch, as pytorch.org describes it.",
        )
    else:
        yield Finding(check="graphics card", ok=True, detail="None. Training runs on the processor.")
    fast = "bf16, which is fast here." if facts.bf16 else "fp32: this hardware has no fast bf16."
    yield Finding(check="precision", ok=True, detail=fast)
    if not facts.gpu and sys.platform == "linux":
        yield _pages()


def _pages() -> Finding:
    """Large pages make large tensors a tenth faster on a processor; the engine asks for them where it may."""
    try:
        chosen = PAGES.read_text(encoding="ascii").partition("[")[2].partition("]")[0]
    except OSError:
        chosen = "never"
    if chosen in ("madvise", "always"):
        return Finding(check="large pages", ok=True, detail=f"The kernel gives them ({chosen}).")
    return Finding(
        check="large pages",
        ok=True,
        detail="The kernel gives none: training on the processor takes about a tenth longer.",
        remedy=f"As root: echo madvise > {PAGES}",
    )


def _port() -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1)
        busy = probe.connect_ex(("127.0.0.1", PORT)) == 0
    detail = f"{PORT} is in use; the studio takes the next free one." if busy else f"{PORT} is free."
    return Finding(check="port", ok=True, detail=detail)
