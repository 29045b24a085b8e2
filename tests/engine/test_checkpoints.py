"""Checkpoints: whole or not there, damage is seen, the disk is asked first, what is restored is what was saved."""

import json
import random
from collections import namedtuple

import numpy as np
import pytest
import torch

from studio.engine import checkpoints
from studio.engine.checkpoints import Keeper, NoRoom, damage, read


def small():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model, torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.1)


def trained(model, optimizer, steps=3):
    for _ in range(steps):
        model(torch.rand(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def state(step, best=0):
    return {"step": step, "best_step": best}


@pytest.mark.spec("U27.4")
def test_everything_comes_back(tmp_path):
    model, optimizer = small()
    trained(model, optimizer)
    place = Keeper(tmp_path, 2).write(model, optimizer, state(3))
    expected = torch.rand(4), np.random.rand(3), random.random()
    trained(model, optimizer)
    after = [value.clone() for value in model.parameters()]
    other, fresh = small()
    assert read(place, other, fresh) == state(3)
    assert torch.equal(torch.rand(4), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]
    trained(other, fresh)
    assert all(torch.equal(one, two) for one, two in zip(after, other.parameters(), strict=True))


def test_only_plain_files_are_written(tmp_path):
    place = Keeper(tmp_path, 2).write(*small(), state(1))
    assert {path.suffix for path in place.iterdir()} == {".safetensors", ".json"}
    assert not [path for path in place.parent.iterdir() if path.name.startswith(".")]


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    keeper = Keeper(tmp_path, 2)
    for step in (0, 1, 2, 3, 10):
        keeper.write(*small(), state(step, best=1))
    assert sorted(keeper.steps()) == [1, 3, 10]
    keeper.forget_after(3)
    assert sorted(keeper.steps()) == [1, 3]


@pytest.mark.parametrize("file", ["adapter.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path, file):
    keeper = Keeper(tmp_path, 3)
    good = keeper.write(*small(), state(1))
    bad = keeper.write(*small(), state(2))
    assert keeper.newest(lambda step, wrong: pytest.fail(wrong)) == bad
    data = bytearray((bad / file).read_bytes())
    skipped = []
    data[len(data) // 2] ^= 1
    (bad / file).write_bytes(data)
    assert keeper.newest(lambda *told: skipped.append(told)) == good
    assert skipped[0][0] == 2
    (bad / file).write_bytes(data[:10])
    assert damage(bad)
    (bad / file).unlink()
    assert "is missing" in damage(bad)


def test_one_that_was_whole_when_the_engine_was_killed_gets_its_name(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path, 1)
    keeper.write(*small(), state(1))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Path, "rename", killed)  # the old one of this step is gone by then
    with pytest.raises(KeyboardInterrupt):
        keeper.write(*small(), state(1, best=1))
    monkeypatch.undo()
    assert keeper.steps() == []
    (keeper.folder / ".step-2.tmp").mkdir()  # not whole
    place = keeper.newest(lambda *told: pytest.fail(str(told)))
    assert json.loads((place / "state.json").read_text())["state"] == state(1, best=1)
    assert [path.name for path in keeper.folder.iterdir()] == ["step-1"]


def test_without_room_nothing_is_touched(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path, 2)
    keeper.write(*small(), state(1))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage(10))
    with pytest.raises(NoRoom, match="0 MB left"):
        keeper.write(*small(), state(2))
    assert keeper.steps() == [1]


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_disk_that_fills_up_while_writing_costs_only_the_new_one(tmp_path, monkeypatch, nth):
    keeper = Keeper(tmp_path, 2)
    good = keeper.write(*small(), state(1))
    real, calls = checkpoints.os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    try:
        keeper.write(*small(), state(2))
    except NoRoom as error:
        assert "No space left" in error.message  # noqa: PT017 - not each of these numbers is reached
    assert not [step for step in keeper.steps() if damage(keeper.folder / f"step-{step}")]
    assert not damage(good)
    assert json.loads((good / "state.json").read_text())["state"] == state(1)


def test_an_ended_run_keeps_weights_alone_whole_at_every_moment(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path, 2)
    place = keeper.write(*small(), state(1))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            keeper.lighten()
    assert not damage(place)
    keeper.lighten()
    assert not damage(place)
    assert not (place / "training.safetensors").exists()
