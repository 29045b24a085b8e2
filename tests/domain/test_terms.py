"""The glossary: a text is cut at its terms without losing anything, each explained once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.terms import BY_WORD, TERMS, Term, split


@given(st.lists(st.one_of(st.text(), st.sampled_from([*BY_WORD, *(word.upper() for word in BY_WORD)]))))
def test_the_pieces_join_to_the_text_and_a_term_comes_once(parts: list[str]) -> None:
    text = " ".join(parts)
    pieces = split(text)
    assert "".join(piece for piece, _ in pieces) == text
    named = [term.name for _, term in pieces if term]
    assert len(named) == len(set(named))


@pytest.mark.spec("U21.4")
@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_every_word_of_a_term_is_found_in_a_sentence(term: Term) -> None:
    for word in (term.name, *term.also):
        assert (word, term) in split(f"What about {word}, then?")
    assert term.text.endswith(".")


def test_a_term_inside_a_longer_word_is_another_word() -> None:
    assert split("prefix-rank and stepping losses") == [("prefix-rank and stepping losses", None)]
