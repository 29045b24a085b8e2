"""Going on exactly: a run that was paused, killed or short of memory ends like one that was left alone."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from studio.domain import events
from studio.domain.errors import EngineError
from studio.domain.methods import METHODS
from studio.engine import checkpoints, guard, memory, train, trainer
from studio.engine.guard import Finding
from studio.engine.report import Reporter, Wishes
from tests.engine.test_train import engine, of, told, wait_for_steps

# Two passes of five steps, dropout so that random numbers matter, checks so that evaluation comes between.
TEN = [
    "train.max_steps=10",
    "method.dropout=0.2",
    "evaluate.every=3",
    "evaluate.early_stopping=0",
    "evaluate.answers=0",
]


def run(directory):
    train.run(directory, Reporter(directory))
    return told(directory)


def steps(found):
    """The loss of each step as it stands in the end, by number."""
    losses: dict[int, float] = {}
    for event in found:
        if isinstance(event, events.Started) and event.resumed_from is not None:
            losses = {number: loss for number, loss in losses.items() if number <= event.resumed_from}
        elif isinstance(event, events.Step):
            assert event.step == max(losses, default=0) + 1
            losses[event.step] = event.loss
    return losses


def weights(directory):
    return load_file(directory / "adapter" / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pause_at(directory, monkeypatch, *numbers):
    """Put the pause file there when the step of that number has been told."""
    emit = Reporter.emit

    def told_and_paused(self, event):
        emit(self, event)
        if isinstance(event, events.Step) and event.step in numbers:
            (directory / "control" / "pause").touch()

    monkeypatch.setattr(Reporter, "emit", told_and_paused)


@pytest.mark.spec("U27.3")
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_one_that_was_left_alone_bit_by_bit(tiny, make_run, monkeypatch, method):
    settings = [*TEN, f"method.name={method}"]
    if "rank" in METHODS[method].knobs:
        settings.append("method.rank=4")
    if "dropout" not in METHODS[method].knobs:
        settings.remove("method.dropout=0.2")
    if method == "qlora":
        settings.append("train.precision=fp32")
    whole, parted = make_run(tiny, *settings), make_run(tiny, *settings)
    expected = steps(run(whole))
    pause_at(parted, monkeypatch, 2, 6, 9)  # in the middle of a pass, right before and after a check
    pauses = 0
    while not of(events.Finished, found := run(parted)):
        pauses += 1
        (parted / "control" / "pause").unlink()
        assert pauses < 9
    assert pauses == 3
    assert steps(found) == expected
    assert same(weights(whole), weights(parted))
    checks = [[(e.step, e.loss) for e in of(events.Evaluated, each)] for each in (told(whole), found)]
    assert dict(checks[0]) == dict(checks[1])


def test_with_the_optimizer_in_eight_bits_too(tiny, make_run, monkeypatch):
    settings = [*TEN, "train.optimizer=adamw_8bit"]
    whole, parted = make_run(tiny, *settings), make_run(tiny, *settings)
    expected = steps(run(whole))
    pause_at(parted, monkeypatch, 4)
    run(parted)
    (parted / "control" / "pause").unlink()
    assert steps(run(parted)) == expected


def test_a_paused_engine_says_where_it_goes_on_and_leaves_no_adapter(tiny, make_run, monkeypatch):
    directory = make_run(tiny, *TEN)
    pause_at(directory, monkeypatch, 2)
    found = run(directory)
    paused = found[-1]
    assert isinstance(paused, events.Paused)
    assert (paused.step, paused.checkpoint, paused.words) == (2, "checkpoints/step-2", "")
    assert paused.memory_bytes > 10_000_000
    assert not checkpoints.damage(directory / paused.checkpoint)
    assert not (directory / "adapter").exists()


def test_a_killed_engine_goes_on_from_its_checkpoint(tiny, make_run):
    settings = ["train.max_steps=40", "checkpoint.every_steps=1", "evaluate.answers=0", "evaluate.every=1000"]
    whole, killed = make_run(tiny, *settings), make_run(tiny, *settings)
    expected = steps(run(whole))
    process = engine(killed)
    wait_for_steps(killed, 5)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    (killed / "events.jsonl").open("ab").write(b'{"type": "step", "step": 99')  # torn, as a kill may leave it
    found = run(killed)
    assert of(events.Started, found)[-1].resumed_from >= 4
    assert steps(found) == expected
    assert same(weights(whole), weights(killed))


def test_a_polite_end_is_a_pause(tiny, make_run):
    directory = make_run(tiny, "train.max_steps=100000", "evaluate.every=100000")
    process = engine(directory)
    wait_for_steps(directory, 3)
    process.terminate()
    assert process.wait(60) == 0
    paused = told(directory)[-1]
    assert isinstance(paused, events.Paused)
    assert "asked to end" in paused.words
    assert not checkpoints.damage(directory / paused.checkpoint)


def test_the_weights_of_a_finished_run_stay_and_its_optimizer_goes(tiny, make_run):
    directory = make_run(tiny, *TEN, "checkpoint.keep=2", "checkpoint.every_steps=1")
    run(directory)
    folders = sorted((directory / "checkpoints").iterdir())
    assert 2 <= len(folders) <= 3
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["adapter.safetensors", "manifest.json", "state.json"]
        assert not checkpoints.damage(folder)


def test_a_lower_rate_counts_from_where_it_goes_on(tiny, make_run, monkeypatch):
    directory = make_run(tiny, "train.max_steps=6", "train.schedule=constant", "train.warmup=0", "evaluate.answers=0")
    pause_at(directory, monkeypatch, 3)
    run(directory)
    (directory / "control" / "pause").unlink()
    (directory / "control" / "edit.json").write_text(json.dumps({"train.learning_rate": 1e-4}))
    rates = {event.step: event.learning_rate for event in of(events.Step, run(directory))}
    assert rates == {1: 1e-2, 2: 1e-2, 3: 1e-2, 4: 1e-4, 5: 1e-4, 6: 1e-4}


@pytest.mark.spec("U27.1")
def test_a_long_step_is_left_in_the_middle_and_done_again(tiny, make_run, monkeypatch):
    settings = [*TEN, "train.batch_tokens=64"]
    whole, parted = make_run(tiny, *settings), make_run(tiny, *settings)
    expected = steps(run(whole))
    monkeypatch.setattr(trainer, "LONG", 0.0)
    calls = []
    loss_of = trainer.loss_of

    def slow(*args):
        calls.append(1)
        if len(calls) == 20:  # in the middle of some step
            (parted / "control" / "pause").touch()
        return loss_of(*args)

    monkeypatch.setattr(trainer, "loss_of", slow)
    assert isinstance(run(parted)[-1], events.Paused)
    (parted / "control" / "pause").unlink()
    assert steps(run(parted)) == expected


@pytest.mark.spec("U22.4")
def test_too_little_memory_halves_what_is_done_at_once_and_changes_nothing_else(tiny, make_run, monkeypatch):
    whole, short = make_run(tiny, *TEN), make_run(tiny, *TEN)
    expected = steps(run(whole))
    loss_of = trainer.loss_of

    def limited(model, batch, *args):
        if model.training and sum(batch["lengths"]) > 100:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return loss_of(model, batch, *args)

    monkeypatch.setattr(trainer, "loss_of", limited)
    found = run(short)
    warned = of(events.Warned, found)
    assert {(event.rule, event.did) for event in warned} == {("memory", "acted")}
    assert warned[-1].edit["train.batch_tokens"] < 200
    got = steps(found)
    assert got.keys() == expected.keys()
    assert list(got.values()) == pytest.approx(list(expected.values()), rel=0.05)  # dropout falls on other places


def test_a_second_signal_ends_the_engine_at_once(tiny, make_run):
    directory = make_run(tiny, "train.max_steps=100000", "evaluate.every=100000")
    wishes = Wishes(directory)
    assert not wishes.pause()
    wishes._terminate(15, None)
    assert wishes.pause()
    ended = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os._exit", ended.append)
        wishes._terminate(15, None)
    assert ended == [143]


def test_a_wish_to_save_is_heard_once(tiny, make_run, monkeypatch):
    directory = make_run(tiny, *TEN, "evaluate.every=100")
    (directory / "control" / "checkpoint").touch()
    saved = [event.step for event in of(events.Saved, run(directory)) if event.path != "adapter"]
    assert saved[0] == 0
    assert not (directory / "control" / "checkpoint").exists()


# the guard at work

CALM = ["train.max_steps=30", "train.warmup=0", "train.schedule=constant", "evaluate.answers=0", "evaluate.every=1000"]


def no_numbers_at(monkeypatch, *calls):
    """Let the loss of these calls be no number."""
    loss_of, made = trainer.loss_of, []

    def broken(model, *args):
        made.append(model.training)
        value = loss_of(model, *args)
        return value * float("nan") if sum(made) in calls and model.training else value

    monkeypatch.setattr(trainer, "loss_of", broken)


@pytest.mark.spec("U26.4")
def test_gradients_that_explode_are_clipped_and_the_run_goes_back(tiny, make_run, monkeypatch):
    loss_of, made = trainer.loss_of, []

    def steep(model, *args):
        value = loss_of(model, *args)
        made.append(1)
        return value * 1000 - (value * 999).detach() if 40 < len(made) <= 44 else value

    monkeypatch.setattr(trainer, "loss_of", steep)
    settings = ["train.max_steps=60", "train.warmup=0", "evaluate.answers=0", "checkpoint.every_steps=5"]
    found = run(make_run(tiny, *settings, held=0))
    (warned,) = of(events.Warned, found)
    assert (warned.rule, warned.did) == ("explosion", "acted")
    assert warned.edit["train.learning_rate"] < 1e-2 / 2
    assert 35 <= of(events.Started, found)[-1].resumed_from <= 40
    assert len(steps(found)) == 60
    assert of(events.Finished, found)


def test_a_loss_that_is_no_number_goes_back_and_learns_more_slowly(tiny, make_run, monkeypatch):
    no_numbers_at(monkeypatch, 8)
    found = run(make_run(tiny, *CALM, "checkpoint.every_steps=2"))
    (warned,) = of(events.Warned, found)
    assert (warned.rule, warned.did, warned.step) == ("invalid", "acted", 7)
    assert of(events.Started, found)[-1].resumed_from == 6
    rates = {event.step: event.learning_rate for event in of(events.Step, found)}
    assert rates[6] == pytest.approx(1e-2)
    assert rates[7] == rates[30] == pytest.approx(1e-2 / 3)
    assert len(steps(found)) == 30
    assert of(events.Finished, found)


def test_told_only_a_loss_that_is_no_number_ends_the_run(tiny, make_run, monkeypatch):
    no_numbers_at(monkeypatch, 8)
    with pytest.raises(EngineError, match="no number any more at step 8"):
        run(make_run(tiny, *CALM, "guard.invalid=tell"))


@pytest.mark.spec("U26.1")
def test_a_loss_that_climbs_pauses_before_it_went_wrong(tiny, make_run, monkeypatch):
    loss_of, made = trainer.loss_of, []

    def climbing(model, *args):
        made.append(1)
        return loss_of(model, *args) * (1 + 0.05 * max(0, len(made) - 40))

    monkeypatch.setattr(trainer, "loss_of", climbing)
    settings = ["train.max_steps=100", "train.warmup=0", "evaluate.answers=0", "checkpoint.every_steps=5"]
    directory = make_run(tiny, *settings, "checkpoint.keep=9", "guard.explosion=tell", held=0)
    found = run(directory)
    (warned,) = [event for event in of(events.Warned, found) if event.did == "paused"]
    assert warned.rule == "divergence"
    assert warned.edit["train.learning_rate"] == pytest.approx(1e-2 / 3, rel=0.05)
    assert isinstance(found[-1], events.Paused)
    assert 35 <= found[-1].step <= 45 < warned.step
    assert not (directory / "adapter").exists()


def test_what_is_seen_after_the_last_step_is_only_told(tiny, make_run, monkeypatch):
    def always(history):
        return Finding("divergence", "It climbs.", "Look.", {}, 0) if history.last == 10 else None

    monkeypatch.setitem(guard.RULES, "divergence", (always, "back"))
    found = run(make_run(tiny, *TEN, "guard.divergence=act"))
    assert [(event.rule, event.did) for event in of(events.Warned, found)] == [("divergence", "told")]
    assert of(events.Finished, found)


def test_after_going_back_it_does_not_take_more_at_once_again(tiny, make_run, monkeypatch):
    directory = make_run(tiny, *CALM, "checkpoint.every_steps=2")
    asked = iter(range(1, 1000))
    monkeypatch.setattr(memory, "share_in_use", lambda device: 0.95 if next(asked) == 9 else 0.1)
    no_numbers_at(monkeypatch, 10)  # the checkpoint it goes back to is from before the halving
    run(directory)
    folders = list((directory / "checkpoints").iterdir())
    assert {json.loads((folder / "state.json").read_text())["state"]["size"] for folder in folders} == {1024}


def test_without_a_whole_checkpoint_it_begins_again_and_says_so(tiny, make_run, monkeypatch):
    expected = steps(run(make_run(tiny, *TEN)))
    again = make_run(tiny, *TEN)
    with monkeypatch.context() as patch:
        pause_at(again, patch, 4)
        run(again)
    for folder in (again / "checkpoints").iterdir():
        (folder / "state.json").write_text("{}")
    (again / "control" / "pause").unlink()
    found = run(again)
    assert "is damaged" in of(events.Warned, found)[0].words
    assert of(events.Started, found)[-1].resumed_from == 0
    assert steps(found) == expected


@pytest.mark.spec("U26.3")
def test_full_memory_halves_once(tiny, make_run, monkeypatch):
    monkeypatch.setattr(memory, "share_in_use", lambda device: 0.95)
    found = run(make_run(tiny, *CALM))
    assert [(event.rule, event.edit) for event in of(events.Warned, found)] == [
        ("memory", {"train.batch_tokens": 1024})
    ]
    assert of(events.Finished, found)
