"""The comparison with a real model: what is measured, on what, and what it finds."""

import json
import math

import numpy as np
import pytest
import torch

from studio.domain.events import Finished, parse
from studio.engine import attention, evaluate, models, tokens, train
from studio.engine.report import Reporter
from tests.engine.conftest import EXAMPLES, make_model, talk


def test_the_evaluate_job_measures_the_base_alone(tiny, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES[:6]))
    request = {"model": {"path": str(tiny)}, "adapter": "", "data": str(data), "answers": 3, "seed": 1}
    (tmp_path / "request.json").write_text(json.dumps(request))
    evaluate.run(tmp_path, Reporter(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rows"] == 6
    # an untrained model of about 400 tokens is as unsure as it can be
    assert result["base"]["loss"] == pytest.approx(math.log(400), abs=1)
    assert len(result["samples"]) == 3
    assert result["verdict"].startswith("Not measured")


def desk(labels):
    """Questions of a help desk with the label each has; which of four it is stands in the question."""
    topics = {"sky": "weather", "parcel": "delivery", "colour": "design", "courier": "staff"}
    asked = [f"Number {i}: {topic}?" for i, topic in enumerate(list(topics) * 60)]
    right = [topics[question.split()[-1].rstrip("?")] for question in asked]
    order = np.random.default_rng(0).permutation(len(asked))
    answers = right if labels == "right" else [right[i] for i in np.random.default_rng(1).permutation(len(right))]
    return [talk(asked[i], answers[i], int(i) + 1) for i in order]


@pytest.mark.spec("U7.3", "U7.4")
@pytest.mark.parametrize(
    ("labels", "word", "advice"),
    [
        ("right", "Better on yours", ""),
        ("shuffled", "Not better on yours", "each answer stands beside its own question"),
    ],
)
def test_a_run_on_shuffled_labels_is_called_what_it_is(tmp_path, make_run, labels, word, advice):
    base = make_model(tmp_path / "bold", initializer_range=0.3)  # whose answers can be moved in few steps
    settings = ["train.max_steps=80", "train.effective_rows=8", "evaluate.answers=24", "evaluate.every=1000"]
    directory = make_run(base, *settings, "evaluate.general=true", examples=desk(labels), held=60)
    train.run(directory, Reporter(directory))
    events = map(parse, (directory / "events.jsonl").read_bytes().splitlines())
    (result,) = [event.result for event in events if isinstance(event, Finished)]
    found = result["eval"]
    assert found["verdict"].startswith(word)
    assert found["difference"]["loss"]["high"] < 0  # also with shuffled labels it knows what an answer looks like
    assert (found["link"]["low"] > 0) == (labels == "right")
    assert {"exact_match", "token_f1", "loss", "perplexity"} <= set(found["adapter"])
    assert {"score", "loss", "accuracy"} <= set(found["general"]["difference"])
    assert "general" in found["verdict"]
    assert advice in result["closing"]["advice"]
    assert (result["closing"]["score"] > 0) == (labels == "right")


def test_labels_are_a_few_answers_that_repeat_one_a_row():
    def answers(*contents):
        return {
            "messages": [{"role": "user", "content": "?"}, *({"role": "assistant", "content": c} for c in contents)]
        }

    assert evaluate.single_answers([answers("a"), answers("b")]) == ["a", "b"]
    assert evaluate.single_answers([answers("a"), answers("b", "c")]) == []
    assert evaluate.single_answers([{"text": "a"}]) == []
    assert evaluate.single_answers([answers(None)]) == [""]  # a call of a tool


def test_an_answer_is_also_asked_of_another_question_with_another_answer(tiny):
    tokenizer = tokens.load_tokenizer(tiny)
    pairs = evaluate.swapped_rows(tokenizer, [talk("How?", "So."), talk("How?", "Thus."), talk("Why?", "Thus.")], 256)
    ((own, other), *rest) = pairs
    assert len(rest) == 1  # the second has no row of another question and another answer but the first's twin
    assert tokenizer.decode(own.ids[own.trained]) == tokenizer.decode(other.ids[other.trained]) == "So.<|im_end|>"
    assert "How?" in tokenizer.decode(own.ids)
    assert "Why?" in tokenizer.decode(other.ids)
    assert evaluate.swapped_rows(tokenizer, [talk("How?", "So.")], 256) == []
    assert evaluate.swapped_rows(tokenizer, [{"text": "a"}], 256) == []


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2"])
def test_who_trains_on_packed_rows_answers_beside_padding_as_alone(tmp_path, kind):
    """An attention without a mask of its own is given none: it would see neither padding nor a window."""
    window = {} if kind == "llama" else {"sliding_window": 12}
    base = make_model(tmp_path / kind, kind, initializer_range=0.3, **window)
    tokenizer, cpu = tokens.load_tokenizer(base), torch.device("cpu")
    model = models.load_base(base, "none", torch.float32, cpu).eval()
    asked = ["sky", "Where is my parcel? It is with the courier, and it will arrive tomorrow."]
    prompts = [tokens.question(tokenizer, talk(text, "")) for text in asked]
    alone = [evaluate.answer_all(model, tokenizer, [each], 8, cpu, lambda done, total: None)[0] for each in prompts]
    model.set_attn_implementation(attention.NAME)
    assert evaluate.answer_all(model, tokenizer, prompts, 8, cpu, lambda done, total: None) == alone
    assert model.config._attn_implementation == attention.NAME


def test_capped_scores_train_with_questions_asked_on_the_way(tmp_path, make_run):
    settings = ["train.max_steps=2", "evaluate.samples=2", "evaluate.every=1"]
    directory = make_run(make_model(tmp_path / "capped", "gemma2"), *settings)
    train.run(directory, Reporter(directory))
    assert [
        event
        for event in map(parse, (directory / "events.jsonl").read_bytes().splitlines())
        if isinstance(event, Finished)
    ]
