"""Energy and cost are said as far as they are known."""

from typing import Any

import pytest

from studio.domain.errors import StudioError
from studio.services.power import Power
from studio.storage.paths import Home
from studio.studio import Studio
from tests.services.test_estimate import facts, quote, studio  # noqa: F401 - a fixture


class Card:
    def cards(self) -> list[Any]:
        return ["card"]


@pytest.fixture
def power(home: Home) -> Power:
    return Power(home, Card())  # type: ignore[arg-type]


def test_a_card_says_what_it_takes_unless_the_user_does(power: Power, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynvml.nvmlDeviceGetEnforcedPowerLimit", lambda card: 450_000)
    assert power.watts(on_card=True) == 450
    assert power.watts(on_card=False) is None, "no processor says what it takes"
    power.change(watts=90)
    assert power.watts(on_card=True) == power.watts(on_card=False) == 90


@pytest.mark.parametrize("wrong", [{"price": -1}, {"watts": 0}, {"currency": "doubloons!"}])
def test_nonsense_is_refused_and_changes_nothing(power: Power, wrong: dict[str, Any]) -> None:
    power.change(price=0.3, currency="EUR", watts=90)
    with pytest.raises(StudioError):
        power.change(**wrong)
    assert (power.settings.price, power.settings.currency, power.settings.watts) == (0.3, "EUR", 90)


@pytest.mark.spec("U4.5")
def test_a_quote_has_a_cost_once_a_price_was_given(studio: Studio, tmp_path: Any) -> None:  # noqa: F811
    file = tmp_path / "desk.csv"
    file.write_text("question,answer\n" + "".join(f"What is {n}?,It is {n}.\n" for n in range(40)))
    dataset = studio.datasets.add(file)
    assert quote(studio, dataset, facts()).cost is None
    studio.power.change(watts=200)
    watts_only = quote(studio, dataset, facts())
    assert watts_only.energy_kwh == pytest.approx(200 * watts_only.seconds / 3.6e6)
    assert watts_only.cost is None
    studio.power.change(price=0.5, currency="EUR")
    found = quote(studio, dataset, facts())
    assert found.cost == pytest.approx(0.5 * watts_only.energy_kwh)
    assert found.currency == "EUR"
    assert found.peak_memory_bytes > 0
    assert found.high > found.low > 0
