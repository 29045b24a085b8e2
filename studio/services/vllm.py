"""vLLM, which serves many users at once: the command and the configuration for adapters of one base.

It does not start vLLM, and does not know whether vLLM has the base's architecture with LoRA. The rules are those of
vLLM 0.33 (vllm/lora/peft_helper.py, vllm/lora/utils.py, vllm/config/lora.py).
"""

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from studio.domain.errors import StudioError
from studio.domain.methods import METHODS
from studio.domain.records import Adapter, Model
from studio.services import weights
from studio.services.adapters import WEIGHTS, Adapters, base_of, facts, peft_settings
from studio.services.models import Models
from studio.services.programs import full_name
from studio.storage.paths import Home, write_atomic

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of which --max-lora-rank is one
AT_ONCE = 8  # adapters in one batch unless asked otherwise: each takes the room of the largest rank on the card
INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # they change no weight of the base
TENSORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
# settings of peft that vLLM does not read, each with what it is
UNREAD = {
    "use_dora": "is a DoRA adapter",
    "lora_bias": "has biases",
    "modules_to_save": "holds whole layers besides (modules_to_save)",
    "trainable_token_indices": "holds tokens it learned (trainable_token_indices)",
    "alora_invocation_tokens": "is an aLoRA adapter",
    "layer_replication": "repeats layers of the base (layer_replication)",
    "use_bdlora": "is a BD-LoRA adapter",
    "use_qalora": "is a QALoRA adapter",
}
VIRTUAL = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING")  # nothing to merge


class Unserved(BaseModel):
    """An adapter that vLLM does not serve, why, and what else can be done."""

    adapter: str
    why: str
    hint: str


class Serving(BaseModel):
    """What vLLM is started with. `names` are those programs ask for, each with its folder."""

    base: str
    names: dict[str, str]
    options: dict[str, Any]
    refused: list[Unserved] = []

    @property
    def command(self) -> list[str]:
        """The words of the command; the options are in the order of the configuration."""
        words = ["vllm", "serve", self.options["model"]]
        for name, value in self.options.items():
            if name != "model":
                words += [f"--{name}", *(value if isinstance(value, list) else [] if value is True else [str(value)])]
        return words

    @property
    def shell(self) -> str:
        """The command for a shell, an option a line."""
        lines: list[list[str]] = [[]]
        for word in self.command:
            if word.startswith("--"):
                lines.append([])
            lines[-1].append(shlex.quote(word))
        return " \\\n  ".join(" ".join(line) for line in lines)

    @property
    def config(self) -> str:
        """The same as a file for `vllm serve --config`."""
        return yaml.safe_dump(self.options, sort_keys=False, allow_unicode=True, width=1000)


class Vllm:
    """Writes what vLLM is started with for adapters of this studio."""

    def __init__(self, home: Home, models: Models, adapters: Adapters) -> None:
        self.home, self.models, self.adapters = home, models, adapters

    def plan(self, refs: Sequence[str], at_once: int | None = None) -> Serving:
        """Return how these adapters are served; those that cannot be are in `refused`, and none is an error."""
        chosen = [self.adapters.get(ref) for ref in dict.fromkeys(refs)]
        if not chosen:
            raise StudioError("No adapter is named.", "Name those that vLLM shall serve.")
        base = base_of(chosen[0], self.models)
        for other in chosen[1:]:
            if (own := base_of(other, self.models)).path != base.path:
                raise StudioError(
                    f"{other.ref} was trained on {own.id}, {chosen[0].ref} on {base.id}.",
                    "One vLLM serves one base: ask for each by itself.",
                )
        refused: list[Unserved] = []
        served: list[Adapter] = []
        template = ""
        for adapter in chosen:
            learned = str(facts(Path(adapter.path)).get("template") or "") or _template(Path(base.path))
            why = next(_faults(adapter), "")
            if not why and served and learned != template:
                why = f"was trained with another chat template than {served[0].ref}, and vLLM has one for all"
            if why:
                refused.append(Unserved(adapter=adapter.ref, why=f"{adapter.ref} {why}.", hint=_instead(adapter)))
            else:
                served.append(adapter)
                template = learned
        if not served:
            first = refused[0]
            raise StudioError(f"Nothing is left for vLLM to serve: {first.why}", first.hint)
        return self._serving(base, served, template, at_once or min(len(served), AT_ONCE), refused)

    def _serving(
        self, base: Model, served: list[Adapter], template: str, at_once: int, refused: list[Unserved]
    ) -> Serving:
        names = {full_name(base, adapter): adapter.path for adapter in served}
        folder = Path(base.path)
        options: dict[str, Any] = {
            "model": base.path,
            "served-model-name": base.id,
            "dtype": _dtype(folder),
            "host": "127.0.0.1",  # vLLM's own default is every address of the machine
            "port": 8000,
            "enable-lora": True,
            "max-lora-rank": next(rank for rank in RANKS if rank >= max(map(_rank, served))),
            "max-loras": at_once,
            "max-cpu-loras": max(at_once, len(served)),
        }
        if template and template != _template(folder):
            options["chat-template"] = str(self._write(template))
        options["lora-modules"] = [
            json.dumps({"name": name, "path": path, "base_model_name": base.id}) for name, path in names.items()
        ]
        return Serving(base=base.id, names=names, options=options, refused=refused)

    def _write(self, template: str) -> Path:
        """Put a template where vLLM can read it."""
        path = self.home.exports / f"template-{hashlib.sha256(template.encode()).hexdigest()[:12]}.jinja"
        if not path.exists():
            write_atomic(path, template)
        return path


def _faults(adapter: Adapter) -> Iterator[str]:
    """Yield what vLLM does not serve of an adapter."""
    settings = peft_settings(Path(adapter.path))
    kind = settings.get("peft_type")
    if kind != "LORA":
        named = METHODS[adapter.method].title if adapter.method in METHODS else kind
        yield f"is made with {named}, and vLLM reads LoRA alone"
        return
    yield from (words for name, words in UNREAD.items() if settings.get(name))
    if settings.get("bias", "none") != "none":
        yield f"holds biases of the base (bias: {settings['bias']})"
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in INITS:
        yield f"belongs to a base that its start has changed (init_lora_weights: {start})"
    if (rank := _rank(adapter)) > RANKS[-1]:
        yield f"has rank {rank}, and vLLM takes at most {RANKS[-1]}"
    names = weights.header(Path(adapter.path) / WEIGHTS, adapter.ref)
    yield from (f"holds {name}, which is no LoRA weight" for name in names if not name.endswith(TENSORS))


def _rank(adapter: Adapter) -> int:
    settings = peft_settings(Path(adapter.path))
    return int(max([settings.get("r") or 1, *(settings.get("rank_pattern") or {}).values()]))


def _instead(adapter: Adapter) -> str:
    if peft_settings(Path(adapter.path)).get("peft_type") in VIRTUAL:
        return "It cannot be put into a base either: it answers here, in Chat and for your programs."
    return (
        f"Make it a model of its own, which vLLM serves as one: `peft-studio export {adapter.ref} --format merged "
        "--out DIR`, then `vllm serve DIR`."
    )


def _dtype(folder: Path) -> str:
    """Return the 16 bits a base is served in: bf16, whose range is that of fp32, unless it was made in fp16."""
    config = weights.read_config(folder / "config.json", folder.name)
    inner = config["text_config"] if isinstance(config.get("text_config"), dict) else {}
    kinds = {each.get(key) for each in (config, inner) for key in ("dtype", "torch_dtype")}
    return "float16" if "float16" in kinds else "bfloat16"


def _template(folder: Path) -> str:
    """Return the chat template in a model folder, as transformers looks for it; "" where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        told = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(told, list):  # several named ones
        told = next((each.get("template") for each in told if each.get("name") == "default"), "")
    return str(told or "")
