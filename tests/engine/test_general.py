"""The general set: what it holds, and what a model makes of it."""

import math

import numpy as np
import pytest
import torch

from studio.engine import evaluate, models
from studio.engine.general import General, items, report
from tests.engine.conftest import make_tokenizer


def test_the_set_is_small_varied_and_well_formed():
    kinds = {item["kind"] for item in items()}
    assert 60 <= len(items()) <= 120
    assert {"knowledge", "arithmetic", "code", "instruction", "news", "chat"} <= kinds
    for item in items():
        assert bool(item.get("text")) != bool(item.get("question"))
        options = item.get("options", ["one"])
        assert len(set(options)) == len(options)


def test_only_the_options_of_a_question_are_measured():
    tokenizer = make_tokenizer()
    general = General.of(tokenizer, 10_000)
    first = next(item for item in items() if "options" in item)
    row = general.rows[general.options[0][0]]
    assert tokenizer.decode(row.ids) == f"Question: {first['question']}\nAnswer: {first['options'][0]}"
    assert tokenizer.decode(row.ids[row.trained]) == f" {first['options'][0]}"
    assert all(general.rows[place].trained.all() for place in general.texts)


def test_what_is_too_long_for_the_model_is_left_out_whole():
    general = General.of(make_tokenizer(), 120)
    assert 0 < len(general.rows) == len(general.texts) + sum(map(len, general.options)) < 147
    assert max(map(len, general.rows)) <= 120


def test_an_untrained_model_knows_nothing_and_guesses(tiny):
    base = models.load_base(tiny, "none", torch.float32, torch.device("cpu")).eval()
    general = General.of(make_tokenizer(), 256)
    losses = evaluate.row_losses(base, general.rows, torch.device("cpu"), lambda done, total: None)
    found = report({"base": general.side(losses)}, 1)
    assert found["base"]["loss"] == pytest.approx(math.log(400), abs=1)
    assert found["base"]["score"] == pytest.approx(1 / 400, abs=0.01)
    assert "difference" not in found


def test_losing_probability_everywhere_is_a_loss_of_points_with_an_interval():
    general = General([], [0, 1, 2], [[3, 4], [5, 6]])
    base = [np.log(np.full(9, 2.0))] * 3 + [np.array([each]) for each in (1.0, 2.0, 1.0, 2.0)]
    worse = [np.log(np.full(9, 4.0))] * 3 + [np.array([each]) for each in (1.0, 2.0, 2.0, 1.0)]
    found = report({"base": general.side(base), "adapter": general.side(worse)}, 1)
    assert (found["base"]["score"], found["adapter"]["score"]) == (pytest.approx(0.5), pytest.approx(0.25))
    assert found["difference"]["score"]["high"] == pytest.approx(-0.25)
    assert (found["base"]["accuracy"], found["adapter"]["accuracy"]) == (1.0, 0.5)
