"""Comparing runs: what differs, which is best, what may not be compared, and losses after a resume."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.document import to_yaml
from studio.domain.errors import StudioError
from studio.domain.events import AnyEvent, Evaluated, Started, Step
from studio.domain.records import Run, Status
from studio.services.compare import Comparison, Row, Side, _finely, compare, load, settings, value_at
from studio.services.curve import Curve
from tests.ui.test_quote import quote

FACTS: dict[str, Any] = {"rows": 9, "eval_rows": 4, "tokens_per_epoch": 900, "trainable_parameters": 3}


def started(device: str = "processor", resumed_from: int | None = None) -> Started:
    return Started(steps=10, device=device, precision="fp32", resumed_from=resumed_from, **FACTS)


def step(number: int, loss: float, tokens: int) -> Step:
    return Step(
        step=number, loss=loss, tokens=tokens, learning_rate=1e-4, grad_norm=1, tokens_per_second=1, memory_bytes=1
    )


def checks(*losses: float, each: int = 100) -> list[AnyEvent]:
    """A run tested before and after every step, each of so many tokens."""
    told: list[AnyEvent] = [Evaluated(step=0, loss=losses[0])]
    for number, loss in enumerate(losses[1:], 1):
        told += [step(number, loss, number * each), Evaluated(step=number, loss=loss)]
    return told


def side(
    id: str,
    *events: AnyEvent,
    device: str = "processor",
    dataset: str = "tickets",
    document: dict[str, Any] | None = None,
    exact: float | None = None,
    **facts: Any,
) -> Side:
    curve = Curve()
    for event in [started(device), *events]:
        curve._take(event)
    steps = [event for event in events if isinstance(event, Step)]
    seen: dict[str, Any] = {"step": steps[-1].step, "tokens": steps[-1].tokens} if steps else {}
    shown: dict[str, Any] = {"status": Status.FINISHED, "model": "starter", "dataset": "tickets", "method": "lora"}
    result = {"eval": {"adapter": {"exact_match": exact}}} if exact is not None else {}
    run = Run(id=id, name="desk", created="", **({"result": result, "path": ""} | shown | seen | facts))
    config = TrainingConfig.model_validate({"model": {"id": run.model}, "data": {"path": "x"}} | (document or {}))
    return Side(run, config, dataset, curve)


def row(found: Comparison, name: str) -> Row:
    return next(row for row in [*found.settings, *found.results] if row.name == name)


def names(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


@pytest.mark.spec("U17.3")
def test_the_best_of_each_row_is_marked_where_one_way_is_better() -> None:
    found = compare(
        [
            side("a-1", *checks(3, 2, 1.5), exact=0.5, result={"train_seconds": 60.0, "eval": {"adapter": {}}}),
            side("a-2", *checks(3, 1.2, 1.8), exact=0.75, seconds=50.0, step=2, loss=1.0, memory_bytes=9_000_000),
            side("a-3", *checks(3, 1.9, 1.5), exact=0.25, seconds=70.0, step=2, loss=1.1, memory_bytes=8_000_000),
        ]
    )
    assert row(found, "Held-out loss, lowest").best == [1]
    assert row(found, "Held-out loss, last").best == [0, 2], "a tie has two best"
    assert row(found, "Exactly right").best == [1]
    assert row(found, "Training time").words == ["60 s", "50 s", "70 s"]
    assert row(found, "Training time").best == [1]
    assert row(found, "Memory, highest").words == ["", "9.0 MB", "8.0 MB"]
    assert row(found, "Memory, highest").best == [2]
    assert row(found, "Training loss, last").best == [], "neither way is better"


def test_only_what_differs_in_the_settings_is_told() -> None:
    found = compare(
        [
            side("a-1", document={"method": {"rank": 8}, "train": {"learning_rate": 0.0002}}),
            side("a-2", document={"method": {"name": "dora", "rank": 64}}, method="dora"),
        ]
    )
    assert names(found.settings) == ["Method", "Rank", "Learning rate"]
    assert row(found, "Method").words == ["LoRA", "DoRA"]
    assert row(found, "Rank").values == [8, 64]
    assert row(found, "Learning rate").words == ["2.0e-4", "automatic"]
    assert compare([side("a-1"), side("a-2")]).settings == []


def test_losses_on_different_rows_have_no_best() -> None:
    found = compare([side("a-1", *checks(3, 2), exact=0.5), side("b-1", *checks(3, 1), exact=0.9, dataset="sql")])
    assert not row(found, "Held-out loss, last").best
    assert not row(found, "Exactly right").best
    assert "different rows" in found.notes[0]
    assert row(found, "Data").words == ["tickets", "sql"], "two data sets of one name are told by their ids"


def test_losses_of_different_bases_have_no_best_but_answers_do() -> None:
    found = compare([side("a-1", *checks(3, 2), exact=0.5), side("a-2", *checks(3, 1), exact=0.9, model="org/other")])
    assert not row(found, "Held-out loss, last").best
    assert row(found, "Exactly right").best == [1]
    assert "different tokens" in found.notes[0]
    assert row(found, "Base model").words == ["SmolLM2-135M-Instruct", "org/other"]


@pytest.mark.spec("U17.2")
def test_on_different_hardware_the_loss_is_told_after_equal_tokens() -> None:
    slow = side("a-1", *checks(3, 2, 1, each=100))
    fast = side("a-2", *checks(3, 2, 1.5, 1.2, each=150), device="cuda")
    found = compare([slow, fast])
    equal = row(found, "Held-out loss after 200 tokens")
    assert equal.values == [1, pytest.approx(2 - 0.5 * 50 / 150)]
    assert equal.best == [0]
    assert any("different hardware" in note for note in found.notes)
    assert row(found, "Ran on").words == ["processor", "cuda"]


def test_a_run_that_ended_early_is_not_the_fastest() -> None:
    found = compare([side("a-1", seconds=9, step=3, status=Status.STOPPED), side("a-2", seconds=60, step=9)])
    assert row(found, "Training time").best == []
    assert row(found, "State").words == ["Stopped", "Finished"]


@pytest.mark.spec("U17.1", "U17.4")
def test_electricity_and_cost_stand_beside_where_they_were_quoted(tmp_path: Path) -> None:
    sides = []
    for number, seconds in enumerate((120.0, 30.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        said = quote(seconds=60.0, energy_kwh=0.01, cost=0.5, currency="EUR")
        (folder / "lineage.json").write_text(json.dumps({"quote": said.model_dump()}))
        result = {"closing": {"score": 50 - 25 * number}}
        events = (step(1, 1.0, 1800),)  # two passes over 900 tokens
        sides.append(side(f"a-{number}", *events, path=str(folder), seconds=seconds, result=result))
    found = compare(sides)
    assert row(found, "Electricity").words == ["0.02 kWh", "0.005 kWh"]
    assert row(found, "Cost").words == ["1.00 EUR", "0.25 EUR"]
    assert row(found, "Cost").best == [1]
    assert row(found, "Cost of a pass over the data").words == ["0.5 EUR", "0.12 EUR"]
    assert row(found, "Cost of a point of the score").words == ["0.02 EUR", "0.01 EUR"]
    assert row(found, "Cost of a point of the score").best == [1]
    with pytest.raises(StopIteration):
        row(compare([side("a-1"), side("a-2")]), "Cost")


@pytest.mark.parametrize(("cost", "said"), [(1.2345e-5, "0.000012 EUR"), (0.5, "0.5 EUR"), (1234.5, "1200 EUR")])
def test_a_small_cost_is_told_without_an_exponent(cost: float, said: str) -> None:
    assert _finely(cost, "EUR") == said


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(0, 1))
def test_a_value_on_the_line_lies_between_its_neighbours(ys: list[float], share: float) -> None:
    points = [(float(i), y) for i, y in enumerate(ys)]
    x = share * (len(ys) - 1)
    found = value_at(points, x)
    assert found is not None
    near = ys[int(x) : int(x) + 2]
    assert min(near) - 1e-3 <= found <= max(near) + 1e-3
    assert value_at(points, len(ys)) is None


@pytest.mark.parametrize("ids", [[], ["a-1"], ["a-1", "a-1"], [f"a-{n}" for n in range(6)]])
def test_two_to_five_runs_are_compared(ids: list[str]) -> None:
    with pytest.raises(StudioError, match="two to five"):
        load(None, ids)  # type: ignore[arg-type]


def test_the_settings_of_a_run_are_read_from_its_folder(tmp_path: Path) -> None:
    config = TrainingConfig.model_validate({"model": {"id": "starter"}, "data": {"path": "/far/away.csv"}})
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    run = side("a-1").run.model_copy(update={"path": str(tmp_path)})
    with pytest.raises(StudioError, match="settings of a, run 1 cannot be read"):
        settings(run)
    (tmp_path / "lineage.json").write_text('{"dataset": {"id": "tickets-2"}}')
    assert settings(run) == (config, "tickets-2")
