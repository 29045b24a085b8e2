"""Our loop says token for token what transformers' own says, and each row of a batch what it says alone."""

from types import SimpleNamespace

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed
from transformers.cache_utils import DynamicLayer

from studio.engine.cache import STEP, grow
from studio.engine.decode import Lane, decode
from tests.engine.conftest import make_model, make_tokenizer
from tests.engine.test_generate import KINDS, make_any

PROMPTS = [[5, 9, 120, 30, 7], [44, 3, 200], [17, 17, 18, 19, 250, 99, 31]]
GREEDY = {"temperature": 0.0, "top_p": 1.0, "seed": None}
DRAWN = {"temperature": 0.9, "top_p": 0.8, "seed": 7}


def said(model, prompts, stops=(), room=12, **options):
    steps = list(decode(model, prompts, room=room, stops=set(stops), **options))
    return [[token for token in row if token is not None] for row in zip(*steps, strict=True)]


def generated(model, prompt, room=12, **options):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, eos_token_id=[], **options
        )
    return found[0].tolist()[-room:]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt_neox", "mamba"])
def test_tokens_are_those_of_generate(tmp_path, kind):
    shape = {"hidden_size": 32, "state_size": 8} if kind == "mamba" else {}
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / kind, kind, **shape), dtype=torch.float32).eval()
    for prompt in PROMPTS:
        assert said(model, [prompt], **GREEDY)[0] == generated(model, prompt, do_sample=False)
        set_seed(7)
        expected = generated(model, prompt, do_sample=True, temperature=0.9, top_p=0.8, top_k=50)
        assert said(model, [prompt], **DRAWN)[0] == expected


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "OFT", "IA3"])
def test_adapters_of_peft_speak_as_with_generate(tiny, tmp_path, kind):
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, make_any(tiny, tmp_path / "one", KINDS[kind], 1)).eval()
    assert said(model, PROMPTS[:1], **GREEDY)[0] == generated(model, PROMPTS[0], do_sample=False)
    with model.disable_adapter():
        plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        assert said(model, PROMPTS[:1], **GREEDY) == said(plain, PROMPTS[:1], **GREEDY)


@pytest.mark.parametrize("options", [GREEDY, DRAWN])
def test_each_row_says_what_it_says_alone_and_ends_by_itself(tiny, options):
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    alone = [said(model, [prompt], **options)[0] for prompt in PROMPTS]
    assert said(model, PROMPTS, **options) == alone
    stop = alone[1][2]
    ended = [row[: row.index(stop) + 1] if stop in row else row for row in alone]
    assert said(model, PROMPTS, stops=[stop], **options) == ended


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt_neox", "mistral", "falcon_h1"])
def test_rows_that_have_ended_may_leave_the_batch(tmp_path, kind):
    shape = {"sliding_window": 6} if kind == "mistral" else {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}
    more = shape if kind in ("mistral", "falcon_h1") else {}
    base = make_model(tmp_path / kind, kind, initializer_range=0.3, **more)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    whole = said(model, PROMPTS, room=STEP + 20, **GREEDY)
    for stop in (whole[1][2], whole[0][5]):
        ended = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
        assert said(model, PROMPTS, stops=[stop], room=STEP + 20, shrink=True, **GREEDY) == ended


def test_what_grows_in_place_holds_what_is_put_together_anew():
    keys = [torch.rand(3, 2, length, 4) for length in (5, 1, 1, STEP, 1)]
    plain = DynamicLayer()
    plain.update(keys[0], keys[0] + 1)
    past = {"past_key_values": SimpleNamespace(layers=[plain])}
    assert grow(past)
    (mine,) = past["past_key_values"].layers
    for new in keys[1:]:
        found = mine.update(new, new + 1)
    assert torch.equal(found[0], torch.cat(keys, 2))
    assert torch.equal(found[1], torch.cat(keys, 2) + 1)
    assert mine.get_seq_length() == STEP + 8
    mine.batch_select_indices(torch.tensor([2, 0]))
    found, _ = mine.update(keys[1][[2, 0]], keys[1][[2, 0]])
    assert torch.equal(found, torch.cat([*keys, keys[1]], 2)[[2, 0]])
    assert not grow({"cache_params": SimpleNamespace()}), "of what it does not know no row is taken"


def test_a_row_that_its_reader_ends_says_no_more(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    going, found = [True, True], []
    for step in decode(model, PROMPTS[:2], room=6, stops=set(), going=going, **GREEDY):
        found.append(step)
        going[0] = len(found) < 2
    assert [row[0] is None for row in found] == [False, False, True, True, True, True]
    assert [row[1] for row in found] == said(model, PROMPTS[1:2], room=6, **GREEDY)[0]


@pytest.mark.parametrize(
    ("stop", "given"),
    [
        ([], "one two\n\nthree four"),
        (["\n\n"], "one two"),
        (["three", "two\n\nth"], "one "),
        (["four"], "one two\n\nthree "),
        (["four score"], "one two\n\nthree four"),
        (["o"], ""),
    ],
)
def test_the_text_of_a_lane_ends_before_a_stop_word(stop, given):
    tokenizer = make_tokenizer()
    lane, pieces = Lane(tokenizer, stop), []
    for token in tokenizer("one two\n\nthree four", add_special_tokens=False)["input_ids"]:
        pieces.append(lane.take(token))
        assert given.startswith("".join(pieces)), "nothing is given out and taken back"
        if lane.cut:
            break
    assert "".join([*pieces, lane.close()]) == given
    assert lane.cut == (given != "one two\n\nthree four")


def test_the_text_of_a_lane_comes_in_whole_characters(tiny):
    tokenizer = make_tokenizer()
    ids = tokenizer("Größe 😀 ok", add_special_tokens=False)["input_ids"]
    lane = Lane(tokenizer)
    pieces = [lane.take(token) for token in ids] + [lane.close()]
    assert "".join(pieces) == "Größe 😀 ok"
    assert not any("\ufffd" in piece for piece in pieces)
    assert lane.tokens == len(ids)
    assert lane.over
