"""Tasks of lm-eval, run for real over a two-layer model: its own figures, compared document by document."""

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.domain.errors import DataError, EngineError, StudioError
from studio.domain.records import Model
from studio.services.adapters import Adapters
from studio.services.datasets import Datasets
from studio.services.evaluate import Evaluate
from studio.storage.store import Store
from tests.engine.conftest import make_model, make_tokenizer

pytest.importorskip("lm_eval", reason='the extra "lm-eval" is not installed')

from lm_eval import utils as lm_utils
from lm_eval.api.metrics import mean
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from studio.engine import tasks

ROWS = [{"question": f"What is thing {i}?", "choices": ["blue", "green"], "answer": i % 2} for i in range(12)]
CHOICE = {
    "task": "colours",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "brier_score"}],
}
ROLLING = {
    "task": "texts",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "question",
}
WRITTEN = {
    "task": "words",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["?"], "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match"}],
    "filter_list": [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": "(\\w)"}, {"function": "take_first"}]},
        {"name": "whole", "filter": [{"function": "take_first"}]},
    ],
}


@pytest.fixture
def folder(tmp_path):
    """A folder of plain tasks; `write` in it is for others."""
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return place


def write(folder, *configs, data="rows.jsonl"):
    """Write tasks as the studio does, with whole paths and a cache of their own."""
    for config in configs:
        kwargs = {"data_files": {"test": str(folder / data)}, "cache_dir": str(folder / "cache")}
        (folder / f"{config['task']}.yaml").write_text(json.dumps({"dataset_kwargs": kwargs} | config))
    return folder


@pytest.fixture(scope="module")
def bold(tmp_path_factory):
    """A base whose answers can be moved, and an adapter that moves them."""
    place = tmp_path_factory.mktemp("bold")
    base = make_model(place / "base", initializer_range=0.3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(model, settings).save_pretrained(place / "adapter")
    return base, place / "adapter"


def compare(bold, folder, **changes):
    options = {"quantization": "none", "dtype": torch.float32, "device": torch.device("cpu"), "limit": None}
    options |= {"chat_template": False, "seed": 1, "phase": lambda *words: None}
    return tasks.compare(*bold, folder, **options | changes)


def by_itself(bold, side, folder, *names):
    """What lm-eval says when it loads the files itself, the adapter through peft."""
    model = HFLM(str(bold[0]), dtype="float32", device="cpu", peft=str(bold[1]) if side == "adapter" else None)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(model, tasks=list(names), task_manager=manager, bootstrap_iters=0)


@pytest.mark.spec("U7.3", "U7.5")
def test_both_sides_have_the_figures_lm_eval_gives_them(bold, folder):
    """Chances and not only choices are compared: two models this small choose alike."""
    write(folder, CHOICE, ROLLING)
    heard = []
    found = compare(bold, folder, phase=lambda *words: heard.append(words[0]))
    for side in ("base", "adapter"):
        theirs = by_itself(bold, side, folder, "colours", "texts")["results"]
        for task, figures in found[side].items():
            assert figures == pytest.approx({key: theirs[task][f"{key},none"] for key in figures}, rel=1e-5)
    before, after = (found[side]["texts"]["word_perplexity"] for side in ("base", "adapter"))
    assert abs(after / before - 1) > 0.01
    only = {"mean": pytest.approx(after - before)}
    assert found["difference"]["texts"]["word_perplexity"] == only, "made of all texts at once: no score for each"
    assert set(found["difference"]["colours"]["acc"]) == {"mean", "low", "high", "p"}
    assert found["documents"] == {"colours": 12, "texts": 12}
    sides = ("the base model", "the adapter")
    assert heard[2:] == [f"Measuring {side} on {task}" for side in sides for task in found["base"]]
    json.dumps(found, allow_nan=False)


@pytest.mark.spec("U7.5")
def test_an_adapter_that_says_what_is_expected_is_better(bold, folder):
    """The answers expected are those lm-eval gets of the adapter by itself."""
    said = by_itself(bold, "adapter", write(folder, WRITTEN), "words")["samples"]["words"]
    rows = [row | {"said": one["resps"][0][0]} for row, one in zip(ROWS, said, strict=False)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compare(bold, write(folder, WRITTEN | {"doc_to_target": "said"}))
    whole = "exact_match,whole"
    assert (found["base"]["words"][whole], found["adapter"]["words"][whole]) == (0, 1)
    assert found["difference"]["words"][whole] == {"mean": 1, "low": 1, "high": 1, "p": 1 / 2000}
    assert set(found["base"]["words"]) == {"exact_match,first", whole}
    assert " on words (exact_match,first " in found["verdict"], "the first metric is the headline"


def test_a_limit_takes_the_first_documents(bold, folder):
    assert compare(bold, write(folder, CHOICE, WRITTEN), limit=5)["documents"] == {"colours": 5, "words": 5}


@pytest.mark.parametrize("side", ["low", "high"])
def test_only_a_whole_interval_on_one_side_is_better_or_worse(side):
    class Means:
        def aggregation(self):
            return {"acc": mean, "loss": mean, "f1": max}

    def half(metric, values, higher):
        samples = [{"doc_id": i, "filter": "none", metric: value} for i, value in enumerate(values)]
        results = {f"{metric},none": float(np.mean(values)), f"{metric}_stderr,none": "N/A", "sample_len": len(values)}
        return {"results": {"t": results}, "samples": {"t": samples}, "higher_is_better": {"t": {metric: higher}}}

    def said(metric, before, after, higher):
        sides = {"base": {"t": half(metric, before, higher)}, "adapter": {"t": half(metric, after, higher)}}
        return tasks.report({"t": Means()}, sides, 1)["verdict"]

    wrong, right = [0.0] * 20, [1.0] * 20
    higher = side == "high"
    metric = "acc" if higher else "loss"
    assert said(metric, wrong, right, higher).startswith("Better on t" if higher else "Worse on t")
    assert said(metric, right, wrong, higher).startswith("Worse on t" if higher else "Better on t")
    assert said(metric, wrong, wrong, higher) == f"No clear difference on t ({metric} 0.000 against 0.000)."
    assert said(metric, wrong[:5], right[:5], higher).startswith("No clear difference"), "five documents are too few"
    assert said("f1", wrong, right, True) == "Not judged: t."
    assert said("acc", [float("nan")] * 20, right, True) == "Not judged: t."


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch escaped') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ question.__class__ }}",
        "{{ ('%s' | attr('__class__')).__mro__ }}",
    ],
)
@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"])
def test_a_template_cannot_reach_what_it_may_not(bold, folder, tmp_path, monkeypatch, template, key):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"lm-eval cannot run the task colours\. SecurityError"):
        compare(bold, write(folder, CHOICE | {key: template}), limit=1)
    assert not Path("escaped").exists()


def test_a_version_of_lm_eval_whose_templates_cannot_be_enclosed_is_refused(monkeypatch):
    monkeypatch.setattr(lm_utils, "apply_template", lambda template, doc: "")
    with pytest.raises(StudioError, match="cannot be kept from running code") as caught:
        tasks._enclose()
    assert "lm_eval==0.4.13" in caught.value.hint


def test_a_metric_is_lm_evals_own_and_never_a_file(bold, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('escaped', 'w')\n")
    with pytest.raises(DataError, match=r"lm-eval has no metric \./evil\.py.* It has: acc, "):
        compare(bold, write(folder, CHOICE | {"metric_list": [{"metric": "./evil.py"}]}))
    assert not Path("escaped").exists()
    with pytest.raises(DataError, match="has no aggregation sum"):
        compare(bold, write(folder, CHOICE | {"metric_list": [{"metric": "acc", "aggregation": "sum"}]}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_split": "validation"}, "asks for the split validation, which its data has not. It has: test"),
        ({"doc_to_text": "{{colour}}"}, "UndefinedError: 'colour' is undefined"),
        ({"doc_to_text": "{{"}, "TemplateSyntaxError"),
        ({"doc_to_choice": "{{question}}"}, "cannot run the task colours"),
        ({"output_type": "guess"}, "invalid output_type 'guess'"),
        ({"metric_list": "acc"}, "cannot run the task colours"),
        ({"metric_list": [{"metric": "likelihood"}]}, "cannot run the task colours"),  # its mean is of pairs
        ({"filter_list": [{"name": "x", "filter": [{"function": "custom", "filter_fn": "f"}]}]}, "'str' object"),
        ({"filter_list": [{"name": "x", "filter": [{"function": "none such"}]}]}, "Unknown filter"),
        ({"num_fewshot": 50, "fewshot_split": "test"}, "cannot run the task colours"),
        ({"fewshot_config": {"sampler": "evil"}}, "no sampling strategy"),
    ],
)
def test_a_task_lm_eval_cannot_run_is_named_with_the_reason(bold, folder, changes, words):
    with pytest.raises(DataError, match=words):
        compare(bold, write(folder, CHOICE | changes), limit=2)


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("json", "", "holds no rows"),
        ("json", "\n\n", "holds no rows"),
        ("csv", "question,answer\n", "holds no rows"),
        ("csv", "", "holds no rows"),
        ("text", "", "holds no rows"),
        ("json", "not json\n", "cannot run the task colours. .*JSON"),
        ("parquet", "not parquet", "cannot run the task colours. .*[Pp]arquet"),
    ],
)
def test_data_without_rows_or_of_another_kind_is_told(bold, folder, kind, content, words):
    (folder / "none").write_text(content)
    with pytest.raises(DataError, match=words):
        compare(bold, write(folder, CHOICE | {"dataset_path": kind}, data="none"))


def test_with_the_chat_template_questions_are_asked_as_chat_asks(bold, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(tasks._Model, "generate_until", lambda self, requests: asked.extend(requests) or ["x"] * 2)
    compare(
        bold, write(folder, WRITTEN | {"description": "Be short.", "gen_prefix": "It is"}), limit=2, chat_template=True
    )
    tokenizer = make_tokenizer()
    talk = [{"role": "system", "content": "Be short."}, {"role": "user", "content": ROWS[0]["question"]}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert asked[0].args[0] == text + "It is"


class OneModel:
    def __init__(self, path):
        self.path = path

    def find(self, id):
        return Model(id=str(self.path), path=str(self.path), source="folder")


def test_an_engine_measures_offline_and_leaves_nothing(bold, folder, home, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user").mkdir()
    adapter = tmp_path / "adapter"
    shutil.copytree(bold[1], adapter)
    (adapter / "studio.json").write_text(json.dumps({"base": {"id": str(bold[0]), "path": str(bold[0])}}))
    (folder / "words.yaml").write_text(json.dumps(WRITTEN | {"dataset_kwargs": {"data_files": {"test": "rows.jsonl"}}}))
    evaluate = Evaluate(home, OneModel(bold[0]), Adapters(home, Store(home)), Datasets(home))
    heard = []
    found = evaluate.tasks(str(adapter), folder, limit=4, report=lambda phase: heard.append(phase.words))
    assert found["documents"] == {"words": 4}
    assert set(found["difference"]["words"]) == {"exact_match,first", "exact_match,whole"}
    assert "Measuring the adapter on words" in heard
    (folder / "words.yaml").write_text((folder / "words.yaml").read_text().replace("question", "colour"))
    with pytest.raises(EngineError, match=r"cannot run the task words\. UndefinedError: 'colour' is undefined"):
        evaluate.tasks(str(adapter), folder)
    assert list(home.cache.iterdir()) == []
    assert list((tmp_path / "user").rglob("*")) == []
    assert {path.name for path in home.logs.iterdir()} == {"evaluate.log"}
    assert {path.name for path in folder.iterdir()} == {"rows.jsonl", "words.yaml"}
