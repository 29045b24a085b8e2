"""Real training of a two-layer model: events, adapters of every method, stopping, failing."""

import json
import subprocess
import sys
import time

import pytest
import torch

from studio.domain import events
from studio.domain.errors import DataError, ModelError
from studio.engine import memory, train
from studio.engine.report import Reporter
from studio.engine.trainer import Trainer
from tests.engine.conftest import EXAMPLES, SHAPE, make_model, talk


def run(directory):
    reporter = Reporter(directory)
    train.run(directory, reporter)
    return told(directory)


def told(directory):
    return [events.parse(line) for line in (directory / "events.jsonl").read_bytes().splitlines()]


def of(kind, found):
    return [event for event in found if isinstance(event, kind)]


@pytest.mark.spec("U26.5")
def test_events_tell_the_whole_story_in_order(tiny, make_run):
    found = run(make_run(tiny, "train.max_steps=5", "evaluate.every=2", "evaluate.early_stopping=0"))
    assert [event.seq for event in found] == list(range(len(found)))
    assert [event.elapsed for event in found] == sorted(event.elapsed for event in found)
    kinds = [event.type for event in found if event.type not in ("phase", "sampled")]
    best = min((event for event in of(events.Evaluated, found) if not event.final), key=lambda event: event.loss)
    assert best.step == 5, "the rate of this test no longer lowers the loss at every check"
    assert kinds == [
        *("started", "evaluated", "saved", "step", "step", "evaluated", "saved", "step", "step", "evaluated", "saved"),
        *("step", "evaluated", "saved", "saved", "evaluated", "finished"),
    ]
    assert [event.path for event in of(events.Saved, found)][-2:] == ["checkpoints/step-5", "adapter"]
    assert [(event.step, len(event.answers)) for event in of(events.Sampled, found)] == [(0, 2), (2, 2), (4, 2), (5, 2)]
    started, finished = of(events.Started, found)[0], of(events.Finished, found)[0]
    assert (started.steps, started.rows, started.eval_rows) == (5, 20, 4)
    steps = of(events.Step, found)
    # five steps of four rows are one pass: every real token once
    assert steps[-1].tokens == started.tokens_per_epoch == finished.result["real_tokens"]
    assert steps[0].learning_rate > 0
    assert steps[-1].memory_bytes > 10_000_000
    assert set(finished.result) == {
        *("steps", "real_tokens", "tokens_per_second", "train_seconds", "final_loss", "peak_memory_bytes", "eval"),
        *("closing", "others_share"),
    }
    closing, measured = finished.result["closing"], finished.result["eval"]
    assert f"{closing['score']} of 100" in closing["words"]
    gone = 1 - measured["adapter"]["loss"] / measured["base"]["loss"]
    learned = measured["difference"]["loss"]["high"] < 0 < measured["link"]["low"]
    assert closing["score"] == (round(100 * gone) if learned else 0)
    assert closing["advice"]


def test_the_same_seed_gives_the_same_losses_and_packing_changes_nothing(tiny, make_run):
    first, again, unpacked = (
        [step.loss for step in of(events.Step, run(make_run(tiny, "train.max_steps=4", *more)))]
        for more in ([], [], ["train.packing=off"])
    )
    assert first == again
    assert first == pytest.approx(unpacked, rel=1e-4)


def test_an_architecture_that_cannot_be_packed_is_padded_and_says_so(tmp_path, make_run):
    shape = {**SHAPE, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0}
    base = make_model(tmp_path / "gpt2", "gpt2", **shape)
    found = run(make_run(base, "train.max_steps=6", "train.learning_rate=3e-2"))
    assert "cannot be packed with gpt2 models" in of(events.Warned, found)[0].words
    steps = of(events.Step, found)
    assert steps[-1].loss < steps[0].loss


def test_recompute_gives_the_same_losses(tiny, make_run):
    plain, recomputed = (
        [step.loss for step in of(events.Step, run(make_run(tiny, "train.max_steps=3", f"train.recompute={on}")))]
        for on in ("false", "true")
    )
    assert plain == pytest.approx(recomputed, rel=1e-5)


def test_plain_text_is_learned_without_questions(tiny, make_run):
    examples = [{"text": "The sky is blue. " * (1 + i % 3), "row": i + 1} for i in range(16)]
    found = run(make_run(tiny, "train.max_steps=8", examples=examples, kind="text"))
    final = of(events.Finished, found)[0].result["eval"]
    assert final["adapter"]["loss"] < final["base"]["loss"]
    assert final["adapter"]["exact_match"] is None
    assert final["verdict"].startswith("Better")


def test_long_texts_are_split_but_long_answers_ask_first(tiny, make_run):
    long = "The sky is blue. " * 60
    found = run(make_run(tiny, "train.max_steps=1", examples=[{"text": long}] * 8, kind="text"))
    assert "split into pieces" in of(events.Warned, found)[0].words
    with pytest.raises(DataError, match="8 examples are longer than 256 tokens"):
        run(make_run(tiny, examples=EXAMPLES[:8] + [talk("Why?", long)] * 8))


@pytest.mark.spec("U26.2")
def test_memorising_ends_early_and_keeps_the_best_step(tiny, make_run, monkeypatch):
    # a model this small cannot memorise: what is measured gets worse instead
    measure, measured = Trainer.held_out_loss, []

    def worse(self):
        measured.append(1)
        return measure(self) * (1 + 0.03 * max(0, len(measured) - 3))

    monkeypatch.setattr(Trainer, "held_out_loss", worse)
    settings = ["train.max_steps=60", "evaluate.every=5", "evaluate.early_stopping=3"]
    found = run(make_run(tiny, *settings))
    checks = [event for event in of(events.Evaluated, found) if not event.final]
    assert len(of(events.Step, found)) < 60
    best = min(checks, key=lambda event: event.loss)
    assert of(events.Saved, found)[-1].step == best.step
    (warned,) = of(events.Warned, found)
    assert (warned.rule, warned.did, warned.edit) == ("overfitting", "acted", {"train.max_steps": best.step})
    assert f"at step {best.step}" in warned.words
    assert of(events.Finished, found)[0].result["eval"]["adapter"]["loss"] == pytest.approx(best.loss, rel=1e-3)


def test_no_answer_to_learn_is_said(tiny, make_run):
    empty = [{"messages": [{"role": "user", "content": "Why?"}]}] * 8
    with pytest.raises(DataError, match="No example has an answer"):
        run(make_run(tiny, examples=empty))


def test_wrong_layers_are_named(tiny, make_run):
    with pytest.raises(ModelError, match="does not fit") as caught:
        run(make_run(tiny, "method.targets=[nothing]"))
    assert "q_proj" in caught.value.hint


def test_the_adapter_tells_where_it_comes_from(tiny, make_run):
    directory = make_run(tiny, "train.max_steps=2")
    run(directory)
    facts = json.loads((directory / "adapter" / "studio.json").read_text())
    assert facts["base"]["path"] == str(tiny)
    assert facts["eos_token"] == "<|im_end|>"
    assert facts["stops"] == {"2": "<|im_end|>"}
    assert "SmolLM" in facts["template"]
    assert facts["metrics"]["verdict"]
    card = (directory / "adapter" / "README.md").read_text()
    assert "PeftModel.from_pretrained" in card
    lineage = json.loads((directory / "lineage.json").read_text())
    assert lineage["engine"]["template_sha256"] == facts["template_sha256"]
    assert lineage["engine"]["versions"]["torch"] == torch.__version__


def engine(directory):
    return subprocess.Popen(
        [sys.executable, "-m", "studio.engine", "train", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_steps(directory, count):
    for _ in range(1800):
        if (directory / "events.jsonl").exists() and len(of(events.Step, told(directory))) >= count:
            return
        time.sleep(0.1)
    pytest.fail("the engine made no steps in three minutes")


def test_stopping_keeps_the_adapter(tiny, make_run):
    directory = make_run(tiny, "train.max_steps=100000", "evaluate.every=100000")
    process = engine(directory)
    wait_for_steps(directory, 3)
    (directory / "control" / "stop").touch()
    assert process.wait(60) == 0
    found = told(directory)
    finished = of(events.Finished, found)[0]
    assert finished.stopped
    assert finished.result["steps"] < 100000
    assert (directory / "adapter" / "adapter_model.safetensors").exists()
    facts = json.loads((directory / "process.json").read_text())
    assert facts["pid"] == process.pid


def test_a_failure_is_an_event_with_words_and_leaves_no_adapter(tiny, make_run):
    directory = make_run(tiny, "train.max_steps=30", "train.learning_rate=0.99", "train.max_grad_norm=1e9")
    lineage = json.loads((directory / "lineage.json").read_text())
    lineage["model"]["path"] = str(directory / "gone")
    (directory / "lineage.json").write_text(json.dumps(lineage))
    process = engine(directory)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 1
    failed = told(directory)[-1]
    assert isinstance(failed, events.Failed)
    assert "gone" in failed.message
    assert "Traceback" in output  # the log has it, the event has not
    assert "Traceback" not in failed.message + failed.hint
    assert not (directory / "adapter").exists()


@pytest.mark.parametrize(("settings", "needed"), [([], False), (["train.optimizer=adamw_8bit"], True)])
def test_bitsandbytes_is_imported_only_where_it_is_needed(tiny, make_run, settings, needed):
    directory = make_run(tiny, "train.max_steps=1", "evaluate.answers=0", *settings)
    script = "import sys; from studio.engine.__main__ import main; code = main()\n"
    script += "print(sys.modules.get('bitsandbytes') is not None); sys.exit(code)"
    command = [sys.executable, "-c", script, "train", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(needed))


def test_smoothed_labels_are_for_training_alone(tiny, make_run):
    plain, smooth = (
        run(make_run(tiny, "train.max_steps=2", f"train.label_smoothing={share}", "evaluate.every=1"))
        for share in (0, 0.4)
    )
    assert of(events.Step, smooth)[0].loss > of(events.Step, plain)[0].loss
    first = [of(events.Evaluated, found)[0].loss for found in (plain, smooth)]
    assert first[0] == pytest.approx(first[1], rel=1e-6), "before the first step both held-out losses are the base's"


def test_layers_are_computed_again_only_where_the_memory_is_not_enough(tiny, make_run, monkeypatch):
    plenty = run(make_run(tiny, "train.max_steps=2"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    little = run(make_run(tiny, "train.max_steps=2"))
    assert [of(events.Started, found)[0].settings["recomputed_layers"] for found in (plenty, little)] == [0, 2]
    losses = [[step.loss for step in of(events.Step, found)] for found in (plenty, little)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
