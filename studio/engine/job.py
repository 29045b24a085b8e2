"""A train job: what its run directory asks for, with the hardware's choices made."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import set_seed

from studio.domain.config import TrainingConfig
from studio.engine import models, parallel, tokens
from studio.engine.report import Reporter, settings, write_json


@dataclass
class Job:
    """What a run directory asks for, with the hardware's choices made."""

    directory: Path
    config: TrainingConfig
    lineage: dict[str, Any]
    reporter: Reporter
    device: torch.device
    dtype: torch.dtype
    tokenizer: Any

    @property
    def base(self) -> Path:
        return Path(self.lineage["model"]["path"])

    @property
    def shared(self) -> bool:
        """Whether each process holds only its part of the base."""
        return self.config.hardware.sharding == "fsdp" and parallel.size() > 1

    @property
    def precision(self) -> str:
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"

    @classmethod
    def open(cls, directory: Path, reporter: Reporter) -> Self:
        """Read a run directory, with the settings changed when it was resumed."""
        lineage = json.loads((directory / "lineage.json").read_text(encoding="utf-8"))
        config = settings(directory)
        device = models.pick_device(config.hardware.device)
        parallel.join(device)
        models.use_all_cores()
        set_seed(config.train.seed)
        # as it was when the run began, so that it goes on the same
        before = lineage.get("engine", {}).get("precision", config.train.precision)
        dtype = models.pick_dtype(before, device)
        tokenizer = tokens.load_tokenizer(Path(lineage["model"]["path"]))
        return cls(directory, config, lineage, reporter, device, dtype, tokenizer)

    def extend_lineage(self, template: str) -> None:
        """Note what the result depends on besides settings and data."""
        extended = copy.deepcopy(self.lineage)
        extended["engine"] = {
            "template_sha256": tokens.template_hash(template),
            "versions": models.versions(),
            "device": str(self.device),
            "precision": self.precision,
        }
        write_json(self.directory / "lineage.json", extended)
