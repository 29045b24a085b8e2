"""Runs: written whole, started once, read back alike by every studio, whatever happened to engine or studio."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from huggingface_hub import constants

from studio.domain.config import TrainingConfig
from studio.domain.errors import DataError, NotFound, StudioError
from studio.domain.records import Model, Status
from studio.services import jobs
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.machine import Machine
from studio.services.runs import Runs
from studio.storage.store import Store
from tests.services import fake_hub
from tests.ui.test_quote import quote

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


def started(steps=3):
    facts = {"rows": 9, "eval_rows": 1, "tokens_per_epoch": 5, "trainable_parameters": 3}
    return {"emit": {"type": "started", "steps": steps, **facts, "device": "processor", "precision": "fp32"}}


def step(number):
    facts = {"loss": 2.0 / number, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": 100 * number}
    return {"emit": {"type": "step", "step": number, **facts, "tokens_per_second": 50.0, "memory_bytes": 10}}


def phase(words):
    return {"emit": {"type": "phase", "words": words}}


def finished(number=3, stopped=False):
    result = {"steps": number, "eval": {"verdict": "Better: 3 of 4."}}
    return {"emit": {"type": "finished", "step": number, "stopped": stopped, "result": result}}


def failed(message="The loss is no number any more.", hint="Lower the rate."):
    return {"emit": {"type": "failed", "message": message, "hint": hint}}


STEPS = (started(), step(1), step(2), step(3))
WELL = (*STEPS, phase("Saving"), {"adapter": "Better: 3 of 4."}, finished())


class OneModel:
    """Stands for the models: the starter is here, nothing else is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.model = Model(id="starter", path=str(folder), source="package", revision="abc", parameters=135_000_000)

    def resolve(self, id, revision="", report=None):
        if id != "starter":
            raise NotFound(f"There is no model {id}.", "Name another.")
        return self.model


@pytest.fixture
def make(home):
    """Build the service anew, as a restarted studio does."""
    store, datasets = Store(home), Datasets(home)
    adapters = Adapters(home, store)
    model = OneModel(home.root / "starter-model")
    return lambda: Runs(home, store, model, datasets, adapters, Machine(home), FAKE)


@pytest.fixture
def runs(make):
    made = make()
    yield made
    for run in made.list():
        if run.status.active:
            made.stop(run.id, force=True)


@pytest.fixture
def config(tmp_path):
    data = tmp_path / "support desk.csv"
    rows = [f"How do I reset number {n}?,Hold button {n} for {n} seconds." for n in range(40)]
    data.write_text("question,answer\n" + "\n".join(rows))
    return TrainingConfig.model_validate({"model": {"id": "starter"}, "data": {"path": str(data)}})


def ready(runs, config, *steps):
    """Prepare a run whose engine will play these steps."""
    run = runs.prepare(config)
    Path(run.path, "plan.json").write_text(json.dumps(steps))
    return run


def over(runs, run_id):
    for _ in runs.follow(run_id):
        pass
    return runs.get(run_id)


def until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def test_a_prepared_run_is_a_whole_document_with_reasons(home, runs, config):
    heard = []
    run = runs.prepare(config, lambda event: heard.append(event.words))
    assert (run.id, run.name, run.status) == ("support-desk-1", "support desk", Status.QUEUED)
    text = Path(run.path, "config.yaml").read_text()
    document = yaml.safe_load(text)
    assert "auto" not in (document["train"]["epochs"], document["train"]["learning_rate"], document["method"]["alpha"])
    assert "# " in next(line for line in text.splitlines() if "learning_rate" in line)
    assert TrainingConfig.model_validate(document).data.path == config.data.path
    lineage = json.loads(Path(run.path, "lineage.json").read_text())
    assert lineage["run"] == run.id
    assert lineage["model"]["revision"] == "abc"
    assert Path(lineage["dataset"]["path"], "train.jsonl").is_file()
    assert heard
    assert config.name == ""  # the caller's document is left alone


@pytest.mark.spec("U16.1")
def test_runs_are_numbered_by_name_also_when_two_prepare_at_once(home, make, config):
    threads = [threading.Thread(target=make().prepare, args=(config,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {run.id for run in make().list()} == {f"support-desk-{n}" for n in range(1, 7)}
    assert make().prepare(config.model_copy(update={"name": "other"})).id == "other-1"


def test_settings_of_a_run_make_another_run(runs, config):
    first = runs.prepare(config)
    again = TrainingConfig.model_validate(yaml.safe_load(Path(first.path, "config.yaml").read_text()))
    second = runs.prepare(again)
    assert Path(second.path, "config.yaml").read_text().split("\n")[0] == "name: support desk"
    assert TrainingConfig.model_validate(yaml.safe_load(Path(second.path, "config.yaml").read_text())) == again


def test_a_data_set_may_be_named_instead_of_a_file(runs, config):
    dataset = runs.preparation.datasets.add(config.data.path, name="tickets")
    config.data.path = "tickets"
    assert runs.prepare(config).dataset == "tickets"
    config.data.path = dataset.id
    assert runs.prepare(config).id == "tickets-2"


def test_a_file_is_repaired_before_it_is_learned_from(runs, config):
    path = Path(config.data.path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1], lines[-1].replace(",", "," + "very " * 8000, 1)]) + "\n")
    config.data.repairs = ["duplicates", "over-length"]
    run = runs.prepare(config)
    dataset = json.loads(Path(run.path, "lineage.json").read_text())["dataset"]
    assert dataset["repairs"] == ["duplicates", "over-length:8192"]
    assert dataset["usable"] == len(lines) - 1  # without the head
    assert path.read_text().count("very") == 8000, "the file stays as it is"

    again = TrainingConfig.model_validate(yaml.safe_load(Path(run.path, "config.yaml").read_text()))
    assert again.data.repairs == dataset["repairs"], "the bound is written down"
    assert runs.prepare(again).dataset == run.dataset
    again.data.path = dataset["id"]
    runs.prepare(again)
    again.data.repairs = ["encoding"]
    with pytest.raises(DataError, match="is a data set already"):
        runs.prepare(again)


def test_a_data_set_of_the_hub_is_written_down_with_its_commit(runs, config, tmp_path, monkeypatch):
    made = tmp_path / "own"
    made.mkdir()
    shutil.copy(config.data.path, made / "rows.csv")
    with fake_hub.serve() as online:
        monkeypatch.setattr(constants, "ENDPOINT", online.address)
        template = online.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        online.repos["owner/tickets"] = fake_hub.Repo(made)
        config.data.path = "owner/tickets@main"
        run = runs.prepare(config)
    kept = yaml.safe_load((Path(run.path) / "config.yaml").read_text(encoding="utf-8"))
    assert kept["data"]["path"] == f"owner/tickets@{fake_hub.COMMIT}/rows.csv"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"path": "nowhere.csv"}}, "There is no data file or data set nowhere.csv"),
        ({"model": {"id": "nobody/nothing"}}, "There is no model nobody/nothing"),
    ],
)
def test_what_is_not_there_is_named_and_leaves_nothing(home, runs, config, change, said):
    with pytest.raises(StudioError, match=said):
        runs.prepare(TrainingConfig.model_validate(config.model_dump() | change))
    assert list(home.runs.iterdir()) == []


def test_no_room_means_no_run(home, runs, config, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**7))
    with pytest.raises(StudioError, match="No room for"):
        runs.prepare(config)
    assert list(home.runs.iterdir()) == []


def test_a_run_goes_through_its_states(runs, config):
    run = ready(
        runs,
        config,
        {"wait": "go-1"},
        phase("Loading the model"),
        {"wait": "go-2"},
        *STEPS[:3],
        {"wait": "go-3"},
        STEPS[3],
        phase("Comparing"),
        {"wait": "go-4"},
        *WELL[5:],
    )
    assert run.status is Status.QUEUED
    assert runs.start(run.id).status is Status.STARTING
    for gate, status in (("go-1", Status.STARTING), ("go-2", Status.TRAINING), ("go-3", Status.EVALUATING)):
        Path(run.path, gate).touch()
        until(lambda: runs.get(run.id).phase or runs.get(run.id).step == 2)
        until(lambda status=status: runs.get(run.id).status is status)
    now = runs.get(run.id)
    assert (now.step, now.steps, now.phase, now.adapter) == (3, 3, "Comparing", None)
    Path(run.path, "go-4").touch()
    done = over(runs, run.id)
    assert (done.status, done.adapter, done.result["steps"]) == (Status.FINISHED, "support-desk@v1", 3)
    assert done.seconds_left is None
    assert done.ended


def test_a_reader_at_any_time_sees_every_event_once(runs, config):
    run = ready(runs, config, *WELL)
    runs.start(run.id)
    followed = [event.type for event in runs.follow(run.id)]
    assert followed == ["started", "step", "step", "step", "phase", "finished"]
    read, offset = jobs.read_events(Path(run.path, "events.jsonl"))
    assert [event.type for event in read] == followed
    assert jobs.read_events(Path(run.path, "events.jsonl"), offset) == ([], offset)


@pytest.mark.spec("U5.4")
def test_a_failed_run_says_what_and_what_next(runs, config):
    run = ready(runs, config, {"print": "Traceback of it all"}, *STEPS[:2], failed(), {"exit": 1})
    runs.start(run.id)
    ended = over(runs, run.id)
    assert (ended.status, ended.error, ended.hint) == (
        Status.FAILED,
        "The loss is no number any more.",
        "Lower the rate.",
    )
    assert "Traceback of it all" in runs.log(run.id)


def test_a_killed_engine_is_interrupted_and_its_events_are_kept(make, runs, config):
    run = ready(runs, config, *STEPS[:3], {"append": '{"type":"step","step":3,"lo'}, {"wait": "never"})
    runs.start(run.id)
    until(lambda: runs.get(run.id).step == 2)
    os.kill(jobs.recorded(Path(run.path)).pid, signal.SIGKILL)
    ended = over(runs, run.id)
    assert (ended.status, ended.step) == (Status.INTERRUPTED, 2)
    assert "lack of memory" in ended.error
    assert ended.hint
    assert make().get(run.id).error == ended.error  # also for a studio that was not there


def test_memory_that_ran_out_is_told_with_what_was_foretold(runs, config):
    run = ready(runs, config, *STEPS, {"kill": 9})
    lineage = Path(run.path, "lineage.json")
    said = quote(peak_memory_bytes=2_500_000_000).model_dump()
    lineage.write_text(json.dumps(json.loads(lineage.read_text()) | {"quote": said}))
    Path(run.path, "checkpoints", "step-3").mkdir(parents=True)
    runs.start(run.id)
    ended = over(runs, run.id)
    assert ended.error.endswith("most often for lack of memory. 2.5 GB had been foretold.")
    assert ended.hint == "It can be resumed after step 3, best with half the train.batch_tokens."


def test_an_engine_that_dies_before_its_first_word_is_not_starting_for_ever(runs, config):
    run = ready(runs, config, {"anonymous": True}, {"print": "ImportError: libcuda"}, {"exit": 1})
    runs.start(run.id)
    ended = over(runs, run.id)
    assert ended.status is Status.INTERRUPTED
    assert ended.error == "The engine ended with code 1. Its last words: ImportError: libcuda"


def test_an_adapter_saved_before_the_engine_died_is_pointed_at(runs, config):
    saved = {"emit": {"type": "saved", "step": 3, "path": "adapter", "bytes": 9}}
    run = ready(runs, config, *STEPS, {"adapter": ""}, saved, {"kill": 9})
    runs.start(run.id)
    assert str(Path(run.path, "adapter")) in over(runs, run.id).hint


def test_stop_is_a_wish_that_the_engine_grants(runs, config):
    stop = {"wait": "control/stop"}
    run = ready(runs, config, *STEPS[:3], stop, {"adapter": "Not measured"}, finished(2, stopped=True))
    runs.start(run.id)
    until(lambda: runs.get(run.id).step == 2)
    runs.stop(run.id)
    ended = over(runs, run.id)
    assert (ended.status, ended.adapter, ended.error) == (Status.STOPPED, "support-desk@v1", "")
    assert runs.stop(run.id) == ended  # again: nothing happens


def test_force_ends_an_engine_that_does_not_listen(runs, config):
    run = ready(runs, config, *STEPS[:2], {"wait": "never"})
    runs.start(run.id)
    until(lambda: runs.get(run.id).step == 1)
    assert runs.stop(run.id).status is Status.TRAINING
    ended = runs.stop(run.id, force=True)
    assert (ended.status, ended.error) == (Status.STOPPED, "It was stopped before it had saved an adapter.")


def test_a_run_stopped_before_it_starts_never_starts(runs, config):
    run = ready(runs, config, *WELL)
    assert runs.stop(run.id).status is Status.STOPPED
    with pytest.raises(StudioError, match="support-desk, run 1 is over: stopped"):
        runs.start(run.id)
    assert list(runs.follow(run.id)) == []


def test_a_run_stopped_before_its_first_step_makes_no_version(runs, config):
    run = ready(runs, config, started(), {"adapter": ""}, finished(0, stopped=True))
    runs.start(run.id)
    assert over(runs, run.id).adapter is None


def test_two_who_start_a_run_start_one_engine(make, config):
    run = ready(make(), config, {"append": json.dumps({"type": "phase", "words": "here"}) + "\n"}, {"wait": "go"})
    threads = [threading.Thread(target=make().start, args=(run.id,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.3)
    Path(run.path, "go").touch()
    assert [event.words for event in make().follow(run.id)] == ["here"]


STUDIO = """
import sys
from pathlib import Path
from studio.services import jobs
directory = Path(sys.argv[1])
jobs.spawn_recorded("train", directory, directory / "worker.log", sys.argv[2:])
print("up", flush=True)
input()
"""


def test_a_new_studio_adopts_the_engine_of_a_killed_one(make, runs, config):
    run = ready(runs, config, *STEPS[:3], {"wait": "go"}, *WELL[3:])
    old = subprocess.Popen(
        [sys.executable, "-c", STUDIO, run.path, *FAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(jobs.__file__).parents[2])},
    )
    assert old.stdout.readline() == b"up\n"
    old.kill()
    old.communicate()
    until(lambda: runs.get(run.id).step == 2)
    new = make()
    assert new.get(run.id).status is Status.TRAINING
    assert psutil.pid_exists(jobs.recorded(Path(run.path)).pid)
    Path(run.path, "go").touch()
    assert over(new, run.id).adapter == "support-desk@v1"


def test_a_recycled_process_number_is_not_adopted(make, config):
    run = ready(make(), config, *STEPS[:3], {"kill": 9})
    make().start(run.id)
    over(make(), run.id)
    record = jobs.recorded(Path(run.path))
    other = record.model_copy(update={"pid": os.getpid(), "exit_code": None})
    Path(run.path, "process.json").write_text(other.model_dump_json())
    assert make().get(run.id).status is Status.INTERRUPTED


def test_the_adapter_is_kept_once_whoever_looks_and_not_again_after_its_removal(make, config):
    run = ready(make(), config, *WELL)
    make().start(run.id)
    over(make(), run.id)
    for studio in (make(), make()):
        assert studio.get(run.id).adapter == "support-desk@v1"
    studio.adapters.remove("support-desk@v1")
    assert studio.get(run.id).adapter is None
    assert make().get(run.id).adapter is None
    assert make().adapters.list() == []


def test_an_adapter_that_cannot_be_kept_is_told_with_the_run(make, config):
    run = ready(make(), config, *STEPS, {"write": ["adapter.txt", ""]}, {"adapter": ""}, {"wait": "go"}, finished())
    runs = make()
    runs.start(run.id)
    until(lambda: Path(run.path, "adapter", "studio.json").exists())
    Path(run.path, "adapter", "adapter_model.safetensors").rename(Path(run.path, "adapter", "adapter_model.bin"))
    Path(run.path, "go").touch()
    ended = over(runs, run.id)
    assert ended.status is Status.FINISHED
    assert "pickled weights" in ended.error


def test_the_list_is_newest_first_by_status_and_survives_a_broken_folder(home, runs, config):
    first, second = ready(runs, config, *WELL), ready(runs, config)
    runs.start(first.id)
    over(runs, first.id)
    (home.runs / "broken-1").mkdir()
    (home.runs / "broken-1" / "config.yaml").write_text("}{")
    assert [run.id for run in runs.list()] == [second.id, first.id]
    assert [run.id for run in runs.list(Status.FINISHED)] == [first.id]


def test_a_second_look_reads_only_what_is_new(runs, config):
    run = ready(runs, config, *WELL)
    runs.start(run.id)
    ended = over(runs, run.id)
    file = Path(run.path, "events.jsonl")
    file.write_bytes(b"#" * file.stat().st_size)  # what was read is not read again
    assert runs.get(run.id) == ended


@pytest.mark.parametrize("name", ["support-desk-9", "../runs", "", "..", "a/b", "."])
def test_a_run_that_is_not_there_is_named(runs, name):
    with pytest.raises(NotFound, match="There is no run"):
        runs.get(name)


def test_a_copied_directory_runs_where_it_lies(home, runs, config, tmp_path):
    run = ready(runs, config, *WELL)
    copy = tmp_path / "elsewhere" / "job"
    shutil.copytree(run.path, copy)
    heard = []
    done = runs.execute(copy, lambda event: heard.append(event.type))
    assert (done.status, done.path) == (Status.FINISHED, str(copy))
    assert heard[-1] == "finished"
    assert runs.adapters.get(done.adapter).path == str(copy / "adapter")
    assert runs.adapters.list() == []  # it is not a run of this home
    with pytest.raises(StudioError, match="is over"):
        runs.execute(copy)


def test_a_copied_directory_whose_model_is_elsewhere_is_refused_by_name(runs, config, tmp_path):
    run = ready(runs, config, *WELL)
    lineage = json.loads(Path(run.path, "lineage.json").read_text())
    for what, place in (("model", tmp_path / "no-model"), ("data set", tmp_path / "no-data")):
        changed = json.loads(json.dumps(lineage))
        changed["model" if what == "model" else "dataset"]["path"] = str(place)
        Path(run.path, "lineage.json").write_text(json.dumps(changed))
        with pytest.raises(StudioError, match=f"The {what} of this run is not on this machine: {place}"):
            runs.execute(run.path)
    with pytest.raises(NotFound, match="is not a run directory"):
        runs.execute(tmp_path)


def test_ctrl_c_while_executing_pauses(runs, config):
    run = ready(runs, config, *STEPS[:3], {"wait": "control/pause"}, {"emit": {"type": "paused", "step": 2}})

    def interrupt(event):
        if event.type == "step" and event.step == 2:
            raise KeyboardInterrupt

    assert runs.execute(run.path, interrupt).status is Status.PAUSED


# pause and resume

PAUSED = {"emit": {"type": "paused", "step": 2, "checkpoint": "checkpoints/step-2", "memory_bytes": 2_000_000_000}}


def again(after=2):
    return {"emit": {**started()["emit"], "resumed_from": after}}


def paused(runs, config):
    """A run that was paused after its second step."""
    run = ready(runs, config, *STEPS[:3], {"wait": "control/pause"}, PAUSED)
    runs.start(run.id)
    until(lambda: runs.get(run.id).step == 2)
    assert runs.pause(run.id).status is Status.TRAINING
    Path(run.path, "checkpoints", "step-2").mkdir(parents=True)
    return over(runs, run.id)


def test_a_paused_run_goes_on_in_its_own_folder(runs, make, config):
    run = paused(runs, config)
    assert (run.status, run.checkpoint, run.adapter) == (Status.PAUSED, 2, None)
    assert make().get(run.id) == run
    Path(run.path, "plan.json").write_text(
        json.dumps([phase("Loading"), again(), step(3), {"adapter": ""}, finished()])
    )
    before = run.seconds
    assert runs.resume(run.id).status.active
    ended = over(runs, run.id)
    assert (ended.status, ended.step, ended.adapter) == (Status.FINISHED, 3, "support-desk@v1")
    assert ended.seconds >= before
    assert make().get(run.id) == ended
    with pytest.raises(StudioError, match="is finished: it cannot be resumed"):
        runs.resume(run.id)


def test_a_killed_run_is_resumed_and_what_it_told_after_its_checkpoint_is_void(runs, make, config):
    run = ready(runs, config, *STEPS, {"kill": None})
    Path(run.path, "checkpoints", "step-1").mkdir(parents=True)
    runs.start(run.id)
    dead = over(runs, run.id)
    assert (dead.status, dead.step, dead.checkpoint) == (Status.INTERRUPTED, 3, 1)
    assert "resumed after step 1" in dead.hint
    with pytest.raises(StudioError, match="is interrupted at step 1") as told:
        runs.start(run.id)
    assert "runs resume" in told.value.hint
    Path(run.path, "plan.json").write_text(json.dumps([phase("Loading"), again(1), {"wait": "go"}, step(2), step(3)]))
    runs.resume(run.id)
    until(lambda: runs.get(run.id).steps and runs.get(run.id).step == 1)
    assert make().get(run.id).step == 1
    Path(run.path, "go").touch()
    assert over(runs, run.id).step == 3


def test_a_paused_run_that_is_stopped_makes_its_adapter(runs, config):
    run = paused(runs, config)
    plan = [again(), {"wait": "control/stop"}, {"adapter": ""}, finished(2, stopped=True)]
    Path(run.path, "plan.json").write_text(json.dumps(plan))
    runs.stop(run.id)
    ended = over(runs, run.id)
    assert (ended.status, ended.adapter) == (Status.STOPPED, "support-desk@v1")


def test_a_run_goes_on_with_another_rate_but_not_with_another_model(runs, config):
    run = paused(runs, config)
    with pytest.raises(StudioError, match=r"method\.rank cannot change"):
        runs.resume(run.id, {"method.rank": 8})
    with pytest.raises(StudioError, match=r"train\.learning_rate"):
        runs.resume(run.id, {"train.learning_rate": -1})
    assert runs.get(run.id).status is Status.PAUSED
    Path(run.path, "plan.json").write_text(json.dumps([again(), {"adapter": ""}, finished()]))
    runs.resume(run.id, {"train.learning_rate": 1e-5})
    assert json.loads(Path(run.path, "control", "edit.json").read_text()) == {"train.learning_rate": 1e-5}
    assert over(runs, run.id).status is Status.FINISHED


def test_only_what_trains_is_paused_or_saved(runs, config):
    run = ready(runs, config, *WELL)
    assert runs.pause(run.id).status is Status.QUEUED
    with pytest.raises(StudioError, match="nothing to save"):
        runs.save(run.id)
    runs.start(run.id)
    assert over(runs, run.id).status is Status.FINISHED
    assert runs.pause(run.id).status is Status.FINISHED


def test_an_earlier_step_becomes_a_version(runs, make, config):
    run = ready(runs, config, *WELL)
    for step_of in (1, 2):
        Path(run.path, "checkpoints", f"step-{step_of}").mkdir(parents=True)
    runs.start(run.id)
    assert over(runs, run.id).adapter == "support-desk@v1"
    assert runs.kept_steps(run.id) == [1, 2]
    made = runs.keep(run.id, 2)
    assert (made.ref, made.run, made.step) == ("support-desk@v2", run.id, 2)
    assert make().get(run.id).adapter == "support-desk@v1"
    with pytest.raises(StudioError, match="no checkpoint of step 3") as told:
        runs.keep(run.id, 3)
    assert "1, 2" in told.value.hint


def test_a_paused_run_that_is_stopped_twice_has_one_engine(runs, make, config, monkeypatch):
    run = paused(runs, config)
    Path(run.path, "plan.json").write_text(json.dumps([again(), {"wait": "more"}, {"adapter": ""}, finished(2, True)]))
    engines, spawn = [], jobs.spawn_recorded
    monkeypatch.setattr(jobs, "spawn_recorded", lambda *args: (engines.append(args[1]), spawn(*args)))
    threads = [threading.Thread(target=make().stop, args=(run.id,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path(run.path, "more").touch()
    assert over(runs, run.id).status is Status.STOPPED
    assert len(engines) == 1
