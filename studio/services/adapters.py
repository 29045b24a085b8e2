"""The adapters: numbered versions a name, one of them active, kept apart from the runs they came from."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio.domain.errors import ModelError, NotFound, StudioError
from studio.domain.records import Adapter, Model, Run
from studio.services import about, jobs, policy
from studio.services.freed import freed_by, in_use, shared
from studio.services.models import Models
from studio.storage.paths import Home, slug, write_atomic
from studio.storage.store import Store, versions

REF = re.compile(r"([a-z0-9][a-z0-9-]*)(?:@v?(\d+))?")
WEIGHTS = "adapter_model.safetensors"
EXPORTS = "exports.json"  # beside a version: what was made of it, and how it compared
PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


class Adapters:
    """Reads the adapters' folders; only which version is active comes from the store."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store

    def list(self, name: str | None = None, base: str | None = None, archived: bool = False) -> list[Adapter]:
        """Return the versions, names in order, newest first; only of one name or one base (its id or path) if given.

        Archived ones are left out unless they are asked for.
        """
        active = self.store.active()
        names = [name] if name else sorted(entry.name for entry in self.home.adapters.iterdir() if entry.name[0] != ".")
        found = []
        for each in names:
            known = [self._read(each, number) for number in reversed(versions(self.home.adapters / each))]
            chosen = next((it for it in known if it.version == active.get(each)), None)
            chosen = chosen or next((it for it in known if not it.archived), None)
            if chosen:
                chosen.active = True
            found += [it for it in known if archived or not it.archived]
        return [adapter for adapter in found if base is None or base in (adapter.base, adapter.base_path)]

    def get(self, ref: str) -> Adapter:
        """Return `name@v2`, the active version of `name`, or the adapter in a folder."""
        match = REF.fullmatch(ref)
        listed = self.list(match[1], archived=True) if match else []
        if match and listed:
            for adapter in listed:
                if adapter.version == int(match[2]) if match[2] else adapter.active:
                    return adapter
            known = ", ".join(f"v{adapter.version}" for adapter in listed)
            raise NotFound(f"{match[1]} has no version {match[2]}.", f"It has {known}.")
        folder = Path(ref).expanduser()
        if folder.is_dir():
            return _folder(folder.absolute())
        names = ", ".join(sorted({adapter.name for adapter in self.list()}))
        raise NotFound(
            f"There is no adapter {ref}.", f"There are: {names}." if names else "A finished training run makes one."
        )

    def add(self, run: Run) -> Adapter:
        """Make a run's adapter the next version of its name. Whoever asks again, at any time, gets the same one."""
        source = Path(run.path) / "adapter"
        lineage_file = Path(run.path) / "lineage.json"
        if ref := json.loads(lineage_file.read_text(encoding="utf-8")).get("adapter"):
            return self.get(ref)
        peft_settings(source)
        name = slug(run.name)
        try:
            made = self._keep(run, source, lineage_file, name)
        except OSError as error:
            raise StudioError(
                f"The adapter of {run.id} could not be kept: {error.strerror or error}.",
                f"Make room. Until then it can be used by its path: {source}.",
            ) from error
        return self.get(made)

    def add_step(self, run: Run, step: int, source: Path) -> Adapter:
        """Make the adapter of one step of a run, lying in `source`, the next version of its name."""
        peft_settings(source)
        name = slug(run.name)
        parent = self.home.adapters / name
        parent.mkdir(exist_ok=True)
        with self.store.exclusive():
            number = self.store.next_version(name)
            # without `run_created`: that names the version the run made when it ended
            origin = {"run": run.id, "step": step}
            known = facts(source) | {"name": name, "version": number, "created": jobs.now(), **origin}
            _copy([*source.iterdir(), Path(run.path) / "config.yaml"], parent / f"v{number}", known)
        return self.get(f"{name}@v{number}")

    def activate(self, ref: str) -> Adapter:
        """Let the name alone stand for this version; the one before is remembered, to go back to."""
        with self.store.exclusive():
            adapter = self.kept(ref)
            if adapter.archived:
                raise StudioError(f"{adapter.ref} is archived.", f"`peft-studio adapters restore {adapter.ref}` first.")
            before = self.get(adapter.name).version
            if before != adapter.version:
                policy.write(self._folder(adapter.name), before=before)
            self.store.activate(adapter.name, adapter.version)
        return self.get(adapter.ref)

    def frees(self, ref: str) -> int:
        """Return the bytes that deleting a version frees; refuse for one that cannot be deleted now."""
        adapter = self.kept(ref)
        others = [each for each in self.list(adapter.name, archived=True) if each.version != adapter.version]
        if adapter.active and others:
            raise StudioError(
                f"{adapter.ref} is the active version.", f"Make another one active first, as {others[0].ref}."
            )
        if user := in_use(self.home, adapter):
            raise StudioError(f"{adapter.ref} is in use: {user}.", "Try again when that has ended.")
        return freed_by(self.home, adapter)

    def remove(self, ref: str) -> int:
        """Delete a version and return the bytes freed. Its number is not given again; of its run all but these weights
        stays.
        """
        with self.store.exclusive():
            freed = self.frees(ref)
            adapter = self.kept(ref)
            if adapter.active:  # the last one
                policy.forget(self._folder(adapter.name))
                self.store.activate(adapter.name, None)
            for file in shared(self.home, adapter):
                file.unlink(missing_ok=True)
            doomed = tempfile.mkdtemp(prefix=".removed-", dir=self.home.adapters)
            os.replace(adapter.path, Path(doomed) / "adapter")  # gone at once, whatever happens to the deletion
        shutil.rmtree(doomed, ignore_errors=True)
        with suppress(OSError):  # other versions are in there
            Path(adapter.path).parent.rmdir()
        return freed

    def _keep(self, run: Run, source: Path, lineage_file: Path, name: str) -> str:
        parent = self.home.adapters / name
        parent.mkdir(exist_ok=True)
        with self.store.exclusive():
            lineage = json.loads(lineage_file.read_text(encoding="utf-8"))
            made = lineage.get("adapter") or self._of_run(name, run)
            if not made:
                number = self.store.next_version(name)
                known = facts(source)
                origin = {"run": run.id, "run_created": run.created}
                first = not versions(parent)
                held = "" if first else policy.refusal(known.get("metrics") or {}, policy.read(parent).most_lost)
                known |= {"name": name, "version": number, "created": jobs.now(), "held": held, **origin}
                _copy([*source.iterdir(), Path(run.path) / "config.yaml"], parent / f"v{number}", known)
                made = f"{name}@v{number}"
                if not held:
                    self.activate(made)
            write_atomic(lineage_file, json.dumps(lineage | {"adapter": made}, indent=2, ensure_ascii=False))
        return str(made)

    def kept(self, ref: str) -> Adapter:
        """Return a version of the studio's own, not a folder elsewhere."""
        adapter = self.get(ref)
        if not adapter.version:
            raise NotFound(f"{ref} is a folder outside the studio.", "Name one of `peft-studio adapters list`.")
        return adapter

    def _folder(self, name: str) -> Path:
        return self.home.adapters / name

    def _read(self, name: str, number: int) -> Adapter:
        return _record(self._folder(name) / f"v{number}", name, number)

    def _of_run(self, name: str, run: Run) -> str | None:
        """Return the version made of this very run; ids start over when run folders are deleted, times do not."""
        for number in versions(self.home.adapters / name):
            known = facts(self.home.adapters / name / f"v{number}")
            if (known.get("run"), known.get("run_created")) == (run.id, run.created):
                return f"{name}@v{number}"
        return None


def base_of(adapter: Adapter, models: Models) -> Model:
    """Return the base an adapter was trained on; its folder decides, then its name."""
    base = models.find(adapter.base_path) if adapter.base_path else None
    base = base or (models.find(adapter.base) if adapter.base else None)
    if base is None:
        raise ModelError(
            f"The base model of {adapter.ref}, {adapter.base or 'unnamed'}, is not on this machine.",
            f"`peft-studio models fetch {adapter.base}` gets it." if adapter.base else "Name the model it belongs to.",
        )
    return base


def facts(folder: Path) -> dict[str, Any]:
    """Return what `studio.json` says about an adapter; nothing when it was made elsewhere."""
    try:
        known = json.loads((folder / "studio.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def lineage(known: dict[str, Any]) -> dict[str, Any]:
    """Return what an adapter came from, of its facts: data, base, code, seed, machine. Its settings lie beside it."""
    base = known.get("base")
    found = {
        "dataset_sha256": known.get("dataset_sha256"),
        "base_revision": base.get("revision") if isinstance(base, dict) else None,
        "studio": known.get("studio"),
        "versions": known.get("versions"),
        "seed": known.get("seed"),
        "device": known.get("device"),
        "precision": known.get("precision"),
    }
    return {key: value for key, value in found.items() if value not in (None, "")}


def peft_settings(folder: Path) -> dict[str, Any]:
    """Return the peft settings of an adapter folder; refuse one that is incomplete or pickled."""
    if not (folder / WEIGHTS).is_file():
        if any(entry.suffix in PICKLED for entry in folder.glob("*")):
            raise ModelError(
                f"{folder} holds pickled weights (.bin), which can run code when loaded.",
                "Ask for a safetensors version, or convert it elsewhere.",
            )
        raise ModelError(f"{folder} holds no {WEIGHTS}.", "Name the folder an adapter was saved in.")
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no adapter_config.json.", "Name the folder an adapter was saved in."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder}/adapter_config.json cannot be read.", "Fetch the adapter again.") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{folder}/adapter_config.json holds no settings.", "Fetch the adapter again.")
    return settings


def _record(folder: Path, name: str, version: int, base: str = "") -> Adapter:
    known = facts(folder)
    said = about.read(folder)
    made_on = known.get("base")
    if not isinstance(made_on, dict):
        made_on = {}
    try:
        return Adapter(
            name=name,
            version=version,
            path=str(folder),
            base=made_on.get("id", base),
            base_path=made_on.get("path", ""),
            run=known.get("run", ""),
            step=known.get("step"),
            method=known.get("method", ""),
            created=known.get("created", ""),
            bytes=sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file()),
            archived=said.archived,
            note=said.note,
            tags=said.tags,
            held=known.get("held", ""),
            lineage=lineage(known),
            metrics=known.get("metrics", {}),
            exports=_exports(folder),
        )
    except ValidationError as error:
        raise ModelError(f"{folder}/studio.json was not written by the studio.", "Delete that file.") from error


def _exports(folder: Path) -> list[dict[str, Any]]:
    """Return what was exported of a version, as `exports.json` says; nothing where it cannot be read."""
    try:
        known = json.loads((folder / EXPORTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    whole = {"format", "weights", "path", "at", "parity"}
    return [each for each in known if isinstance(each, dict) and whole <= set(each)] if isinstance(known, list) else []


def _folder(folder: Path) -> Adapter:
    """Read an adapter that is not the studio's: version 0, its base as far as it is known."""
    base = peft_settings(folder).get("base_model_name_or_path") or ""
    return _record(folder, facts(folder).get("name") or folder.name, 0, base=base)


def _copy(files: Iterable[Path], target: Path, known: dict[str, Any]) -> None:
    """Put an adapter's files and its facts at `target`, whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parents[1]))
    try:
        for file in files:
            if file.is_symlink() or not file.is_file() or file.suffix in PICKLED or file.name == "studio.json":
                continue
            if file.suffix != ".safetensors" or not _link(file, staging / file.name):
                shutil.copyfile(file, staging / file.name)
        write_atomic(staging / "studio.json", json.dumps(known, indent=2, ensure_ascii=False))
        os.replace(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _link(file: Path, target: Path) -> bool:
    """Share the weights with the run, which needs no room; not every file system can."""
    try:
        os.link(file, target)
    except OSError:
        return False
    return True
