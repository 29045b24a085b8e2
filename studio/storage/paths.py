"""The home folder: where everything is kept, whether it can be written, how much room is left."""

import hashlib
import os
import re
import shutil
import tempfile
import threading
import unicodedata
from pathlib import Path

from platformdirs import user_data_path

from studio.domain.errors import StudioError

FOLDERS = ("models", "datasets", "runs", "adapters", "exports", "chats", "cache", "logs")


class Home:
    """The studio's folder: `PEFT_STUDIO_HOME`, else the platform's user data folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        chosen = root or os.environ.get("PEFT_STUDIO_HOME") or user_data_path("peft-studio", appauthor=False)
        self.root = Path(chosen).expanduser().absolute()

    def __getattr__(self, name: str) -> Path:
        if name in FOLDERS:
            return self.root / name
        raise AttributeError(name)

    @property
    def database(self) -> Path:
        return self.root / "studio.db"

    def prepare(self) -> "Home":
        """Make the folders, and prove that files can be written there."""
        try:
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StudioError(
                f"The home folder {self.root} cannot be written: {error.strerror or error}.",
                "Set PEFT_STUDIO_HOME to a folder you own, or repair its permissions.",
            ) from error
        return self

    def need(self, size: int, what: str) -> None:
        """Refuse when `size` bytes and a tenth more are not free, naming what needs them."""
        free = shutil.disk_usage(self.root).free
        if free < size * 1.1:
            raise StudioError(
                f"No room for {what}: it needs {size * 1.1 / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in {self.root}.",
                "Delete old runs or adapters, or set PEFT_STUDIO_HOME to a larger disk.",
            )

    def inside(self, path: str | Path) -> Path:
        """Return the resolved path, refusing one that leaves the home folder."""
        resolved = Path(path).resolve()
        if not resolved.is_relative_to(self.root.resolve()):
            raise StudioError(f"{path} is outside the studio's home folder.", "Choose something the studio made.")
        return resolved


def slug(text: str, fallback: str = "untitled") -> str:
    """Return a name safe as a folder on every system: ASCII letters, digits and dashes, at most 48 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:48].strip("-")
    reserved = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
    return f"{name}-" if name in reserved else name or fallback


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | Path, text: str, mode: int = 0o666) -> None:
    """Write a small file so that it is either the old one or the new one, whatever happens.

    `mode` is who may read and write it, less what the system's mask forbids, from its first byte on.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk keeps no half file
        raise
