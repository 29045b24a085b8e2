"""What is said of a run before it starts follows its settings, and learns from the runs that went before."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from studio.domain.config import TrainingConfig
from studio.domain.document import with_edit
from studio.domain.quote import Quote
from studio.domain.records import Dataset, Model
from studio.services import trial
from studio.services.estimate import _speed
from studio.services.footprint import shape_of
from studio.services.machine import Gpu, MachineFacts
from studio.services.models import RECORD
from studio.services.past import Past, free
from studio.services.prepare import Resolved
from studio.services.recommend import recommend
from studio.storage.paths import Home
from studio.studio import Studio
from tests.domain.test_shape import STARTER

BIG = {**STARTER, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
BIG |= {"num_key_value_heads": 8, "num_hidden_layers": 32}
SIZES = {"starter": (STARTER, 134_515_008), "big": (BIG, 7_500_000_000)}


@pytest.fixture
def studio(home: Home) -> Studio:
    for id, (config, parameters) in SIZES.items():
        folder = home.models / id
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(b"")
        model = Model(
            id=id, path=str(folder), source="package", parameters=parameters, context=8192, bytes=2 * parameters
        )
        (folder / RECORD).write_text(model.model_dump_json())
    return Studio(home.root)


@pytest.fixture
def dataset(studio: Studio, tmp_path: Path) -> Dataset:
    file = tmp_path / "desk.csv"
    rows = (
        f'"How do I reset device number {n}?","{"Hold its button for a while. " * (1 + n % 9)}"\n' for n in range(99)
    )
    file.write_text("question,answer\n" + "".join(rows))
    return studio.datasets.add(file)


def facts(card: float = 0, memory: float = 24e9) -> MachineFacts:
    gpu = Gpu(name="NVIDIA A100", memory_bytes=round(card), memory_free_bytes=round(card), bf16=True) if card else None
    sizes = {"memory_bytes": round(memory), "memory_free_bytes": round(memory), "disk_free_bytes": 10**12}
    return MachineFacts(processor="", cores=2, gpu=gpu, bf16=bool(card), words="", **sizes)


def quote(studio: Studio, dataset: Dataset, has: MachineFacts, model: str = "starter", **edit: Any) -> Quote:
    """Return the quote for the recommended settings with some changed: train__epochs=2."""
    config, found = settled(studio, dataset, has, model, **edit)
    return studio.estimates.quick(config, found, dataset, has)


def settled(
    studio: Studio, dataset: Dataset, has: MachineFacts, model: str, **edit: Any
) -> tuple[TrainingConfig, Model]:
    found = studio.models.find(model)
    assert found
    changes = {key.replace("__", "."): value for key, value in edit.items()}
    document = with_edit({"model": {"id": model}, "data": {"path": dataset.id}}, changes)
    lengths = studio.datasets.profile(dataset.id).characters
    return recommend(TrainingConfig.model_validate(document), found, dataset, has, lengths)[0], found


def test_a_quote_says_memory_and_time_and_adds_up(studio: Studio, dataset: Dataset) -> None:
    begin = time.perf_counter()
    found = quote(studio, dataset, facts())
    assert time.perf_counter() - begin < 5, "no child process, no learning library"
    assert sum(found.breakdown.values()) == found.peak_memory_bytes
    assert found.low < found.train_seconds < found.seconds < found.high
    assert found.fits
    assert (found.memory_basis, found.time_basis) == ("rough", "rough")
    assert not any(rung.recommended for rung in found.ladder), "nothing has to change"


def test_a_quote_follows_the_settings(studio: Studio, dataset: Dataset) -> None:
    def peak(**edit: Any) -> int:
        return quote(studio, dataset, facts(), train__effective_rows=80, **edit).peak_memory_bytes

    usual = peak()
    assert usual > peak(train__batch_tokens=1024)
    assert usual > peak(train__recompute="on")
    assert peak(method__rank=128) > usual
    assert peak(method__name="dora") > usual
    assert peak(train__packing="off") > usual
    once, twice = (quote(studio, dataset, facts(), train__epochs=passes) for passes in (2, 4))
    assert twice.steps == 2 * once.steps
    assert twice.tokens == 2 * once.tokens
    assert quote(studio, dataset, facts(), train__epochs=9, train__max_steps=7).steps == 7


@pytest.mark.spec("U22.3")
def test_what_does_not_fit_comes_with_changes_that_make_it_fit(studio: Studio, dataset: Dataset) -> None:
    found = quote(studio, dataset, facts(card=10e9), "big", method__name="lora")
    assert not found.fits
    best = found.ladder[0]
    assert best.fits
    assert best.recommended
    assert "4 bits" in best.words
    assert best.effect
    config, model = settled(studio, dataset, facts(card=10e9), "big", method__name="lora")
    changed = TrainingConfig.model_validate(with_edit(config.model_dump(), best.edit))
    after = studio.estimates.quick(changed, model, dataset, facts(card=10e9))
    assert after.fits
    assert after.peak_memory_bytes == best.peak_memory_bytes
    fits = [rung.fits for rung in found.ladder]
    assert fits == sorted(fits, reverse=True)
    assert "starter" in [rung.edit.get("model.id") for rung in found.ladder], "the smaller model is the last resort"


def test_some_layers_are_offered_to_be_computed_again_before_all(studio: Studio, dataset: Dataset) -> None:
    has = facts(card=18e9)
    found = quote(studio, dataset, has, "big", method__name="lora", train__recompute="off", train__batch_tokens=512)
    assert not found.fits
    rung = next(rung for rung in found.ladder if "train.recompute" in rung.edit)
    assert rung.edit == {"train.recompute": "auto"}
    assert rung.fits
    after = quote(studio, dataset, has, "big", method__name="lora", train__recompute="auto", train__batch_tokens=512)
    assert 0 < after.recomputed_layers < 32


def test_where_no_change_alone_is_enough_all_are_tried_at_once(studio: Studio, dataset: Dataset) -> None:
    tight = quote(studio, dataset, facts(card=9e9), "big", train__recompute="off", train__batch_tokens=8192)
    best = tight.ladder[0]
    assert best.recommended
    assert {"model.quantization", "train.batch_tokens"} <= set(best.edit)
    assert "model.id" not in best.edit


def test_earlier_runs_correct_what_is_said(studio: Studio, dataset: Dataset) -> None:
    has = facts()
    config, model = settled(studio, dataset, has, "starter")
    before = studio.estimates.quick(config, model, dataset, has)
    run = studio.runs.prepare(config)
    said = json.loads(Path(run.path, "lineage.json").read_text())["quote"]
    assert said["peak_memory_bytes"] > 0
    lineage = Path(run.path, "lineage.json")
    lineage.write_text(json.dumps(json.loads(lineage.read_text()) | {"quote": before.model_dump(exclude={"ladder"})}))
    took = before.load_seconds + 2 * (before.seconds - before.load_seconds)
    result = {"train_seconds": 2 * before.train_seconds, "real_tokens": before.tokens}
    result |= {"peak_memory_bytes": before.uncorrected_bytes * 1.5}
    events = [
        {"type": "started", "steps": 9, "rows": 9, "eval_rows": 1, "tokens_per_epoch": 9, "trainable_parameters": 9}
        | {"device": "processor", "precision": "fp32"},
        {"type": "finished", "step": 9, "result": result, "elapsed": took},
    ]
    Path(run.path, "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    after = studio.estimates.quick(config, model, dataset, has)
    assert after.peak_memory_bytes == pytest.approx(1.5 * before.peak_memory_bytes, rel=0.01)
    assert after.seconds == pytest.approx(took, rel=0.01)
    assert after.time_basis == "measured"
    assert after.high / after.low < before.high / before.low
    other = studio.estimates.quick(config.model_copy(deep=True), model, dataset, facts(card=40e9))
    assert other.time_basis == "rough", "another device says nothing of this one"


SIZES_FOUND = {"steps": 12, "tokens": 5000, "squares": 300_000, "labels": 900, "held": 4, "held_tokens": 99}
TRACED = {"parts": {"Model": 3 * 10**8, "Activations": 2 * 10**9, "Programs": 10**8}, "again": 2}
TRIED = {"peak": 3 * 10**9, "again": 2, "load": 2, "a_step": 0.5, "speed": 1e11, "check": 3}


def test_what_an_engine_finds_is_taken_and_remembered(
    studio: Studio, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = settled(studio, dataset, facts(), "starter")
    resolved = Resolved(config, {}, model, dataset)
    found = {**SIZES_FOUND, "answer": 9, "traced": TRACED}
    monkeypatch.setattr(trial, "run", lambda *args: trial.Trial.model_validate(found))
    first = studio.estimates.thorough(resolved)
    assert (first.steps, first.tokens, first.peak_memory_bytes) == (12, 5000, 24 * 10**8)
    assert (first.memory_basis, first.time_basis, first.recomputed_layers) == ("calculated", "rough", 2)
    found["measured"] = TRIED
    second = studio.estimates.thorough(resolved, measure=True)
    assert second.peak_memory_bytes == sum(second.breakdown.values()) == 3 * 10**9
    assert (second.memory_basis, second.time_basis) == ("measured", "measured")
    assert second.low < second.seconds < second.high < 1.6 * second.low
    assert second.train_seconds == pytest.approx(12 * 0.5 + second.work / 1e11, abs=0.01)
    assert studio.estimates.of(resolved) == second, "a run that is made now keeps what was found"
    del found["measured"]
    third = Studio(studio.home.root).estimates.thorough(resolved)
    assert third.peak_memory_bytes == pytest.approx(3 * 10**9), "what was measured corrects what is traced"


def test_a_step_that_cannot_be_traced_leaves_the_rough_figure(
    studio: Studio, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = settled(studio, dataset, facts(), "starter")
    found = trial.Trial.model_validate({**SIZES_FOUND, "answer": 9, "untraced": "RuntimeError: no"})
    monkeypatch.setattr(trial, "run", lambda *args: found)
    quote = studio.estimates.thorough(Resolved(config, {}, model, dataset))
    assert quote.memory_basis == "rough"
    assert quote.steps == 12


def test_a_speed_beside_other_programs_is_not_carried_on_as_it_was(
    studio: Studio, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the processors were others': twice as fast is to be expected without them."""
    config, model = settled(studio, dataset, facts(), "starter")
    speeds = []
    for others in (0.0, 0.5):
        tried = {**TRIED, "a_step": 0, "others": others}
        found = trial.Trial.model_validate({**SIZES_FOUND, "answer": 9, "measured": tried})
        monkeypatch.setattr(trial, "run", lambda *args, found=found: found)
        quote = studio.estimates.thorough(Resolved(config, {}, model, dataset), measure=True)
        speeds.append(trial.remembered(studio.home)[0].speed)
        assert quote.low == pytest.approx(quote.seconds * (1 - others) / 1.25, abs=0.1), "if the others end"
    assert speeds[1] == pytest.approx(2 * speeds[0])
    assert free(1e9, 0.99) == 1e10, "under a tenth nothing is certain"


def test_the_interval_of_the_time_is_as_wide_as_what_runs_took_was_apart(studio: Studio, dataset: Dataset) -> None:
    config, model = settled(studio, dataset, facts(), "starter")
    shape = shape_of(model)

    def spread(*speeds: float) -> float:
        past = [
            Past(key=("starter", "lora", "none"), device="processor", parameters=shape.parameters, memory={}, **more)
            for more in ({"others": None, "speed": speed} for speed in speeds)
        ]
        return _speed(shape, config, past, facts(), False, False)[1]

    assert spread(1e11) == spread(1e11, 1e11) == 2.0, "one or two may have shared the machine"
    assert spread(1e11, 1e11, 1.01e11) == 1.2
    assert spread(1e10, 1e11, 1e11) == 10.0
