"""Evaluation: the user's file or tasks go to the engine, its comparison comes back, nothing stays behind."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import pytest
import yaml

from studio.domain.errors import DataError, EngineError, NotFound, StudioError
from studio.domain.records import Model
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.evaluate import Evaluate
from studio.storage.store import Store

# An engine that measures nothing: it hands back what it was asked, with the rows it was given.
ECHO = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[2])
request = json.loads((folder / "request.json").read_text())
tasks = {path.name: path.read_text() for path in folder.glob("tasks/*")}
rows = [json.loads(line) for line in Path(request["data"]).read_text().splitlines()] if "data" in request else tasks
event = {"type": "phase", "words": "Comparing"}
if len(rows) == 1 and not tasks:
    event = {"type": "failed", "message": "One row says nothing.", "hint": "Add some."}
(folder / "events.jsonl").write_text(json.dumps(event) + "\\n")
(folder / "result.json").write_text(json.dumps({"request": request, "rows": rows, "samples": [], "verdict": "Better."}))
sys.exit(event["type"] == "failed")
"""


class OneModel:
    def find(self, id):
        return Model(id="starter", path="/models/starter", source="hub") if id == "starter" else None


@pytest.fixture
def evaluate(home):
    command = (sys.executable, "-c", ECHO)
    return Evaluate(home, OneModel(), Adapters(home, Store(home)), Datasets(home), command)


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "studio.json").write_text(json.dumps({"base": {"id": "starter", "path": ""}, "quantization": "nf4"}))
    return str(folder)


def write(tmp_path, rows):
    file = tmp_path / "test.csv"
    file.write_text("topic,question,answer\n" + "\n".join(rows))
    return file


TASK = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
doc_to_text: "{{question}}"
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK)
    (folder / "rows.jsonl").write_text("{}")
    return folder


def test_tasks_reach_the_engine_as_plain_settings_with_a_cache_that_goes(home, evaluate, adapter, tasks):
    result = evaluate.tasks(adapter, tasks, names=["colours"], limit=3, chat_template=True)
    asked = result["request"]
    assert (asked["adapter"], asked["quantization"], asked["limit"], asked["chat_template"]) == (
        adapter,
        "nf4",
        3,
        True,
    )
    (text,) = result["rows"].values()
    written = yaml.safe_load(text)
    assert written["doc_to_text"] == "{{question}}"
    assert written["dataset_kwargs"]["data_files"] == {"test": str(tasks / "rows.jsonl")}
    assert Path(written["dataset_kwargs"]["cache_dir"]).parent.parent == home.cache
    assert list(home.cache.iterdir()) == []


def test_without_lm_eval_one_sentence_names_the_extra(home, evaluate, adapter, tasks, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudioError, match=r'^Tasks need lm-eval: run `pip install "peft-studio\[lm-eval\]"`\.$'):
        evaluate.tasks(adapter, tasks)
    assert list(home.cache.iterdir()) == []


def test_a_file_is_compared_on_its_usable_rows(home, evaluate, adapter, tmp_path):
    heard = []
    file = write(tmp_path, ["a,How?,So.", "b,Why?,", "c,When?,Now."])
    result = evaluate.run(
        adapter,
        file,
        map={"prompt": "question", "response": "answer"},
        answers=2,
        report=lambda phase: heard.append(phase.words),
    )
    assert [row["row"] for row in result["rows"]] == [1, 3]
    assert result["rows"][0]["messages"][-1] == {"role": "assistant", "content": "So."}
    asked = result["request"]
    assert (asked["adapter"], asked["model"]["path"], asked["quantization"], asked["answers"]) == (
        adapter,
        "/models/starter",
        "nf4",
        2,
    )
    assert heard == ["Reading test.csv", "Comparing"]
    assert list(home.cache.iterdir()) == []


def test_a_judge_gets_every_answer_written(evaluate, adapter, tmp_path):
    class Asked:
        def compare(self, samples, report):
            return {"judged": samples}

    file, columns = write(tmp_path, ["a,How?,So.", "b,Why?,Thus."]), {"prompt": "question", "response": "answer"}
    result = evaluate.run(adapter, file, map=columns, answers=50, general=False, judge=Asked())
    assert (result["request"]["samples"], result["request"]["general"]) == (50, False)
    assert result["judge"] == {"judged": []}


def test_what_a_killed_process_left_is_cleared_away(home, evaluate, adapter, tmp_path):
    for name, age in (("evaluate-old", 100_000), ("evaluate-now", 10)):
        (home.cache / name).mkdir()
        os.utime(home.cache / name, (time.time() - age,) * 2)
    evaluate.run(
        adapter, write(tmp_path, ["a,How?,So.", "b,Why?,Thus."]), map={"prompt": "question", "response": "answer"}
    )
    assert [folder.name for folder in home.cache.iterdir()] == ["evaluate-now"]


@pytest.mark.spec("U7.2")
def test_a_data_set_is_compared_on_its_held_out_rows_only(evaluate, adapter, tmp_path):
    file = write(tmp_path, [f"t,How many is {n}?,It is {n}." for n in range(30)])
    dataset = evaluate.datasets.add(file, name="counting", map={"prompt": "question", "response": "answer"})
    rows = evaluate.run(adapter, "counting")["rows"]
    assert len(rows) == dataset.eval_rows
    trained = {json.loads(line)["row"] for line in Path(dataset.path, "train.jsonl").read_text().splitlines()}
    assert not trained & {row["row"] for row in rows}


def test_what_cannot_be_compared_is_named(home, evaluate, adapter, tmp_path):
    columns = {"prompt": "question", "response": "answer"}
    with pytest.raises(NotFound, match=r"There is no data file or data set nowhere\.csv"):
        evaluate.run(adapter, "nowhere.csv")
    with pytest.raises(DataError, match=r"No row of test\.csv can be used"):
        evaluate.run(adapter, write(tmp_path, ["a,Why?,"]), map=columns)
    with pytest.raises(EngineError, match=r"One row says nothing\. Add some\."):
        evaluate.run(adapter, write(tmp_path, ["a,Why?,So."]), map=columns)
    evaluate.datasets.add(write(tmp_path, [f"t,{n}?,{n}." for n in range(5)]), name="all", map=columns, eval_fraction=0)
    with pytest.raises(DataError, match="all holds no rows back"):
        evaluate.run(adapter, "all")
    assert list(home.cache.iterdir()) == []
