"""A quote in words and bars: nothing but what it says, escaped, and a button for each change that helps."""

from studio.domain import words
from studio.domain.quote import Quote, Rung
from studio.domain.records import Run, Status
from studio.ui import quote as drawn


def quote(**more: object) -> Quote:
    usual = {
        **{"peak_memory_bytes": 3_000_000_000, "room_bytes": 2_000_000_000, "fits": False, "margin_bytes": 1},
        **{"seconds": 300, "low": 240, "high": 360, "train_seconds": 200, "load_seconds": 9, "steps": 9, "tokens": 9},
        **{"disk_bytes": 1, "recomputed_layers": 0, "breakdown": {"Model": 2 * 10**9, "<b>": 10**9}},
        **{"device": "processor", "parameters": 1, "quantization": "none", "uncorrected_bytes": 1, "work": 1},
    }
    rung = {"effect": "Slower.", "edit": {"train.batch_tokens": 512}, "seconds": 9}
    rungs = [
        Rung(words="512 tokens at once", peak_memory_bytes=10**9, fits=True, recommended=True, **rung),
        Rung(words="Rank 8", peak_memory_bytes=25 * 10**8, fits=False, **rung),
    ]
    return Quote.model_validate({**usual, "ladder": rungs, **more})


def run(status: Status = Status.FINISHED, **more: object) -> Run:
    kept = dict.fromkeys(("id", "name", "path", "model", "dataset", "method", "created"), "a")
    return Run.model_validate({**kept, "status": status, **more})


def test_the_bar_names_its_parts_and_lets_no_markup_in() -> None:
    text = drawn.memory(quote())
    assert "3.0 GB of 2.0 GB" in text
    assert "&lt;b&gt;" in text
    assert "over" in text
    assert "over" not in drawn.memory(quote(fits=True, room_bytes=10**10)).replace("overflow", "")


def test_each_change_has_its_button_until_it_fits() -> None:
    text = drawn.ladder(quote())
    assert text.count("<button") == 2
    assert 'data-id="1"' in text
    assert text.index("Recommended") < text.index("Not enough")
    assert drawn.ladder(quote(fits=True)) == ""


def test_cells_say_how_sure_they_are_and_leave_out_what_is_not_known() -> None:
    memory, time, electricity = drawn.cells(quote())
    assert (memory["tone"], memory["note"]) == ("bad", "more than there is")
    assert time["value"] == "4–6 min"
    assert "rough" in time["note"]
    assert electricity["value"] == ""
    assert drawn.cells(quote(energy_kwh=0.2, cost=0.06, currency="EUR"))[2]["value"] == "0.06 EUR"


def test_a_run_says_what_was_quoted_and_what_it_took() -> None:
    over = run(seconds=300.0, result={"peak_memory_bytes": 2_900_000_000})
    assert drawn.against(quote(), over) == "Quoted 3.0 GB and 4–6 min; took 2.9 GB and 5 min."
    paid = quote(cost=0.1, currency="EUR")
    assert drawn.against(paid, over).endswith("5 min, 0.10 EUR.")
    assert drawn.against(paid, run(Status.TRAINING)) == "Quoted 3.0 GB and 4–6 min, 0.10 EUR."
    assert drawn.against(None, over) == ""
    assert words.price(0.001, "EUR") == "under 0.01 EUR"
