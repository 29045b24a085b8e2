"""How much a run needs is estimated from its settings, near what runs took."""

import json
import tempfile
from pathlib import Path
from typing import Any

from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.records import Run
from studio.services.capacity import need
from studio.storage.paths import Home
from tests.services.test_queue import Paper


def run_with(home: Home, parameters: int, **groups: Any) -> Run:
    paper = Paper(Path(tempfile.mkdtemp(dir=home.cache)), 1)
    run = paper.get("a-0")
    document = {"model": {"id": "starter"}, "data": {"path": "desk"}} | groups
    Path(run.path, "config.yaml").write_text(to_yaml(TrainingConfig.model_validate(document), {}))
    Path(run.path, "lineage.json").write_text(json.dumps({"model": {"parameters": parameters}}))
    return run


def test_the_estimate_is_near_what_was_measured(home: Home) -> None:
    """The starter with LoRA of rank 16 and 2,048 tokens at once took 2.7 GB (docs/reference/benchmarks.md)."""
    found = need(run_with(home, 134_515_008, train={"batch_tokens": 2048}), bf16=False)
    assert 2.7e9 / 1.5 < found < 2.7e9 * 1.5


def test_the_estimate_grows_with_what_is_asked(home: Home) -> None:
    usual = need(run_with(home, 10**9))
    assert need(run_with(home, 2 * 10**9)) > usual
    assert need(run_with(home, 10**9, method={"rank": 64})) > usual
    assert need(run_with(home, 10**9, train={"batch_tokens": 8192})) > usual
    assert need(run_with(home, 10**9), bf16=False) > usual
    assert need(run_with(home, 10**9, method={"name": "qlora"}), bf16=False) < need(run_with(home, 10**9), bf16=False)
    assert need(run_with(home, 10**9, train={"recompute": "on"})) < usual
