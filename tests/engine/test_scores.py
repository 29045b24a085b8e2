"""How close an answer is to the expected one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.engine.scores import chrf, exact, rouge_l, scores, token_f1


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
    assert token_f1(said, expected) == pytest.approx(f1)


@given(st.text(), st.text())
def test_shares_are_shares_and_word_overlap_is_symmetric(a, b):
    for measure in (exact, token_f1, rouge_l, chrf):
        assert 0 <= measure(a, b) <= 1
    assert token_f1(a, b) == pytest.approx(token_f1(b, a))
    assert exact(a, a) == token_f1(a, a) == 1


@pytest.mark.parametrize(
    ("said", "expected", "share"),
    [
        # the examples of Lin 2004, section 3.1: of two candidates with the same words one keeps their order
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("Полиция здесь", "полиция, здесь!", 1.0),
        ("", "", 1.0),
        ("", "blue", 0.0),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence_of_words(said, expected, share):
    assert rouge_l(said, expected) == pytest.approx(share)


def test_an_ending_costs_less_in_characters_than_in_words():
    said, expected = "Der kleine Hund läuft", "Die kleinen Hunde laufen"
    assert token_f1(said, expected) == 0 < 0.3 < chrf(said, expected)


def test_characters_are_compared_only_where_answers_are_long():
    assert list(scores(["card_arrival"], ["card_arrival"])) == ["exact_match", "token_f1"]
    long = ["It will be with you tomorrow."]
    assert list(scores(long, long)) == ["exact_match", "token_f1", "rouge_l", "chrf"]
    assert list(scores([], [])) == ["exact_match", "token_f1"]
