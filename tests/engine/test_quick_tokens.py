"""Words remembered give the tokens the tokenizer gives for whole texts, or are not used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from studio.engine import quick_tokens
from studio.engine.quick_tokens import PATTERNS, Words, apart_at_spaces, encode
from tests.engine.conftest import CORPUS

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
UNSPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def after(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), UNSPLIT])


WAYS = {
    "GPT-2": BYTES,
    "digits first": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "Llama 3": after(PATTERNS[0]),
    "Qwen 2": after(PATTERNS[1]),
    "Qwen 3.5": after(PATTERNS[2]),
}


def made(way, normaliser=None, added=("<|end|>", "<|start|>", "   ")):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = way, decoders.ByteLevel()
    if normaliser:
        backend.normalizer = normaliser
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*CORPUS, "it's 12 345 we'll  go\n\n  in\t'd", "é ü 天 ك"] * 3, trainer)
    backend.add_tokens(list(added))
    return backend


TOKENIZERS = {name: made(way, normalizers.NFC() if "Qwen" in name else None) for name, way in WAYS.items()}
# what tokenizers treat in ways of their own: white space of every kind, endings after ', digits, marks, tokens
PIECES = [
    "it's",
    "'ll",
    "'",
    "sky",
    "12",
    "7",
    ".",
    "...",
    "\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "   ",
    "\x0b",
    "\x1c",
    "\x85",
]
PIECES += [
    "\xa0",
    "\u2003",
    "\u2028",
    "\u200b",
    "\u0301",
    "e\u0301",
    "é",
    "ك",
    "天地",
    "🙂",
    "<|end|>",
    "<|",
    "_",
    "A",
    "",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12).map("".join)


@pytest.mark.parametrize("name", WAYS)
@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_words_put_together_are_the_text(name, batches):
    backend = TOKENIZERS[name]
    assert apart_at_spaces(backend)
    words = Words(backend)
    words.compared = True  # it stands without the comparison
    for texts in batches:
        for mine, whole in zip(words(texts), encode(backend, texts), strict=True):
            assert mine.tolist() == whole.tolist()
    assert words.use


@pytest.mark.parametrize(
    "backend",
    [
        made(pre_tokenizers.Metaspace()),
        made(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        made(after(r"\s+|\S+ ?")),
        made(BYTES, normalizers.NFKC()),
        made(BYTES, added=[AddedToken("<mask>", lstrip=True)]),
        made(BYTES, added=["sky is"]),
    ],
    ids=["metaspace", "prefix", "another pattern", "another normaliser", "takes a space", "holds a space"],
)
def test_other_tokenizers_are_asked_for_whole_texts(backend):
    assert not apart_at_spaces(backend)
    texts = ["The sky is blue.", "<mask> sky is"]
    words = Words(backend)
    assert [part.tolist() for part in words(texts)] == [part.tolist() for part in encode(backend, texts)]
    assert not words.numbers


def test_words_that_differ_from_the_text_are_given_up(monkeypatch):
    monkeypatch.setattr(quick_tokens, "apart_at_spaces", lambda backend: True)
    backend = made(after(r"\S+ ?"))  # a space belongs to the word before it
    words = Words(backend)
    for text in ("The sky is blue.", "The sky"):
        assert [part.tolist() for part in words([text])] == [part.tolist() for part in encode(backend, [text])]
    assert not words.use


def test_many_new_words_are_not_learned_and_old_ones_forgotten(monkeypatch):
    backend = TOKENIZERS["GPT-2"]
    words = Words(backend)
    words(["The sky is blue."])
    known = list(words.numbers)
    new = ["Where is my parcel and when"]
    assert words(new)[0].tolist() == encode(backend, new)[0].tolist()
    assert list(words.numbers) == known
    monkeypatch.setattr(quick_tokens, "ROOM", 0)
    assert words(["The sky"])[0].tolist() == encode(backend, ["The sky"])[0].tolist()
    assert not words.numbers
    assert words(["The sky"])[0].tolist() == encode(backend, ["The sky"])[0].tolist()


def test_nothing_is_nothing():
    words = Words(TOKENIZERS["GPT-2"])
    for texts in ([], ["", ""]):
        ids, lengths = words(texts)
        assert ids.tolist() == []
        assert np.array_equal(lengths, [0] * len(texts))
