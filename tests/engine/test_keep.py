"""An earlier step's weights become an adapter like any other."""

import json

import pytest
import torch

from studio.domain.errors import DataError
from studio.engine import keep
from studio.engine.report import Reporter
from tests.engine.test_trainer import TEN, run, same, weights


def kept(directory, step, folder):
    folder.mkdir()
    (folder / "request.json").write_text(json.dumps({"run": str(directory), "step": step, "steps": 10}))
    keep.run(folder, Reporter(folder))
    return folder


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_the_last_step_is_the_adapter_and_an_earlier_one_is_not(tiny, make_run, tmp_path, method):
    settings = [*TEN, f"method.name={method}", "method.rank=4", "checkpoint.every_steps=1", "checkpoint.keep=3"]
    if method == "pissa":
        settings.remove("method.dropout=0.2")
    directory = make_run(tiny, *settings)
    run(directory)
    last, earlier = (kept(directory, step, tmp_path / f"kept-{step}") for step in (10, 9))
    assert same(weights(last), weights(directory))
    assert weights(earlier).keys() == weights(directory).keys()
    assert not same(weights(earlier), weights(directory))
    assert all(torch.isfinite(value).all() for value in weights(earlier).values())
    facts = json.loads((earlier / "adapter" / "studio.json").read_text())
    assert (facts["steps"], facts["metrics"]) == (9, {"verdict": "Not measured: kept from step 9 of its run."})
    (directory / "checkpoints" / "step-9" / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="step 9 cannot be used"):
        kept(directory, 9, tmp_path / "again")
