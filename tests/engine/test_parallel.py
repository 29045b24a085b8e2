"""One run in two processes: the same numbers as in one, a stop that all obey, a death that ends it in words."""

import json
import time

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from studio.domain import events
from studio.domain.errors import EngineError
from studio.engine import loss, memory, parallel, train
from studio.engine.batches import Steps, real_tokens
from studio.engine.report import Reporter, settings
from studio.engine.rows import Row, Table
from tests.engine.conftest import EXAMPLES, make_model, talk
from tests.engine.test_fused import adapted
from tests.engine.test_train import engine, of, told, wait_for_steps
from tests.engine.test_trainer import pause_at, weights

# Rows of very different length, and three of them a step: one process has one row, now and then, and the last step of
# a pass has a single row, so that the other process has none.
UNEVEN = EXAMPLES[:8] + [talk(f"What is the colour of thing {i}?", "The sky is blue. " * i, 9 + i) for i in range(6)]
# Adam divides by the size of a gradient, also of one that is next to nothing: its rounding shows at the rate's scale.
SETTINGS = ["train.max_steps=5", "train.effective_rows=3", "evaluate.every=2", "train.batch_tokens=64"]
SETTINGS += ["train.learning_rate=1e-3"]
ENDLESS = ["train.max_steps=100000", "evaluate.every=100000", "evaluate.answers=0", "hardware.processes=2"]


@pytest.mark.parametrize(
    ("base", "more"),
    [
        pytest.param("llama", [], id="each the whole base"),
        pytest.param("llama", ["hardware.sharding=fsdp", "train.recompute=on"], id="shared base"),
        pytest.param("gpt2", ["hardware.sharding=fsdp"], id="shared base, padded rows", marks=pytest.mark.slow),
    ],
)
def test_two_processes_learn_what_one_learns(tmp_path, make_run, monkeypatch, base, more):
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    model = make_model(tmp_path / "model" / base, base, **(shape if base == "gpt2" else {}))
    alone, together = (
        make_run(model, *SETTINGS, *more, f"hardware.processes={number}", examples=UNEVEN, held=3) for number in (1, 2)
    )
    if more:  # its first steps are those of one process, and two go on from its checkpoint
        with monkeypatch.context() as patch:
            pause_at(together, patch, 2)
            train.run(together, Reporter(together))
        (together / "control" / "pause").unlink()
    process = engine(together)
    train.run(alone, Reporter(alone))
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    one, two = told(alone), told(together)
    assert of(events.Started, two)[-1].settings["processes"] == 2
    assert of(events.Started, two)[-1].resumed_from == (2 if more else None)
    assert [event.seq for event in two] == list(range(len(two))), "one process alone writes events"
    for kind, names in (
        (events.Step, ("step", "loss", "grad_norm", "learning_rate", "tokens")),
        (events.Evaluated, ("step", "loss")),
    ):
        pairs = list(zip(of(kind, one), of(kind, two), strict=True))
        assert pairs
        for a, b in pairs:
            for name in names:
                assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-5), name
    assert any(step.grad_norm > 0 for step in of(events.Step, one))
    final = [of(events.Finished, found)[0].result["eval"] for found in (one, two)]
    assert final[0]["adapter"]["loss"] == pytest.approx(final[1]["adapter"]["loss"], rel=1e-5)
    expected, found = weights(alone), weights(together)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    facts = json.loads((together / "process.json").read_text())
    assert facts["pid"] == process.pid, "the process the studio knows is the one that started the others"


@pytest.mark.parametrize("way", ["stop file", "SIGTERM"])
def test_stop_and_pause_are_obeyed_by_all_at_the_same_step(tiny, make_run, way):
    directory = make_run(tiny, *ENDLESS)
    process = engine(directory)
    wait_for_steps(directory, 3)
    heard = [
        place.laddr.ip
        for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children())
        for place in one.net_connections()
        if place.status == psutil.CONN_LISTEN
    ]
    assert set(heard) == {"127.0.0.1"}, "nothing listens outside this machine"
    if way == "SIGTERM":
        process.terminate()
        assert process.wait(60) == 0
        paused = told(directory)[-1]
        assert isinstance(paused, events.Paused)
        (directory / "control" / "stop").touch()
        train.run(directory, Reporter(directory))  # one process goes on from the checkpoint of two
        assert of(events.Started, told(directory))[-1].resumed_from == paused.step
    else:
        (directory / "control" / "stop").touch()
        assert process.wait(60) == 0
    finished = of(events.Finished, told(directory))[0]
    assert finished.stopped
    assert finished.step >= 3
    assert finished.result["eval"]["verdict"]
    assert weights(directory)


def test_a_process_that_dies_ends_the_run_in_words(tiny, make_run):
    directory = make_run(tiny, *ENDLESS)
    process = engine(directory)
    wait_for_steps(directory, 3)
    first, second = sorted(psutil.Process(process.pid).children(), key=lambda child: child.environ()["RANK"])
    second.kill()
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 1
    assert not first.is_running()
    failed = told(directory)[-1]
    assert isinstance(failed, events.Failed), output
    assert failed.message == "Process 2 of 2 was ended by the system, most often for lack of memory."
    assert not (directory / "adapter").exists()


@pytest.mark.slow
def test_a_failure_of_all_is_told_once_and_nobody_outlives_who_started_them(tiny, make_run):
    broken, orphaned = (make_run(tiny, "hardware.processes=2") for _ in range(2))
    lineage = json.loads((broken / "lineage.json").read_text())
    lineage["model"]["path"] = str(broken / "gone")
    (broken / "lineage.json").write_text(json.dumps(lineage))
    failing, killed = engine(broken), engine(orphaned)
    while len(workers := psutil.Process(killed.pid).children()) < 2:
        time.sleep(0.05)
    killed.kill()
    failing.communicate(timeout=60)
    assert failing.returncode == 1
    (failed,) = of(events.Failed, told(broken))
    assert "gone" in failed.message
    assert failed.hint
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not (orphaned / "adapter").exists()


@given(st.lists(st.integers(1, 3000), max_size=40), st.integers(1, 8))
def test_shares_hold_every_row_once_and_are_even(lengths, parts):
    found = parallel.shares(lengths, parts)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    load = [sum(lengths[i] for i in part) for part in found]
    assert max(load) - min(load) <= max(lengths, default=0)
    assert parallel.shares(lengths, 1)[0].tolist() == list(range(len(lengths))), "one process keeps the order"


@given(st.lists(st.integers(2, 90), min_size=1, max_size=30), st.integers(2, 5), st.integers(1, 9), st.booleans())
def test_the_packs_of_a_step_hold_no_token_twice_and_lose_none(lengths, number, per_step, padded):
    begins = np.cumsum(lengths) - lengths
    rows = [
        Row(np.arange(b, b + n, dtype=np.int32), np.ones(n, bool)) for b, n in zip(begins, lengths, strict=True)
    ]  # every token is told apart
    table = Table.of(rows)
    total = -(-len(rows) // per_step)
    steps = Steps(table, per_step, 128, total, 42, 0 if padded else None)
    seen = []
    for step in range(total):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel, "size", lambda: number)
            parts = []
            for rank in range(number):
                patch.setattr(parallel, "rank", lambda rank=rank: rank)
                parts.append(steps[step])
        whole, found = steps[step], [batch for part in parts for batch in part]
        assert sum(map(real_tokens, whole)) == sum(map(real_tokens, found))
        assert learned(whole) == learned(found)
        seen += learned(found)
    assert sorted(seen) == sorted(set(range(table.tokens)) - set(begins.tolist())), "all but the first of each row"


def learned(batches):
    return sorted(label for batch in batches for label in batch["labels"].flatten().tolist() if label != -100)


@pytest.fixture
def pretended():
    """A group of two whose other process is pretended, to look at what one of them holds."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def test_a_shared_base_leaves_each_process_its_part_and_the_adapter_whole(pretended):
    model = adapted("llama")
    before = {name: value.numel() for name, value in model.named_parameters()}
    parallel.shard(model, memory.layers_of(model), torch.device("cpu"))
    for name, value in model.named_parameters():
        held = value.to_local().numel() if isinstance(value, DTensor) else value.numel()
        part = 2 if ".layers." in name and "lora_" not in name else 1
        assert held == before[name] // part, name


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_idle_batch_adds_nothing_but_takes_part(kind):
    model = adapted(kind)
    value = loss.padded(model, parallel.IDLE)
    value.backward()
    assert value == 0
    gradients = [part.grad for part in model.parameters() if part.requires_grad]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_more_processes_than_cards_are_refused(tiny, make_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parallel.processes(settings(make_run(tiny)).hardware) == 2
    with pytest.raises(EngineError, match="3 processes need 3 CUDA cards; there are 2"):
        parallel.processes(settings(make_run(tiny, "hardware.processes=3")).hardware)
