"""Hot swap: every answer comes from the adapter chosen, and a failed load changes nothing."""

import json
import shutil
import subprocess
import sys

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.domain.document import from_document
from studio.domain.errors import ModelError, TooLong
from studio.domain.methods import METHODS
from studio.engine import lora, memory, models, tokens
from studio.engine.generate import Pipeline
from tests.engine.conftest import make_model

ASK = [{"role": "user", "content": "What is the colour of the sky?"}]


def make_adapter(base, folder, seed, rank=4):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(folder)
    return folder


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 30)[None]).logits


@pytest.mark.spec("U10.2")
def test_a_base_that_does_not_fit_is_held_in_four_bits(tmp_path, monkeypatch):
    size = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    base = make_model(tmp_path / "base", **size)
    weights = sum(value.numel() for value in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert models.fitting(base, torch.float32, 5 * weights) == "none"
    assert models.fitting(base, torch.float32, 4 * weights) == "nf4"
    assert models.fitting(base, torch.bfloat16, 3 * weights) == "none"
    adapter = make_adapter(base, tmp_path / "one", 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * weights)
    pipeline = Pipeline(base, "nf4", torch.bfloat16)
    whole, four = Pipeline(base, dtype=torch.float32), pipeline.model
    assert any(type(part).__name__ == "Linear4bit" for part in four.modules())
    *_, figures = pipeline.answer(ASK, room=4, temperature=0)
    assert figures["tokens"] > 0
    for each in (pipeline, whole):
        each.select(adapter)
    assert pipeline.others.model.get_base_model() is four, "where memory is short no second base is loaded"
    near = torch.nn.functional.cosine_similarity(logits(pipeline.model), logits(whole.model), dim=-1)
    assert near.mean() > 0.9, "4 bits are near, not equal"
    assert not torch.equal(logits(pipeline.model), logits(whole.model))


def test_four_bits_are_written_out_where_the_memory_is_enough(tmp_path, monkeypatch):
    base = make_model(tmp_path / "base", hidden_size=64, intermediate_size=128, head_dim=16)
    adapter = make_adapter(base, tmp_path / "one", 1)
    written = Pipeline(base, "nf4", torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    four = Pipeline(base, "nf4", torch.float32)
    assert [any(type(part).__name__ == "Linear4bit" for part in each.model.modules()) for each in (written, four)] == [
        False,
        True,
    ]
    assert torch.equal(logits(written.model), logits(four.model))
    for each in (written, four):
        each.select(adapter)
    assert adapter in written.swap.tables, "switched by a pointer"
    assert torch.equal(logits(written.model), logits(four.model))


@pytest.mark.spec("U10.5")
def test_logits_after_any_swap_equal_those_of_a_fresh_model(tiny, tmp_path):
    one, two = make_adapter(tiny, tmp_path / "one", 1), make_adapter(tiny, tmp_path / "two", 2, rank=8)
    pipeline = Pipeline(tiny)
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=next(pipeline.model.parameters()).dtype)
    expected = {None: logits(plain)}
    for folder in (one, two):
        fresh = AutoModelForCausalLM.from_pretrained(tiny, dtype=plain.dtype)
        expected[folder] = logits(peft.PeftModel.from_pretrained(fresh, folder).eval())
    assert not torch.equal(expected[one], expected[two])
    for adapter in (None, one, two, one, None, two, None):
        assert pipeline.select(adapter) >= 0
        assert torch.equal(logits(pipeline.model), expected[adapter]), adapter


def make_any(base, folder, method, seed, rank=8):
    """A saved adapter of any method, of weights drawn at random."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    knobs = {knob: rank for knob in ("rank", "block_size", "virtual_tokens") if knob in METHODS[method].knobs}
    document = {"model": {"id": "m"}, "data": {"path": "d"}, "method": {"name": method, **knobs}}
    model = lora.attach(model, from_document(document), folder, steps=3)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn_like(value))
    model.save_pretrained(folder)
    return folder


KINDS = {row.peft: row.name for row in reversed(METHODS.values()) if not row.changes_base}


def test_adapters_of_all_kinds_take_turns_on_one_base(tiny, tmp_path):
    pipeline = Pipeline(tiny)
    dtype = next(pipeline.model.parameters()).dtype
    folders, expected = [], {None: logits(AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype))}
    for kind, method in KINDS.items():
        for seed, rank in ((1, 8), (2, 16)):  # the second needs more room than the first has
            folder = make_any(tiny, tmp_path / f"{kind}-{seed}", method, seed, rank)
            fresh = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype), folder)
            expected[folder] = logits(fresh.eval())
            assert not torch.equal(expected[folder][:, -27:], expected[None])
            folders.append(folder)
    turns = [*folders, None, *folders[::2], None, *reversed(folders)]
    for adapter in turns:
        pipeline.select(adapter)
        assert torch.equal(logits(pipeline.model), expected[adapter]), adapter


@pytest.mark.parametrize("kind", ["OFT", "PREFIX_TUNING", "VERA"])
def test_a_failed_load_of_another_kind_brings_the_running_adapter_back(tiny, tmp_path, kind):
    one = make_any(tiny, tmp_path / "one", KINDS[kind], 1)
    other_base = make_model(tmp_path / "wider", hidden_size=64, head_dim=16)
    foreign = [
        make_any(other_base, tmp_path / "foreign", "lora", 1),
        make_any(other_base, tmp_path / "more", KINDS[kind], 1),
    ]
    pipeline = Pipeline(tiny)
    pipeline.select(one)
    before = logits(pipeline.model)
    for folder in foreign:
        with pytest.raises(ModelError, match="made for another base model"):
            pipeline.select(folder)
        assert torch.equal(logits(pipeline.model), before)
        assert pipeline.active == one.resolve()
        assert [piece for piece in pipeline.answer(ASK, room=3, temperature=0)]


def test_virtual_tokens_take_their_place_of_the_context(tiny, tmp_path):
    pipeline = Pipeline(tiny)
    pipeline.select(make_any(tiny, tmp_path / "one", "prompt", 1, rank=250))
    with pytest.raises(ModelError, match="reads at most 6"):
        list(pipeline.answer(ASK))
    pipeline.select(None)
    assert list(pipeline.answer(ASK, room=3))[-1]["tokens"] <= 3


def test_a_failed_load_leaves_the_running_adapter_active(tiny, tmp_path):
    one = make_adapter(tiny, tmp_path / "one", 1)
    other_base = make_model(tmp_path / "wider", hidden_size=64)
    foreign = make_adapter(other_base, tmp_path / "foreign", 1)
    pipeline = Pipeline(tiny)
    pipeline.select(one)
    before = logits(pipeline.model)
    with pytest.raises(ModelError, match="made for another base model"):
        pipeline.select(foreign)
    assert torch.equal(logits(pipeline.model), before)
    assert pipeline.select(one) >= 0


def test_a_failed_first_load_leaves_the_base_as_it_was(tiny, tmp_path):
    other_base = make_model(tmp_path / "wider", hidden_size=64)
    foreign, one = make_adapter(other_base, tmp_path / "foreign", 1), make_adapter(tiny, tmp_path / "one", 1)
    pipeline = Pipeline(tiny)
    before = logits(pipeline.model)
    with pytest.raises(ModelError, match="made for another base model"):
        pipeline.select(foreign)
    assert torch.equal(logits(pipeline.model), before)
    pipeline.select(one)
    assert not torch.equal(logits(pipeline.model), before)


def test_streamed_pieces_join_to_the_answer_and_are_counted(tiny):
    pipeline = Pipeline(tiny)
    *pieces, figures = pipeline.answer(ASK, room=12, temperature=0, seed=1)
    again = [piece for piece in pipeline.answer(ASK, room=12, temperature=0) if isinstance(piece, str)]
    assert "".join(pieces) == "".join(again)
    assert 0 < figures["tokens"] <= 12
    assert not figures["stopped"]


def collected(pieces, lanes):
    """The text and the figures of each lane."""
    texts, ends = [""] * lanes, [{}] * lanes
    for lane, piece in pieces:
        assert not ends[lane], "nothing comes after a lane's end"
        if isinstance(piece, str):
            texts[lane] += piece
        else:
            ends[lane] = piece
    return texts, ends


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.9, "seed": 5}])
def test_several_adapters_answer_in_one_batch_as_they_do_alone(tiny, tmp_path, monkeypatch, options):
    monkeypatch.setattr("studio.engine.models.pick_dtype", lambda *_: torch.float32)
    adapters = [make_adapter(tiny, tmp_path / str(rank), rank, rank) for rank in (4, 8, 2)]
    (adapters[1] / "studio.json").write_text(json.dumps({"template": "{{ messages[0]['content'] }}=>"}))
    adapters.insert(1, None)
    pipeline = Pipeline(tiny)
    talks = [[{"role": "user", "content": "Where is my parcel" + "?" * lane}] for lane in range(4)]
    alone = [collected(pipeline.answers([a], [t], room=30, **options), 1) for a, t in zip(adapters, talks, strict=True)]
    widths = []
    step = pipeline.model.forward
    monkeypatch.setattr(
        pipeline.model, "forward", lambda input_ids, **kw: widths.append(len(input_ids)) or step(input_ids, **kw)
    )
    texts, ends = collected(pipeline.answers(adapters, talks, room=30, **options), 4)
    assert set(widths) == {4}
    assert texts == [said[0] for said, _ in alone]
    assert [end["tokens"] for end in ends] == [figures[0]["tokens"] for _, figures in alone]
    assert pipeline.active is None


def test_adapters_that_share_no_batch_answer_one_after_the_other(tiny, tmp_path):
    one, two = make_adapter(tiny, tmp_path / "one", 1), make_any(tiny, tmp_path / "two", "ia3", 1)
    pipeline = Pipeline(tiny)
    texts, ends = collected(pipeline.answers([one, two, None], [ASK] * 3, room=6, temperature=0), 3)
    for adapter, text in zip([one, two, None], texts, strict=True):
        pipeline.select(adapter)
        assert "".join(p for p in pipeline.answer(ASK, room=6, temperature=0) if isinstance(p, str)) == text
    assert all(end["tokens"] > 0 for end in ends)


def test_stopping_ends_the_answer(tiny):
    pipeline = Pipeline(tiny)
    pieces = []
    for piece in pipeline.answer(ASK, room=200, temperature=1.0, seed=3, stopped=lambda: len(pieces) >= 3):
        pieces.append(piece)
    assert pieces[-1]["stopped"]
    assert pieces[-1]["tokens"] < 60


def test_a_stop_word_ends_one_answer_of_a_batch_and_what_ended_each_is_said(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("studio.engine.models.pick_dtype", lambda *_: torch.float32)
    pipeline = Pipeline(tiny)
    adapters = [None, make_adapter(tiny, tmp_path / "one", 1)]
    options = {"room": 40, "temperature": 0}
    texts, ends = collected(pipeline.answers(adapters, [ASK] * 2, **options), 2)
    assert {end["finish"] for end in ends} == {"length"}
    assert [end["prompt_tokens"] for end in ends] == [len(pipeline._prompt(ASK))] * 2
    word = next(texts[0][n : n + 2] for n in range(5, len(texts[0])) if texts[0][n : n + 2] not in texts[1])
    cut, cut_ends = collected(pipeline.answers(adapters, [ASK] * 2, stop=[word], **options), 2)
    assert cut == [texts[0][: texts[0].index(word)], texts[1]]
    assert [end["finish"] for end in cut_ends] == ["stop", "length"]
    assert cut_ends[0]["tokens"] < 40 == cut_ends[1]["tokens"]


def test_a_conversation_longer_than_the_context_is_refused(tiny):
    with pytest.raises(TooLong, match="reads at most 256"):
        list(Pipeline(tiny).answer([{"role": "user", "content": "sky " * 400}]))


def test_the_template_of_the_adapter_is_used(tiny, tmp_path):
    one = make_adapter(tiny, tmp_path / "one", 1)
    (one / "studio.json").write_text(json.dumps({"template": "{{ messages[0]['content'] }}=>"}))
    pipeline = Pipeline(tiny)
    pipeline.select(one)
    assert pipeline.tokenizer.apply_chat_template(ASK, tokenize=False) == "What is the colour of the sky?=>"
    pipeline.select(None)
    assert "SmolLM" in pipeline.tokenizer.apply_chat_template(ASK, tokenize=False)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"template": "{{ 1 }}", "template_sha256": tokens.template_hash("{{ 2 }}")}, "is not the one it was trained"),
        ({"stops": {"2": "<end>"}}, "learned to end its answers with <end> .token 2., which is <.im_end.> here"),
        ({"stops": {"9999": "<end>"}}, "which is None here"),
    ],
)
def test_an_adapter_of_another_template_or_terminator_is_refused(tiny, tmp_path, facts, said):
    one, two = (make_adapter(tiny, tmp_path / name, seed) for seed, name in enumerate(("one", "two")))
    (one / "studio.json").write_text(
        json.dumps({"template": "{{ messages[0]['content'] }}=>", "stops": {"2": "<|im_end|>"}})
    )
    (two / "studio.json").write_text(json.dumps(facts))
    pipeline = Pipeline(tiny)
    pipeline.select(one)
    with pytest.raises(ModelError, match=said):
        pipeline.select(two)
    assert pipeline.active == one
    assert pipeline._prompt(ASK) == pipeline.tokenizer("What is the colour of the sky?=>")["input_ids"]
    with pytest.raises(ModelError, match=said):
        list(pipeline.answers([one, two], [ASK, ASK], room=2))
    assert pipeline.active is None
    assert "SmolLM" in pipeline.tokenizer.chat_template


class Client:
    """Speaks the chat job's protocol."""

    def __init__(self, folder, idle="300"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studio.engine", "chat", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**__import__("os").environ, "PEFT_STUDIO_IDLE_SECONDS": idle},
        )

    def say(self, **message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def until(self, kind):
        found = []
        for line in self.process.stdout:
            found.append(json.loads(line))
            if found[-1]["type"] == kind:
                return found
        pytest.fail(f"the engine ended without {kind}: {found}")


@pytest.mark.spec("U10.1")
def test_the_chat_job_answers_stops_reports_errors_and_leaves(tiny, tmp_path):
    one = make_adapter(tiny, tmp_path / "one", 1)
    client = Client(tiny)
    assert client.until("ready")[-1]["memory_bytes"] > 0
    both = [{"adapter": str(one), "messages": ASK}, {"adapter": None, "messages": ASK}]
    client.say(do="answer", id=1, lanes=both, max_new_tokens=8, temperature=0)
    found = client.until("done")
    assert found[-1]["memory_bytes"] > 0
    answers = {line["lane"]: line for line in found if line["type"] == "answer"}
    for lane in (0, 1):
        said = [line["text"] for line in found if line["type"] == "token" and line["lane"] == lane]
        assert "".join(said) == answers[lane]["text"]
        assert answers[lane]["swap_seconds"] > 0
    client.say(do="answer", id=2, lanes=[{"adapter": str(tmp_path / "none"), "messages": ASK}])
    wrong = client.until("error")[-1]
    assert (wrong["kind"], "none is not an adapter folder" in wrong["message"]) == ("ModelError", True)
    client.say(do="answer", id=3, lanes=both[1:], max_new_tokens=200, temperature=1.0, seed=3)
    client.until("token")
    client.say(do="stop")
    assert client.until("answer")[-1]["stopped"]
    client.process.stdin.close()
    assert client.process.wait(20) == 0


@pytest.mark.spec("U36.5")
def test_the_chat_job_leaves_when_nobody_asks(tiny):
    client = Client(tiny, idle="0.2")
    client.until("ready")
    assert client.process.wait(20) == 0


def test_a_base_that_may_not_be_loaded_is_said(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "bad")
    (folder / "model.safetensors").unlink()
    client = Client(folder)
    assert "holds no weights" in client.until("error")[-1]["message"]
    assert client.process.wait(20) == 0
