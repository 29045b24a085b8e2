"""The comparison's figures and its verdict."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.engine import evaluate
from studio.engine.report import Reporter
from tests.engine.conftest import EXAMPLES


@pytest.mark.parametrize(
    ("said", "expected", "f1"),
    [
        ("the sky is blue", "the sky is blue", 1.0),
        ("The SKY, is blue!", "the sky is blue", 1.0),
        ("", "", 1.0),
        ("", "blue", 0.0),
        ("blue sky", "sky green", 0.5),
        ("blue blue", "blue", 2 / 3),
    ],
)
def test_token_f1(said, expected, f1):
    assert evaluate.token_f1(said, expected) == pytest.approx(f1)


@given(st.text(), st.text())
def test_token_f1_is_a_share_and_symmetric(a, b):
    assert 0 <= evaluate.token_f1(a, b) <= 1
    assert evaluate.token_f1(a, b) == pytest.approx(evaluate.token_f1(b, a))
    assert evaluate.token_f1(a, a) == 1


def sides(base_f1, adapter_f1, base_loss=2.0, adapter_loss=1.0, n=40):
    def side(f1, loss):
        rng = np.random.default_rng(0)  # the same rows are easy for both
        values = np.clip(f1 + rng.normal(0, 0.05, n), 0, 1)
        return {
            "sums": (loss + rng.normal(0, 0.05, n)) * 10,
            "counts": np.full(n, 10.0),
            "said": ["x"] * n,
            "exact_match": (values > 0.9).astype(float),
            "token_f1": values,
        }

    return {"base": side(base_f1, base_loss), "adapter": side(adapter_f1, adapter_loss)}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (sides(0.1, 0.95), "Better"),
        (sides(0.95, 0.1, 1.0, 2.0), "Worse"),
        (sides(0.1, 0.95, 1.0, 2.0), "Mixed"),
        (sides(0.5, 0.5, 1.0, 1.0), "Not better"),
    ],
)
def test_the_verdict_follows_the_intervals(given, word):
    result = evaluate.report(given, 42)
    assert result["verdict"].startswith(word + ":")
    for metric, found in result["difference"].items():
        assert found["low"] <= found["mean"] <= found["high"], metric
        assert 0 < found["p"] <= 1
        assert found["mean"] == pytest.approx(result["adapter"][metric] - result["base"][metric])


def test_without_rows_nothing_is_claimed():
    empty = {key: np.array([]) for key in ("sums", "counts", "exact_match", "token_f1")} | {"said": []}
    result = evaluate.report({"base": empty, "adapter": empty}, 42)
    assert result["verdict"].startswith("Not measured")


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
