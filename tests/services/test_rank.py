"""The rank follows from the widths of the base and from how much there is to learn."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.document import from_document, override
from studio.domain.methods import METHODS
from studio.domain.records import Model
from studio.services.rank import MOST, rank_for
from tests.domain.test_shape import STARTER


def rank(tokens: float, folder: Path | None = None, method: str = "lora", parameters: int = 0, *said: str) -> int:
    document = override({"model": {"id": "m"}, "data": {"path": "d"}}, list(said))
    model = Model(id="m", path=str(folder or ""), source="", parameters=parameters)
    return rank_for(from_document(document).model_dump(), METHODS[method], model, tokens)[0]


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(STARTER))
    return tmp_path


@pytest.mark.spec("U4.2")
def test_the_rank_is_doubled_until_the_layers_hold_what_the_data_teaches(starter: Path) -> None:
    """Rank 16 is 4,884,480 numbers there, of 2 bits each; a trained token teaches one."""
    assert rank(9_768_960, starter) == 16
    assert rank(9_768_961, starter) == 32
    assert rank(1e12, starter) == MOST
    assert rank(1e6, starter, "lora", 0, "method.targets=attention") == 16
    assert rank(4e6, starter, "lora", 0, "method.targets=attention") == 32, "attention alone holds less"
    wide = {**STARTER, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
    (starter / "config.json").write_text(json.dumps(wide))
    assert rank(9_768_961, starter) == 16, "a wider model has more numbers at the same rank"


def test_a_narrow_model_gets_no_rank_near_its_width(starter: Path) -> None:
    (starter / "config.json").write_text(json.dumps({**STARTER, "hidden_size": 64, "intermediate_size": 128}))
    assert rank(1e12, starter) == 16


@pytest.mark.parametrize(("method", "usual"), [("vera", 256), ("miss", 64), ("adalora", 16), ("dora", 16)])
def test_each_method_begins_at_its_own_rank(starter: Path, method: str, usual: int) -> None:
    assert rank(0, starter, method) == rank(1e6, starter, method) == usual


@given(tokens=st.floats(0, 1e12), more=st.floats(1, 1e3), parameters=st.integers(0, 10**12))
def test_more_to_learn_never_lowers_the_rank(tokens: float, more: float, parameters: int) -> None:
    assert 16 <= rank(tokens, parameters=parameters) <= rank(tokens * more, parameters=parameters) <= MOST
