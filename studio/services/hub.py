"""Models from the Hub: one pinned commit, only safetensors and the files that describe them, checked on arrival.

Keys for private models are those of `hf auth login`; nothing is ever sent there.
"""

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, TypeVar

from studio.domain.errors import ModelError, NotFound, StudioError
from studio.domain.events import Phase, Report
from studio.services.weights import PICKLED, checksum, only_pickled, read_config
from studio.storage.paths import Home

T = TypeVar("T")

SUFFIXES = (".json", ".jinja", ".txt")  # configuration, tokenizer, chat template
NAMES = ("tokenizer.model", "spiece.model")
LOOK = 0.3  # seconds between two looks at a growing folder


class Unreachable(ModelError):
    """There is no way to the Hub now."""


def ask(repo: str, revision: str, patience: float, token: bool | None = None) -> Any:
    """Return the Hub's record of a model (commit, files, licence), or say in words why there is none."""
    from huggingface_hub import HfApi

    def question() -> Any:
        return HfApi().model_info(repo, revision=revision or None, files_metadata=True, timeout=patience, token=token)

    return _told(repo, revision, lambda: aside(question, patience=patience + 1))


def ask_data(repo: str, revision: str, patience: float) -> Any:
    """Return the Hub's record of a data set (commit, files), or say in words why there is none."""
    from huggingface_hub import HfApi

    def question() -> Any:
        return HfApi().dataset_info(repo, revision=revision or None, files_metadata=True, timeout=patience)

    return _told(repo, revision, lambda: aside(question, patience=patience + 1), "data set")


def fetch_files(info: Any, files: list[Any], into: Path, name: str, report: Report) -> list[Path]:
    """Download files of the commit of a data set into a folder; return where they are."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    total = sum(file.size or 0 for file in files)
    names = [file.rfilename for file in files]

    def download() -> None:
        HfApi().snapshot_download(
            info.id, repo_type="dataset", revision=info.sha, local_dir=into, allow_patterns=names, max_workers=4
        )

    def tick() -> None:
        report(Phase(words=f"Downloading {name}", done=min(folder_size(into), total), total=total, unit="bytes"))

    _told(info.id, info.sha, lambda: aside(download, tick), "data set")
    return [into / file for file in names]


def fetch(info: Any, into: Path, name: str, home: Home, report: Report, token: bool | None = None) -> None:
    """Download the commit of `info` into a folder, which may hold a part of it from an earlier try."""
    files = wanted(info, name)
    total = sum(file.size or 0 for file in files)
    home.need(total - folder_size(into), f"the model {name}")

    def tick() -> None:
        report(Phase(words=f"Downloading {name}", done=min(folder_size(into), total), total=total, unit="bytes"))

    # the small files first: a model that may not be used is refused before its weights are fetched
    small = [file.rfilename for file in files if not file.rfilename.endswith(".safetensors")]
    download(info, into, small, tick, token)
    read_config(into / "config.json", name)
    download(info, into, [file.rfilename for file in files], tick, token)
    report(Phase(words=f"Checking {name}"))
    for file in files:
        path = into / file.rfilename
        sound = path.is_file() and file.size in (None, path.stat().st_size)
        if sound and file.lfs:
            sound = checksum(path) == file.lfs.sha256
        if not sound:
            path.unlink(missing_ok=True)
            raise ModelError(f"{file.rfilename} of {name} did not arrive whole.", "Fetch the model again.")


def take(folder: Path, into: Path, name: str, home: Home) -> None:
    """Copy a model from the cache of the Hub's library into a folder: the files that would be downloaded."""
    there = [SimpleNamespace(rfilename=file.name) for file in folder.iterdir() if file.is_file()]
    names = [file.rfilename for file in wanted(SimpleNamespace(siblings=there), name)]
    read_config(folder / "config.json", name)
    home.need(sum((folder / each).stat().st_size for each in names), f"the model {name}")
    into.mkdir(parents=True, exist_ok=True)
    for each in names:
        shutil.copyfile(folder / each, into / each)


def download(
    info: Any, into: Path, names: list[str], tick: Callable[[], None] = lambda: None, token: bool | None = None
) -> None:
    """Bring files of the commit of `info` into a folder, with `tick` now and then."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else it tells of each retry

    def work() -> None:
        HfApi().snapshot_download(
            info.id, revision=info.sha, local_dir=into, allow_patterns=names, token=token, max_workers=4
        )

    _told(info.id, info.sha, lambda: aside(work, tick))


def heads(info: Any) -> dict[str, Any]:
    """Return the tensors in the weights of `info` by name, with `dtype` and `shape`; the weights are not fetched."""
    from huggingface_hub import HfApi, errors

    def work() -> dict[str, Any]:
        try:
            files = HfApi().get_safetensors_metadata(info.id, revision=info.sha).files_metadata.values()
        except (errors.NotASafetensorsRepoError, errors.SafetensorsParsingError) as error:
            raise ModelError(f"The weights of {info.id} cannot be read.", "Choose another model.") from error
        return {name: tensor for file in files for name, tensor in file.tensors.items()}

    return _told(info.id, info.sha, lambda: aside(work))


def wanted(info: Any, name: str) -> list[Any]:
    """Return the files worth having: the weights in one format, and what describes them. Folders are left out."""
    top = [file for file in info.siblings or [] if len(PurePosixPath(file.rfilename).parts) == 1]
    names = [file.rfilename for file in top]
    weights = [file for file in top if file.rfilename.startswith("model") and file.rfilename.endswith(".safetensors")]
    if "adapter_config.json" in names and "config.json" not in names:
        raise ModelError(f"{name} is an adapter, not a base model.", "Name its base with --model.")
    if not weights:
        if pickled := [file for file in names if file.endswith(PICKLED)]:
            raise only_pickled(name, pickled[0])
        raise ModelError(f"{name} holds no weights that can be used here.", "Choose one with model.safetensors.")
    if "config.json" not in names:
        raise ModelError(f"{name} has no config.json.", "Choose a model in the format of transformers.")
    return weights + [file for file in top if file.rfilename.endswith(SUFFIXES) or file.rfilename in NAMES]


def folder_size(folder: Path) -> int:
    """Return the bytes in a folder that may be changing."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # renamed in between
            continue
    return total


def aside(work: Callable[[], T], tick: Callable[[], None] = lambda: None, patience: float = float("inf")) -> T:
    """Run blocking work in a thread, with `tick` now and then; TimeoutError after `patience` seconds.

    Name servers that do not answer cannot be interrupted in any other way.
    """
    results: list[T] = []
    troubles: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            troubles.append(error)

    thread = threading.Thread(target=body, daemon=True)
    started = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        tick()
        if time.monotonic() - started > patience:
            raise TimeoutError(f"no answer in {patience:.0f} s")
    if troubles:
        raise troubles[0]
    return results[0]


def _told(repo: str, revision: str, work: Callable[[], T], what: str = "model") -> T:
    from huggingface_hub import constants, errors

    try:
        return work()
    except StudioError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"The owner of “{repo}” decides who may have it, and you may not yet.",
            f"Request access on {constants.ENDPOINT}/{repo}, log in with `hf auth login`, and try again.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotFound(
            f"There is no {what} “{repo}” on the Hub.",
            f"Check the spelling, name a {'folder, or use `starter`' if what == 'model' else 'file'}. "
            "If it is private, request access and log in with `hf auth login`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(f"“{repo}” has no revision “{revision}”.", "Name a commit, a tag or a branch of it.") from error
    except errors.HFValidationError as error:
        raise NotFound(
            f"“{repo}” is not a name of a {what}.", f"Names look like owner/{what.replace(' ', '-')}."
        ) from error
    # `HTTPError` is that of the HTTP library in use, which changed with version 2 of the Hub's
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ModelError(
                f"The disk became full while {repo} came in.", "Make room, then fetch it again."
            ) from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"answered with error {status}" if status else "cannot be reached"
        raise Unreachable(
            f"The Hub {why}, so “{repo}” cannot be had now.", "Check the network and try again."
        ) from error
