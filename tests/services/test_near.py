"""Nearly equal examples: found across punctuation and a word in many, not where the sense differs, in flat memory."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from studio.services.near import Near

LONG = "The parcel was sent last Tuesday from our depot in the north and should reach you within five working days, as "
LONG += "the courier told us this morning; if it does not, write to us again and we will send another one at no cost."


def chat(question: str, answer: str, system: str = "") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}


def test_other_signs_and_capitals_are_nearly_the_same() -> None:
    near = Near()
    assert near.add(chat("When will my top-up go through?", "pending"), 1) == 0
    assert near.find(chat("when will my top up go through", "pending")) == 1
    assert near.add(chat("when will my top up go through", "pending"), 2) == 1
    assert near.find(chat("Is the shop open?", "yes")) == 0


def test_a_word_in_a_long_text_is_nearly_the_same_and_in_a_short_one_it_is_not() -> None:
    near = Near()
    assert near.add({"text": LONG}, 1) == 0
    assert near.add({"text": LONG.replace("Tuesday", "Monday")}, 2) == 1
    assert near.add({"text": "Can I top up with Apple Pay?"}, 3) == 0
    assert near.add({"text": "Can I top up with Google Pay?"}, 4) == 0


def test_question_and_answer_both_have_to_agree() -> None:
    near = Near()
    near.add(chat("Where is my parcel?", LONG), 1)
    assert near.add(chat("Is the shop open on Sundays?", LONG), 2) == 0
    assert near.add(chat("Where is my parcel?", "At home."), 3) == 0


def test_the_frame_of_a_prompt_makes_no_two_rows_alike() -> None:
    names = random.Random(1).sample(range(10**6), 60)
    rows = [chat(f"{LONG} Now answer this: who owns number {n}?", "A person.", LONG) for n in names]
    near = Near(rows)
    assert [near.add(row, place) for place, row in enumerate(rows, 1)] == [0] * 60


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_an_equal_text_is_always_found(texts: list[str]) -> None:
    near = Near()
    for row, text in enumerate(texts, 1):
        near.add({"text": text}, row)
    assert all(near.add({"text": text}, 100) for text in texts)
