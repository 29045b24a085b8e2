"""Train: what is chosen, recommended, changed, saved, imported and started."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import yaml

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.domain.errors import ModelError
from studio.domain.events import Phase
from studio.domain.profiles import PROFILES
from studio.domain.records import Dataset, Model, Run, Status
from studio.services import datasets, trial
from studio.studio import Studio
from studio.ui import common, knobs, train, train_plan
from studio.ui.pieces import html
from tests.ui.conftest import unexplained


@pytest.fixture
def dataset(studio: Studio) -> Dataset:
    return studio.datasets.add(datasets.sample_path())


@pytest.fixture
def view(page: Callable[..., Any], dataset: Dataset) -> Any:
    view = page(train.build, "train")
    view.refresh()
    return view


def step(view: Any) -> int:
    """Return the step that is shown."""
    walk = next(block for block in view.demo.blocks.values() if getattr(block, "elem_id", "") == "steps")
    return next((said[walk]["selected"] for said in reversed(view.states) if walk in said), train_plan.PURPOSE)


def reason(view: Any, title: str) -> str:
    """Return what stands beside a control."""
    return unexplained(str(view.values[view.row(title).children[-1]]))


def test_without_data_the_first_step_says_so(page: Callable[..., Any]) -> None:
    view = page(train.build, "train")
    view.refresh()
    assert "No data yet." in view.seen()
    add = view.was("Add data", "variant")
    assert add == "primary"
    onward = [said["visible"] for state in view.states for said in state.values() if said.get("visible") is False]
    assert onward == [False, False], "there is one primary button in the step, and nothing to measure"
    assert view.was("Start training", "interactive") is False


@pytest.mark.spec("U21.5")
def test_data_alone_is_ready_to_start(view: Any) -> None:
    seen = view.seen()
    assert "Ready to start" in seen
    assert "SmolLM2-135M-Instruct, fetched at the start" in seen
    assert view.was("Start training", "interactive") is True
    assert view.values[view.find("Passes over the data")] == 6, "labels and fields take twice the usual rounds"
    assert 'aria-pressed="true"' in seen


@pytest.mark.spec("U22.5")
def test_every_value_has_its_reason(view: Any) -> None:
    fields = knobs.fields()
    assert {
        key: reason(view, field["title"]) for key, field in fields.items() if not reason(view, field["title"])
    } == {}
    assert "180 examples are few" in reason(view, "Passes over the data")


def test_data_that_is_handed_over_leads_to_the_review(view: Any, studio: Studio, tickets: Path) -> None:
    other = studio.datasets.add(tickets, map={"prompt": "they_wrote", "response": "we_said"})
    view.refresh(other.id)
    assert step(view) == train_plan.REVIEW
    assert "tickets, 40 examples" in view.seen()
    assert view.values[view.item] == "", "the next visit does not jump again"


def test_a_value_the_user_changed_stays_and_is_marked(view: Any) -> None:
    view.press("Learning rate", "submit", 0.01)
    assert "You set this. Recommended: 2.0e-3." in reason(view, "Learning rate")
    view.press("Rank", "submit", 64)
    assert view.values[view.find("Learning rate")] == 0.01
    assert view.values[view.find("Alpha")] == 128, "what follows from it is recommended anew"
    view.press("Step limit", "submit", 15)
    assert "15" in view.seen().split("Steps</dt>")[1][:80]
    view.press("Use the recommended values")
    assert view.values[view.find("Learning rate")] == 0.002
    assert view.values[view.find("Alpha")] == 32


def test_an_emptied_number_is_automatic_again(view: Any) -> None:
    view.press("Learning rate", "submit", 0.01)
    view.values[view.find("Learning rate")] = None
    view.press("Learning rate", "blur")
    assert view.values[view.find("Learning rate")] == 0.002


def test_a_value_that_cannot_be_is_said_in_place(view: Any) -> None:
    view.press("Rank", "submit", 0)
    assert "method.rank: Input should" in view.seen()
    assert view.was("Start training", "interactive") is False
    view.press("Rank", "submit", 8)
    assert "method.rank: Input should" not in view.seen()
    assert view.was("Start training", "interactive") is True


def test_a_method_brings_what_it_needs(view: Any) -> None:
    view.press("Method", "input", "qlora")
    assert "held in 4 bits (NF4)" in view.seen()
    assert view.values[view.find("Quantisation")] == "nf4"


def test_settings_a_method_does_not_use_are_empty_and_say_so(view: Any) -> None:
    view.press("Method", "input", "ia3")
    assert view.values[view.find("Rank")] is None
    assert reason(view, "Rank").count("IA³ does not use it.") == 1
    assert view.was("Start training", "interactive") is True
    view.press("Method", "input", "vera")
    assert view.values[view.find("Rank")] == 256
    assert "VeRA, rank 256" in view.seen()
    view.press("Rank", "submit", 64)
    view.press("Method", "input", "ia3")
    assert "IA³ does not use method.rank: set it to auto, or choose another method." in view.seen()
    assert view.was("Start training", "interactive") is False
    view.press("Method", "input", "miss")
    assert "MiSS, rank 64" in view.seen()


@pytest.mark.spec("U18.1", "U18.5")
def test_settings_survive_saving_and_import(view: Any, dataset: Dataset, page: Callable[..., Any]) -> None:
    view.press("Rank", "submit", 64)
    view.press("Layers", "input", "q_proj, v_proj")
    view.values[view.find("Name of the adapter")] = "desk"
    view.press("Review")
    saved = Path(view.was("Save these settings", "value"))
    assert saved.name == "desk.yaml"
    config = from_document(yaml.safe_load(saved.read_text(encoding="utf-8")))
    assert (config.method.rank, config.method.targets, config.name) == (64, ["q_proj", "v_proj"], "desk")
    assert "# " in saved.read_text(encoding="utf-8"), "with the reasons"
    other = page(train.build, "train")
    other.press("Import settings", "upload", str(saved))
    assert step(other) == train_plan.REVIEW, "shown before anything starts"
    again = from_document(yaml.safe_load(Path(other.was("Save these settings", "value")).read_text(encoding="utf-8")))
    assert again == config


def test_imported_settings_are_fitted_to_this_machine_and_say_so(
    view: Any, dataset: Dataset, tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = studio.machine.facts().model_copy(update={"gpu": None})
    monkeypatch.setattr(studio.machine, "facts", lambda: facts)
    document = {"model": {"id": "starter"}, "data": {"path": "/other/place.csv"}, "hardware": {"device": "cuda"}}
    about = {"data": {"sha256": dataset.sha256, "name": "support"}, "results": {"loss": 0.5}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document | {"about": about}), encoding="utf-8")
    view.press("Import settings", "upload", str(tmp_path / "a.yaml"))
    seen = view.seen()
    assert "imported and changed for this machine" in seen
    assert "hardware.device is auto: there is no CUDA card here." in seen
    assert "the same data is here as support" in seen
    assert view.values[view.find("Device")] == "auto"
    assert view.was("Start training", "interactive") is True
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": {"id": "starter"}, "data": {"path": dataset.id}}))
    view.press("Import settings", "upload", str(tmp_path / "a.yaml"))
    assert "changed for this machine" not in view.seen()


def test_settings_whose_data_is_not_here_ask_for_it(view: Any, tmp_path: Path) -> None:
    document = {"model": {"id": "starter"}, "data": {"path": "/other/gone.csv"}, "method": {"rank": 64}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    view.press("Import settings", "upload", str(tmp_path / "a.yaml"))
    assert "The data of these settings, gone.csv, is not here." in view.seen()
    assert "Not imported" not in view.seen()
    assert step(view) == train_plan.DATA
    assert view.values[view.find("Rank")] == 64, "everything else is taken over"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "is not a settings file"),
        ("- a\n- b\n", "not a list of keys and values"),
        (json.dumps({"model": {"id": "starter"}, "data": {"path": "x"}, "methd": {}}), "methd"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_words(view: Any, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    view.press("Import settings", "upload", str(tmp_path / "a.yaml"))
    assert said in view.seen()
    assert "Not imported" in view.seen()


def test_a_model_is_fetched_in_words_and_chosen(view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(id="owner/small", path="/models/small", source="hub", revision="a" * 40, parameters=2_000_000_000)

    def resolve(id: str, revision: str, report: Callable[[Phase], None]) -> Model:
        report(Phase(words="Downloading owner/small", done=1, total=4))
        monkeypatch.setattr(studio.models, "list", lambda: [model])
        return model

    monkeypatch.setattr(studio.models, "resolve", resolve)
    view.press("Another model: a Hub id, a folder or a .gguf file", "submit", " owner/small ")
    assert any("Downloading owner/small" in str(said) for said in view.states)
    assert "owner/small, commit aaaaaaa" in view.seen()
    assert view.values[view.find("Learning rate")] == 4e-4, "chosen for this size, and twice for labels"


def test_a_model_that_does_not_exist_is_said_in_place(
    view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object) -> Model:
        raise ModelError("owner/gone needs access.", "Ask for it on its page.")

    monkeypatch.setattr(studio.models, "resolve", resolve)
    view.press("Another model: a Hub id, a folder or a .gguf file", "submit", "owner/gone")
    assert "owner/gone needs access." in view.seen()
    assert view.was("Get this model", "interactive") is True


def test_while_another_run_is_at_work_the_button_adds_to_the_queue(
    view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view.was("Start training", "value") == "Start training"
    busy = Run(
        id="desk-7", name="desk", path="", status=Status.TRAINING, model="", dataset="", method="lora", created=""
    )
    busy.seconds_left = (1400.0, 1600.0)
    facts = studio.machine.facts().model_copy(update={"cores": 2, "gpu": None})
    monkeypatch.setattr(studio.machine, "facts", lambda: facts)
    monkeypatch.setattr(studio.runs, "list", lambda: [busy])
    view.refresh()
    assert view.was("Start training", "value") == "Add to the queue"
    assert "desk, run 7 goes first, about 25 min" in view.seen()
    monkeypatch.setattr(studio.runs, "list", list)
    view.refresh()
    assert view.was("Start training", "value") == "Start training"
    assert "goes first" not in view.seen()


def test_a_run_is_measured_before_it_starts(view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's answer is made up here; tests/engine/test_measure.py lets a real one measure."""
    assert "rough: nothing like it was trained here yet" in view.seen()
    model = Model(id="starter", path="", source="hub", parameters=134_515_008, context=8192, bytes=280_000_000)
    found = {"steps": 12, "tokens": 5000, "squares": 300_000, "labels": 900, "held": 4, "held_tokens": 99, "answer": 9}
    tried = {"peak": 10**9, "again": 0, "load": 2, "a_step": 50, "speed": 1e11, "check": 3}

    def run(*args: Any) -> trial.Trial:
        args[3](Phase(words="Trying steps", done=2, total=6))
        return trial.Trial.model_validate(found | {"measured": tried})

    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(studio.models, "resolve", lambda *_: model)
    view.press("Measure first")
    assert any("Trying steps" in str(said) for said in view.states)
    assert view.seen().count("by what was measured here") == 2, "memory and time"
    assert view.was("Measure first", "visible") is False, "once is enough"
    assert view.was("Start training", "interactive") is True
    view.press("Rank", "submit", 64)
    assert "by what was measured here" in view.seen(), "what was measured corrects what is said of others"
    assert view.was("Measure first", "visible") is False


def test_a_measurement_that_fails_is_said(view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> Model:
        raise ModelError("No room for the model.", "Delete old runs.")

    monkeypatch.setattr(studio.models, "resolve", resolve)
    view.press("Measure first")
    assert "No room for the model." in view.seen()
    assert view.was("Start training", "interactive") is True


def test_start_prepares_in_words_and_opens_the_run(view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainingConfig] = []
    made = Run(
        id="desk-1", name="desk", path="", status=Status.STARTING, model="", dataset="", method="lora", created=""
    )

    def prepare(config: TrainingConfig, report: Callable[[Phase], None]) -> Run:
        asked.append(config)
        report(Phase(words="Fetching the model"))
        return made

    monkeypatch.setattr(studio.runs, "prepare", prepare)
    monkeypatch.setattr(studio.queue, "submit", lambda id: made)
    view.press("Step limit", "submit", 15)
    view.press("Start training")
    assert any("Fetching the model" in str(said) for said in view.states)
    assert view.values[view.shell.items["runs"]] == "desk-1"
    (config,) = asked
    assert config.train.max_steps == 15
    assert config.train.learning_rate == "auto", "what the user did not set is left to be recommended"
    view.refresh()
    assert view.values[view.find("Step limit")] == 0, "the next run begins with what is recommended for it"


def test_a_start_that_fails_is_said_and_can_be_tried_again(
    view: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: object) -> Run:
        raise ModelError("No room for the model.", "Delete old runs.")

    monkeypatch.setattr(studio.runs, "prepare", prepare)
    view.press("Start training")
    assert "No room for the model." in view.seen()
    assert view.was("Start training", "interactive") is True


def test_a_run_is_done_again_with_a_change(
    view: Any, studio: Studio, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"name": "desk", "model": {"id": "starter"}, "data": {"path": "/a/file"}, "method": {"rank": 32}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "lineage.json").write_text(json.dumps({"dataset": {"id": dataset.id}}))
    monkeypatch.setattr(studio.runs, "get", lambda id: SimpleNamespace(path=str(tmp_path)) if id == "desk-1" else None)
    _, opened = common.again("desk-1", {"train.learning_rate": 1e-5})
    view.refresh(opened)
    assert step(view) == train_plan.REVIEW, "shown before anything starts"
    assert view.values[view.item] == ""
    assert view.values[view.find("Learning rate")] == 1e-5
    assert view.values[view.find("Rank")] == 32
    assert view.values[view.find("Name of the adapter")] == "desk"


def test_a_run_that_is_gone_cannot_be_done_again(view: Any) -> None:
    view.refresh(common.again("gone-7", {})[1])
    assert "There is no run gone-7." in view.seen()


@pytest.mark.spec("U23.1")
def test_purposes_are_offered_with_what_they_need_and_one_is_suggested(view: Any) -> None:
    seen = view.seen()
    assert len(PROFILES) == 9
    for profile in PROFILES.values():
        assert profile.title in seen
    assert seen.count("Suggested</em>") == 1
    assert "The answers repeat:" in seen, "why this one"
    for profile in PROFILES.values():
        view.pick("Purposes", profile.name)
        assert html("{{ text }}", text=profile.needs) in view.seen()
        assert html("{{ text }}", text=profile.answers) in view.seen(), "an example"


@pytest.mark.spec("U23.3")
def test_each_purpose_says_the_time_and_memory_it_takes_here(view: Any) -> None:
    """The rows of the sample are conversations: what a purpose for plain text would take is not said."""
    listed = next(str(value) for value in view.values.values() if 'aria-label="Purposes"' in str(value))
    took = {
        match[1]: (match[2], match[3])
        for match in re.finditer(r'data-id="([\w-]+)".*?num"><span>(.*?)</span><span>(.*?)</span>', listed, re.DOTALL)
    }
    assert took.keys() == PROFILES.keys()
    assert took["domain-text"] == ("", "")
    assert all("min" in time or " s" in time for name, (time, _) in took.items() if name != "domain-text")
    assert all(memory.endswith("B") for name, (_, memory) in took.items() if name != "domain-text")
    assert took["classification"][0] != took["general"][0], "twice the passes take twice the time"
    assert took["small-memory"][1] != took["general"][1]


def test_a_purpose_sets_the_form_and_the_run(view: Any, studio: Studio) -> None:
    view.pick("Purposes", "small-memory")
    assert view.values[view.find("Rank")] == 8
    assert view.values[view.find("Quantisation")] == "nf4"
    assert "Half the usual adapter" in reason(view, "Rank")
    view.press("Rank", "submit", 32)
    view.pick("Purposes", "code")
    assert view.values[view.find("Quantisation")] == "none"
    assert view.values[view.find("Rank")] == 32, "what the user set goes before the purpose"


def test_data_that_does_not_suit_the_purpose_is_said(view: Any) -> None:
    view.pick("Purposes", "domain-text")
    assert "“Know a field” needs plain text." in view.seen()
    assert view.was("Start training", "interactive") is True
    view.pick("Purposes", "chatbot")
    assert "needs plain text" not in view.seen()


def test_a_changed_setting_is_taken_back_by_its_button(view: Any) -> None:
    view.press("Rank", "submit", 64)
    assert "Recommended: 16." in reason(view, "Rank")
    assert 'data-id="method.rank">Use 16</button>' in reason(view, "Rank")
    view.press("Learning rate", "submit", 0.01)
    view.take(view.row("Rank").children[-1], "method.rank")
    assert view.values[view.find("Rank")] == 16
    assert view.values[view.find("Alpha")] == 32
    assert view.values[view.find("Learning rate")] == 0.01, "the others stay"
    assert "<button" not in reason(view, "Rank")


def yaml_of(view: Any) -> Any:
    return next(block for block in view.values if isinstance(block, gr.Code))


def rewrite(view: Any, *changes: tuple[str, str]) -> None:
    """Change the YAML and leave it."""
    code = yaml_of(view)
    for old, new in changes:
        assert old in view.values[code]
        view.values[code] = view.values[code].replace(old, new, 1)
    view.press(code.label, "blur")


def test_form_and_yaml_are_edited_both_ways(view: Any, studio: Studio) -> None:
    view.press("Rank", "submit", 64)
    assert "rank: 64" in view.values[yaml_of(view)]
    rewrite(view, ("rank: 64", "rank: 4"), ("seed: 42", "seed: 7"), ("name: ''", "name: desk"))
    assert view.values[view.find("Rank")] == 4
    assert view.values[view.find("Alpha")] == 8, "what follows from it is recommended anew"
    assert "alpha: 8" in view.values[yaml_of(view)]
    assert view.values[view.find("Seed")] == 7
    assert view.values[view.find("Name of the adapter")] == "desk"
    rewrite(view, ("profile: classification", "profile: small-memory"))
    assert view.values[view.find("Quantisation")] == "nf4"
    assert view.values[view.find("Rank")] == 4
    view.press("Alpha", "submit", 99)
    assert "alpha: 99" in view.values[yaml_of(view)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rank: 16", "rank: none at all", "method.rank"),
        ("rank: 16", "rnk: 16", "method.rnk"),
        ("method:", "method: [", "not YAML"),
        ("name: lora", "name: qlora", "QLoRA needs a quantised base"),
    ],
)
def test_what_is_wrong_in_the_yaml_is_said_there_and_the_form_stays(view: Any, old: str, new: str, said: str) -> None:
    view.press("Rank", "submit", 16)
    rewrite(view, (old, new))
    assert said in view.seen()
    assert "Not taken over" in view.seen()
    assert new in view.values[yaml_of(view)], "the text stays, to be corrected"
    assert view.values[view.find("Rank")] == 16
    assert view.was("Start training", "interactive") is False
    view.press("Seed", "submit", 5)
    assert view.values[view.find("Seed")] == 5, "the form goes on"
    assert new in view.values[yaml_of(view)]
    rewrite(view, (new, old))
    assert "Not taken over" not in view.seen()
    assert view.values[view.find("Seed")] == 5
    assert "seed: 5" in view.values[yaml_of(view)]
    assert view.was("Start training", "interactive") is True


def test_data_that_is_not_here_is_said_at_the_yaml(view: Any, dataset: Dataset) -> None:
    rewrite(view, (f"path: {dataset.id}", "path: gone"))
    assert "There is no data set <code>gone</code>." in view.seen()


@pytest.mark.spec("U4.5")
def test_the_review_says_what_the_run_needs(view: Any) -> None:
    seen = view.seen()
    assert "Memory</dt>" in seen
    assert "Time</dt>" in seen
    assert "Activations" in seen
    assert "Make it fit" not in seen


@pytest.mark.spec("U22.3")
def test_a_run_that_does_not_fit_is_made_to(
    page: Callable[..., Any], dataset: Dataset, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = studio.machine.facts()
    small = has.model_copy(update={"memory_bytes": 2_000_000_000, "memory_free_bytes": 1_450_000_000, "gpu": None})
    monkeypatch.setattr(studio.machine, "facts", lambda: small)
    view = page(train.build, "train")
    view.refresh()
    view.press("Recompute activations", "input", "off")
    seen = view.seen()
    assert "This will not fit" in seen
    assert "Make it fit" in seen
    view.pick("Changes", "0")
    assert "Ready to start" in view.seen()
    assert view.was("Start training", "interactive") is True
