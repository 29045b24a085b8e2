"""Export: an adapter made into something that runs without the studio, compared with the adapter it came from."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from studio.domain.errors import StudioError
from studio.domain.events import Report, ignore
from studio.domain.records import Adapter
from studio.services import adapters as adapter_files
from studio.services import bundle, jobs
from studio.services.adapters import Adapters
from studio.services.held import held_out
from studio.services.models import Models
from studio.storage.paths import Home, write_atomic

Format = Literal["merged", "gguf", "gguf-adapter", "ollama"]
Weights = Literal["f16", "bf16", "q8_0"]
WEIGHTS = {"merged": "16 bits", "gguf-adapter": "32 bits"}  # where there is no choice
PROMPTS = 8  # questions whose answers are compared
# Where the run held nothing back, or its data is gone.
QUESTIONS = (
    "What can you help me with?",
    "Explain in one sentence why the sky is blue.",
    "Write a short greeting for a customer.",
    "How many days does a leap year have?",
)


class Export:
    """Makes folders of adapters, whole or not at all, by an engine process."""

    def __init__(self, home: Home, models: Models, adapters: Adapters, command: Sequence[str] = jobs.ENGINE) -> None:
        self.home, self.models, self.adapters, self.command = home, models, adapters, command

    def run(
        self,
        adapter_ref: str,
        format: Format,
        out: str | Path,
        weights: Weights = "f16",
        report: Report = ignore,
        *,
        zip: bool = False,
    ) -> dict[str, Any]:
        """Write the export to the folder `out`, which must not hold anything yet; return path, parity and files.

        `weights` is how a GGUF file of a model stores them. `parity.ok` says whether it answers as
        the adapter does. A failed comparison keeps the files: the caller decides. With `zip` one ZIP file, `out` with
        that ending, takes the folder's place.
        """
        adapter = self.adapters.get(adapter_ref)
        base = adapter_files.base_of(adapter, self.models)
        out = Path(out).expanduser().absolute()
        try:
            taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
        except OSError as error:
            raise StudioError(f"{out} cannot be read: {error.strerror or error}.", "Name another folder.") from error
        if taken:
            raise StudioError(f"{out} is not empty.", "Name a new folder: nothing is overwritten.")
        if zip:
            bundle.place(out)
        with tempfile.TemporaryDirectory(prefix="export-", dir=self.home.cache) as folder:
            directory = Path(folder)
            request = {
                "model": base.path,
                "base": base.id,
                "adapter": adapter.path,
                "name": adapter.ref,
                "format": format,
                "weights": WEIGHTS.get(format, weights),
                "out": str(out),
                "prompts": self.questions(adapter),
            }
            (directory / "request.json").write_text(json.dumps(request), encoding="utf-8")
            jobs.run("export", directory, self.home.logs / "export.log", report, self.command)
            found = dict(json.loads((directory / "result.json").read_text(encoding="utf-8")))
        if zip:
            found["path"] = str(bundle.pack(out, found["files"], report))
            shutil.rmtree(out)
        if adapter.version:
            _remember(adapter, found)
        return found

    def place(self, adapter: Adapter, format: Format) -> Path:
        """Return a folder in the home that is free for an export."""
        name = f"{adapter.name}-v{adapter.version}-{format}"
        tries = (self.home.exports / (f"{name}-{number}" if number > 1 else name) for number in range(1, 1000))
        return next(path for path in tries if not path.exists() and not path.with_name(f"{path.name}.zip").exists())

    def questions(self, adapter: Adapter) -> list[list[dict[str, str]]]:
        """Return conversations that end with a question: held-out ones of the adapter's run, or some of any kind."""
        asked = [row["messages"][:-1] for row in held_out(self.home, adapter, 0, PROMPTS)]
        return asked or [[{"role": "user", "content": question}] for question in QUESTIONS]


def _remember(adapter: Adapter, found: dict[str, Any]) -> None:
    """Keep beside the version what was made of it last in each form, and how it compared."""
    made = {
        "format": found["format"],
        "weights": found["weights"],
        "path": found["path"],
        "at": jobs.now(),
        "parity": {key: found["parity"][key] for key in ("ok", "prompts", "by", "words")},
    }
    others = [each for each in adapter.exports if each["format"] != made["format"]]
    write_atomic(Path(adapter.path) / adapter_files.EXPORTS, json.dumps([*others, made], ensure_ascii=False, indent=1))
