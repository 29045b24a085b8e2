"""The head of a GGUF file: damage of any kind is one error, never a crash or a full memory."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.domain.errors import ModelError
from studio.services import gguf_head
from tests.services.test_model_facts import write_gguf


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "a.gguf").read_bytes()


def test_lists_are_told_by_their_length(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(sound)
    said, tensors = gguf_head.read(tmp_path / "a.gguf")
    assert (said["tokenizer.ggml.tokens"], said["tokenizer.ggml.scores"]) == (3, 3)
    assert {tensor.name: tensor.dtype for tensor in tensors}["blk.0.attn_norm.weight"] == "F32"


@given(st.data())
def test_a_damaged_file_is_refused_or_read(
    sound: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    head = sound[:700]
    place = data.draw(st.integers(0, len(head) - 1))
    damaged = data.draw(
        st.sampled_from([sound[:place], sound[:place] + data.draw(st.binary(min_size=1, max_size=9)) + sound[place:]])
    )
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    path.write_bytes(damaged)
    with suppress(ModelError):
        said, tensors = gguf_head.read(path)
        assert all(isinstance(key, str) for key in said)
        assert all(len(tensor.shape) <= 8 for tensor in tensors)


def test_lists_in_lists_without_end_are_refused(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", gguf_head.LIST)
    (tmp_path / "a.gguf").write_bytes(head + struct.pack("<IQ", gguf_head.LIST, 1) * 100_000)
    with pytest.raises(ModelError, match=r"a\.gguf is damaged"):
        gguf_head.read(tmp_path / "a.gguf")
