"""What comes around the steps is foretold from how much there is to look at and to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.config import TrainingConfig
from studio.domain.document import from_document
from studio.services import besides
from studio.services.besides import Held
from studio.services.trial import Compared, Side


def config(**evaluate: int | bool) -> TrainingConfig:
    return from_document({"model": {"id": "m"}, "data": {"path": "d"}, "evaluate": evaluate})


def test_the_comparison_is_foretold_from_a_little_of_it() -> None:
    base = Side(look=0.001, read=2, a_turn=0.05, a_token=0.01)
    one = Compared(load=1, base=base, adapter=Side(look=0.002, read=3, a_turn=0.1, a_token=0.02))
    looked = 99 * 0.001 + (99 + 99) * 0.002  # both sides, and the adapter's once more with others' answers
    assert besides.tried(config(general=False), Held(3, 33, 10, 40, 0), one) == pytest.approx(looked)
    room = 40 * 1.25 + 8
    said = room * 0.05 + 3 * 0.7 * room * 0.01 + room * 0.1 + 3 * 10 * 0.02
    assert besides.tried(config(general=False), Held(3, 33, 10, 40, 3), one) == pytest.approx(looked + 2 + 3 + said)


def test_nothing_held_out_takes_no_time() -> None:
    assert besides.rough(config(), Held(0, 0, 0, 0, 0), 0.01, 0, 10, 1000) == 0


def test_a_card_that_waits_for_each_token_is_reckoned_with() -> None:
    held = Held(30, 200, 100, 250, 24)
    quick, waits = (besides.rough(config(), held, 1e-5, turn, 10, 1e5) for turn in (0.0, 0.02))
    assert waits - quick == pytest.approx(2 * held.room * (0.02 - 21e-5))


@given(
    held=st.builds(Held, st.integers(1, 10**5), st.floats(60, 500), st.floats(1, 50), st.floats(50, 500), st.just(1)),
    steps=st.integers(1, 10**4),
)
def test_more_to_do_takes_longer(held: Held, steps: int) -> None:
    def seconds(held: Held, **evaluate: int | bool) -> float:
        return besides.rough(config(**evaluate), held, 0.002, 0, steps, 1000 * steps)

    asked = Held(held.rows, held.mean, held.answer, held.longest, 24)
    silent = Held(held.rows, held.mean, held.answer, held.longest, 0)
    assert 0 < seconds(silent) < seconds(held) < seconds(asked)
    assert seconds(asked, general=False) < seconds(asked)
    assert seconds(asked, every=max(1, steps // 10)) >= seconds(asked, every=steps)
