"""The quick library gives the tokens the tokenizer gives, or is not used."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from studio.engine import quick_tokens, tokens
from studio.engine.quick_tokens import PATTERNS, Differs, Quick, encode, known
from tests.engine.conftest import CORPUS, make_tokenizer

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


QUICK = {name: Quick(backend) for name, backend in TOKENIZERS.items()}


def plain(encoded):
    return [part.tolist() for part in encoded]


@pytest.mark.parametrize("name", WAYS)
@given(st.lists(TEXTS, max_size=6))
@settings(max_examples=300, deadline=None)
def test_the_quick_tokens_are_the_tokenizers(name, texts):
    backend = TOKENIZERS[name]
    assert known(backend)
    assert plain(QUICK[name](texts)) == plain(encode(backend, texts))


@pytest.mark.parametrize(
    "backend",
    [
        made(pre_tokenizers.Metaspace()),
        made(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        made(after(r"\s+|\S+ ?")),
        made(BYTES, normalizers.NFKC()),
        made(BYTES, added=[AddedToken("<mask>", lstrip=True)]),
        made(BYTES, added=[AddedToken("sky", single_word=True)]),
    ],
    ids=["metaspace", "prefix", "another pattern", "another normaliser", "takes a space", "a word alone"],
)
def test_other_tokenizers_are_not_known(backend):
    assert not known(backend)


def test_other_tokens_are_told_and_the_file_made_without_the_library(monkeypatch, tmp_path):
    rows, tokenizer = tmp_path / "rows.jsonl", make_tokenizer(None)
    rows.write_text('{"text": "The sky is blue.", "row": 1}\n' * 300)
    right = tokens.tokenise(tokenizer, rows, "")[0].ids.tolist()
    other = made(WAYS["GPT-2"])
    quick = Quick(other)
    quick.backend = tokenizer.backend_tokenizer
    with pytest.raises(Differs):
        quick(["The sky is blue.</s>"])
    monkeypatch.setattr(tokens, "_quick", lambda *_: quick)
    assert tokens.tokenise(tokenizer, rows, "again")[0].ids.tolist() == right


def test_a_difference_is_found_late():
    quick = Quick(TOKENIZERS["GPT-2"])
    quick(["The sky"] * 300)
    quick.backend = made(after(r"\S+ ?"))  # a space belongs to the word before it
    with pytest.raises(Differs):
        quick(["The sky is blue."])


def test_a_large_file_is_tokenised_by_it(monkeypatch, tmp_path):
    monkeypatch.setattr(quick_tokens, "WORTH", 10)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "The sky", "row": 1}\n')

    class Holder:
        backend_tokenizer = TOKENIZERS["GPT-2"]

    assert tokens._quick(Holder, rows)
    Holder.backend_tokenizer = made(pre_tokenizers.Metaspace())
    assert tokens._quick(Holder, rows) is None
    monkeypatch.setattr(quick_tokens, "known", lambda backend: True)
    Holder.backend_tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    assert tokens._quick(Holder, rows) is None  # what the library cannot read


def test_nothing_is_nothing():
    for texts in ([], ["", ""]):
        ids, lengths = QUICK["GPT-2"](texts)
        assert ids.tolist() == []
        assert np.array_equal(lengths, [0] * len(texts))
