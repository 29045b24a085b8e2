"""Languages: told where there is enough prose, and not guessed where there is not."""

import pytest

from studio.services.languages import language, named

GERMAN = "Der Kunde hat angerufen und gefragt, wo seine Bestellung bleibt, die er letzte Woche aufgegeben hat."
ENGLISH = "The customer called and asked where the order is that was placed last week, and whether it will come soon."


def test_prose_is_told_apart() -> None:
    assert [named(language(text)) for text in (GERMAN, ENGLISH)] == ["German", "English"]


@pytest.mark.parametrize(
    "text", ["Ja.", "card_arrival", "x = [y for y in range(10)]; print(x[0], x[1], x[2:5]) # {1: 2}", ""]
)
def test_short_texts_and_code_have_none(text: str) -> None:
    assert language(text) == ""
