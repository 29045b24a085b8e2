"""The inspector: what is shown as learned is what the trainer's batches hold, and nothing of it needs torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.document import from_document, override
from studio.engine.batches import Steps
from studio.engine.inspect import Inspector
from studio.engine.job import Job
from studio.engine.plan import make_plan
from studio.engine.report import Reporter
from studio.engine.rows import labels_of
from studio.engine.tokens import template_of
from tests.engine.conftest import STARTER_TEMPLATE, MakeRun, make_model, make_tokenizer, talk
from tests.engine.test_tokens import NO_TERMINATOR, THINKING, TWO_TURNS

LONG = talk("Why is it so?", "Because the sky is blue, and the sky is blue because it is. " * 4, 7)
EXAMPLES = [
    *(talk(f"What is {i} · 日本?", f"It is {i}, 🎉 là.", i + 1) for i in range(6)),
    LONG,
    {**TWO_TURNS, "row": 8},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "tiny")


def make_folder(folder: Path, template: str = STARTER_TEMPLATE, **config: Any) -> Path:
    """Make what the inspector needs of a model: tokenizer and config, no weights."""
    make_tokenizer(template).save_pretrained(folder)
    settings = {"model_type": "llama", "max_position_embeddings": 256, "eos_token_id": 2} | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def look(folder: Path, example: dict[str, Any], *settings: str, among: Any = EXAMPLES, kind: str = "chat") -> Any:
    sample = folder.with_name("sample.jsonl")
    sample.write_text("".join(json.dumps(each) + "\n" for each in among))
    config = from_document(override({"model": {"id": "m"}, "data": {"path": "d"}}, list(settings)))
    request = {"example": example, "kind": kind, "sample": str(sample), "of": len(among), "config": config.model_dump()}
    *_, done = Inspector(folder).answer(request, lambda: False)
    return done


def learned(seen: Any) -> str:
    return "".join(span["text"] for span in seen["spans"] if span["trained"])


@pytest.mark.spec("U24.5")
@pytest.mark.parametrize("template", [STARTER_TEMPLATE, NO_TERMINATOR, THINKING])
def test_what_is_shown_as_learned_is_what_the_trainers_batches_hold(
    make_run: MakeRun, tmp_path: Path, template: str
) -> None:
    model = make_model(tmp_path / "model", template=template, max_position_embeddings=1024)
    directory = make_run(model, examples=EXAMPLES, held=0)
    job = Job.open(directory, Reporter(directory))
    plan = make_plan(job, template_of(job.tokenizer))
    steps = Steps(plan.rows, 1, plan.size, len(plan.rows), 0, None)
    batches = [batch for step in range(len(steps)) for batch in steps[step]]
    trained = {}
    for batch in batches:
        labels = batch["labels"][0]
        trained[job.tokenizer.decode(batch["input_ids"][0])] = job.tokenizer.decode(labels[labels >= 0])
    shown = [look(model, example) for example in EXAMPLES]
    assert {seen["text"]: learned(seen) for seen in shown} == trained
    assert sum(seen["trained_tokens"] for seen in shown) == sum(int((b["labels"] >= 0).sum()) for b in batches)
    assert all(seen["terminator"] == {"text": "<|im_end|>", "trained": True} for seen in shown)


@pytest.mark.parametrize(("kind", "over"), [("chat", "split"), ("text", "ask")])
def test_split_examples_are_shown_as_their_pieces_are_trained(
    make_run: MakeRun, tiny: Path, kind: str, over: str
) -> None:
    examples = EXAMPLES if kind == "chat" else [{"text": "The sky is blue. " * n, "row": n} for n in range(1, 12)]
    settings = ("data.max_length=40", f"data.over_length={over}")
    directory = make_run(tiny, *settings, examples=examples, held=0, kind=kind)
    job = Job.open(directory, Reporter(directory))
    rows = make_plan(job, template_of(job.tokenizer)).rows
    shown = [look(tiny, example, *settings, among=examples, kind=kind) for example in examples]
    assert sum(seen["trained_tokens"] for seen in shown) == sum(int((labels_of(row) >= 0).sum()) for row in rows)
    assert all(seen["truncated_tokens"] == 0 for seen in shown)
    assert max(seen["pieces"] for seen in shown) > 1


@given(
    st.text(max_size=40).filter(str.strip),
    st.text(max_size=40).filter(str.strip),
    st.integers(32, 90),
    st.sampled_from([STARTER_TEMPLATE, NO_TERMINATOR, THINKING]),
)
def test_the_spans_are_the_text_and_count_what_is_trained(
    tmp_path_factory: pytest.TempPathFactory, question: str, answer: str, limit: int, template: str
) -> None:
    folder = make_folder(tmp_path_factory.mktemp("model") / "m", template)
    example = talk(question, answer)
    seen = look(folder, example, f"data.max_length={limit}", among=[example])
    assert "".join(span["text"] for span in seen["spans"]) == seen["text"]
    assert seen["trained_tokens"] + seen["lost_tokens"] == seen["sample"]["answer_tokens"]
    assert seen["lost_tokens"] == seen["sample"]["lost_tokens"]
    assert seen["truncated_tokens"] == max(0, seen["tokens"] - limit)
    assert seen["terminator"]["trained"] == (seen["lost_tokens"] == 0)


def test_a_limit_cuts_the_end_of_the_answer(folder: Path) -> None:
    whole = look(folder, LONG, "data.max_length=1000")
    seen = look(folder, LONG, "data.max_length=100")
    assert (seen["limit"], seen["tokens"]) == (100, whole["tokens"])
    assert seen["truncated_tokens"] == whole["tokens"] - 100
    assert seen["terminator"] == {"text": "<|im_end|>", "trained": False}
    cut = "".join(span["text"] for span in seen["spans"] if span["cut"])
    assert learned(seen) + cut == learned(whole) + "\n"
    assert seen["sample"]["longer"] >= 1
    assert 0 < seen["sample"]["lost_tokens"] < seen["sample"]["answer_tokens"]


def test_the_limit_is_the_models_context_less_what_the_adapter_takes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", max_position_embeddings=50)
    assert look(folder, LONG)["limit"] == 50
    assert look(folder, LONG, "method.name=prompt", "method.virtual_tokens=8")["limit"] == 42


def test_earlier_answers_that_a_template_rewrites_are_not_taught(tmp_path: Path) -> None:
    seen = look(make_folder(tmp_path / "m", THINKING), TWO_TURNS)
    assert (seen["answers"], seen["taught"]) == (2, 1)
    assert [span["end"] for span in seen["spans"] if span["trained"]] == ["<|im_end|>"]


def test_a_token_that_only_the_model_names_ends_an_answer_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert look(folder, EXAMPLES[0])["terminator"] == {"text": "<|im_end|>", "trained": True}  # config.json's
    (folder / "generation_config.json").write_text('{"eos_token_id": [0]}')
    assert look(folder, EXAMPLES[0])["terminator"]["trained"] is False


def test_the_job_answers_without_torch(folder: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; import studio.engine.inspect"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    sample = tmp_path / "sample.jsonl"
    sample.write_text(json.dumps(EXAMPLES[0]) + "\n")
    config = from_document({"model": {"id": "m"}, "data": {"path": "d"}}).model_dump()
    request = {"do": "look", "id": 1, "example": EXAMPLES[0], "kind": "chat", "sample": str(sample), "of": 1}
    asked = "".join(json.dumps(each) + "\n" for each in ({**request, "config": config}, {"do": "exit"}))
    job = [sys.executable, "-m", "studio.engine", "inspect", str(folder)]
    lines = subprocess.run(job, input=asked, capture_output=True, text=True, check=True).stdout.splitlines()
    said = [json.loads(line) for line in lines]
    assert [line["type"] for line in said] == ["phase", "ready", "phase", "done"]
    assert learned(said[-1]) == "It is 0, 🎉 là.<|im_end|>"
