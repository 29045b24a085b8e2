"""Chat: answers stream from one engine, which is stopped, changed, unloaded and replaced; nobody waits for ever."""

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio.domain.errors import EngineError, ModelError, NotFound
from studio.domain.events import Phase
from studio.domain.records import Adapter, Model
from studio.services.chat import Chat, Done, Token

FAKE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


class Known:
    """Stands for models and adapters: what is in the dict is here, nothing else."""

    def __init__(self, **things) -> None:
        self.things = things

    def find(self, id):
        return self.things.get(id)

    def get(self, ref):
        if ref not in self.things:
            raise NotFound(f"There is no adapter {ref}.")
        return self.things[ref]


def base(folder):
    folder.mkdir(exist_ok=True)
    return Model(id=folder.name, path=str(folder), source="folder")


def adapter(name, model):
    return Adapter(
        name=name,
        version=1,
        path=f"/adapters/{name}",
        base=model.id,
        base_path=model.path,
        run="",
        method="lora",
        created="",
        bytes=0,
    )


@pytest.fixture
def small(tmp_path):
    return base(tmp_path / "small")


@pytest.fixture
def large(tmp_path):
    return base(tmp_path / "large")


@pytest.fixture
def chat(home, small, large):
    models = Known(small=small, large=large)
    made = Chat(home, models, Known(desk=adapter("desk", small), other=adapter("other", large)), FAKE)
    yield made
    made.unload()


def ask(chat, text, model="small", worn=None):
    return chat.answer(model, worn, [{"role": "user", "content": text}])


@pytest.mark.spec("U10.2")
def test_a_base_that_was_made_smaller_is_told(chat):
    assert not chat.shrunk
    list(ask(chat, "hello"))
    assert not chat.shrunk
    list(ask(chat, "hello", "large"))
    assert chat.shrunk
    chat.unload()
    assert not chat.shrunk


def done(pieces):
    *_, last = pieces
    assert isinstance(last, Done)
    return last


def first_word(stream):
    while not isinstance(next(stream), Token):
        pass


def until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def engine_pid(chat):
    return int(done(ask(chat, "!pid")).text)


def test_an_answer_streams_after_the_model_is_loaded(chat):
    assert (chat.loaded, chat.memory_bytes) == (None, None)
    pieces = list(ask(chat, "one two"))
    assert [type(piece) for piece in pieces] == [Phase, Token, Token, Done]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Token)) == "one two "
    assert (pieces[-1].tokens, pieces[-1].tokens_per_second, pieces[-1].stopped) == (2, 9.0, False)
    assert (chat.loaded, chat.memory_bytes) == ("small", 1200)
    assert [type(piece) for piece in ask(chat, "three")] == [Token, Done]  # loaded once


def test_the_adapter_changes_under_the_same_base(chat):
    first = engine_pid(chat)
    assert done(ask(chat, "!adapter", worn="desk")).text == "/adapters/desk"
    assert done(ask(chat, "!adapter")).text == "None"
    assert done(ask(chat, "!adapter", model=None, worn="desk")).text == "/adapters/desk"
    assert engine_pid(chat) == first


def test_several_answer_each_in_its_lane(chat):
    lanes = [
        (worn, [{"role": "user", "content": f"!adapter {words}"}]) for worn, words in (("desk", "a"), (None, "b c"))
    ]
    pieces = list(chat.answers("small", lanes))
    ends = [piece for piece in pieces if isinstance(piece, Done)]
    assert [(end.lane, end.text) for end in ends] == [(0, "/adapters/desk a"), (1, "None b c")]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Token) and piece.lane == 1) == "None b c "
    with pytest.raises(ModelError, match="other@v1 was trained on large"):
        list(chat.answers("small", [*lanes, ("other", [])]))


def test_lanes_that_were_stopped_before_their_turn_end_too(chat):
    stream = chat.answers("small", [(None, [{"role": "user", "content": "one !wait two"}])] * 2)
    first_word(stream)
    chat.stop()
    ends = [piece for piece in stream if isinstance(piece, Done)]
    assert [(end.lane, end.text, end.stopped) for end in ends] == [(0, "one", True), (1, "", True)]


def test_another_base_takes_the_place_of_the_first(chat):
    first = engine_pid(chat)
    done(ask(chat, "hello", "large"))
    assert chat.loaded == "large"
    assert not psutil.pid_exists(first)


@pytest.mark.parametrize(
    ("model", "worn", "said"),
    [
        ("small", "other", r"other@v1 was trained on large, not on small"),
        ("nobody/nothing", None, "nobody/nothing is not on this machine"),
        (None, None, "Neither a model nor an adapter"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_loaded(chat, model, worn, said):
    with pytest.raises(ModelError, match=said):
        list(ask(chat, "hello", model, worn))
    assert chat.loaded is None


def test_stop_from_another_thread_keeps_what_was_written(chat):
    stream = ask(chat, "one !wait two")
    first_word(stream)
    threading.Thread(target=chat.stop).start()
    last = done(stream)
    assert (last.text, last.stopped) == ("one", True)
    assert done(ask(chat, "again")).text == "again"


def test_stop_while_loading_answers_at_once_and_loading_goes_on(chat, small):
    slow = Path(small.path, "slow")
    slow.touch()
    stream = ask(chat, "hello")
    assert isinstance(next(stream), Phase)
    threading.Timer(0.2, chat.stop).start()
    assert done(stream).stopped
    chat.stop()  # a second press must not stop the next answer
    slow.unlink()
    assert done(ask(chat, "hello")).text == "hello"


def test_stop_without_an_answer_does_nothing(chat):
    chat.stop()
    assert done(ask(chat, "hello")).text == "hello"
    chat.stop()
    assert done(ask(chat, "hello")).text == "hello"


def test_a_reader_who_goes_stops_the_engine_and_blocks_nobody(chat):
    stream = ask(chat, "one !wait two")
    first_word(stream)
    stream.close()
    assert done(ask(chat, "next")).text == "next"
    stream = ask(chat, "one !wait two")
    first_word(stream)
    del stream  # a closed browser tab: nobody closes it
    gc.collect()
    assert done(ask(chat, "next")).text == "next"


def test_two_questions_at_once_are_answered_one_after_the_other(chat):
    done(ask(chat, "load"))
    first = ask(chat, "one !wait")
    assert isinstance(next(first), Token)
    heard = []
    second = threading.Thread(target=lambda: heard.extend(ask(chat, "two")))
    second.start()
    until(lambda: heard)
    assert heard[0].words == "Waiting for the answer before this one"
    chat.stop()
    assert done(first).text == "one"
    second.join(20)
    assert heard[-1].text == "two"


def test_an_error_of_the_engine_is_told_and_the_next_answer_comes(chat):
    with pytest.raises(EngineError) as caught:
        list(ask(chat, "one !error"))
    assert (caught.value.message, caught.value.hint) == ("The adapter does not fit.", "Choose another.")
    assert done(ask(chat, "next")).text == "next"


def test_a_model_that_cannot_be_loaded_says_why_each_time(chat, small):
    Path(small.path, "broken").touch()
    for _ in range(2):
        with pytest.raises(EngineError, match=r"The weights are damaged\. Fetch it again\."):
            list(ask(chat, "hello"))
    Path(small.path, "broken").unlink()
    assert done(ask(chat, "hello")).text == "hello"


def test_the_death_of_the_engine_is_told_plainly_and_the_log_keeps_its_words(chat, caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(EngineError) as caught:
        list(ask(chat, "one !die"))
    assert "ended by the system, most often for lack of memory" in caught.value.message
    assert "chat.log" in caught.value.hint
    assert "out of luck" in caplog.text
    assert chat.loaded is None
    assert done(ask(chat, "next")).text == "next"


def test_an_engine_that_left_by_itself_is_replaced_without_a_word(chat):
    done(ask(chat, "one !leave"))
    assert done(ask(chat, "two")).text == "two"  # perhaps it was still there when asked
    first = engine_pid(chat)
    done(ask(chat, "three !leave"))
    until(lambda: not psutil.pid_exists(first))
    assert chat.loaded is None
    assert done(ask(chat, "four")).text == "four"


def test_unloading_frees_the_memory_and_the_next_question_loads_again(chat):
    pid = engine_pid(chat)
    chat.unload()
    assert chat.loaded is None
    assert not psutil.pid_exists(pid)
    chat.unload()
    assert done(ask(chat, "hello")).text == "hello"


def test_unloading_while_it_answers_ends_the_answer(chat):
    stream = ask(chat, "one !wait two")
    first_word(stream)
    threading.Thread(target=chat.unload).start()
    last = done(stream)
    assert (last.text, last.stopped) == ("one", True)


def test_unloading_while_it_loads_is_told(chat, small):
    Path(small.path, "slow").touch()
    stream = ask(chat, "hello")
    assert isinstance(next(stream), Phase)
    threading.Thread(target=chat.unload).start()
    with pytest.raises(EngineError, match="unloaded while it answered"):
        list(stream)


def test_a_hung_engine_is_ended_by_force(chat):
    pid = engine_pid(chat)
    psutil.Process(pid).suspend()
    chat.unload()
    until(lambda: not psutil.pid_exists(pid))


def test_long_texts_pass_in_both_directions(chat):
    text = " ".join(["wörter"] * 30_000)  # more than a pipe holds
    assert done(ask(chat, text)).text == text


def test_an_engine_ends_with_its_studio(tmp_path, small):
    code = (
        "import sys, os\nfrom studio.services.serving import Engine\nfrom studio.storage.paths import Home\n"
        "from studio.domain.records import Model\n"
        "model = Model(id='m', path=sys.argv[1], source='folder')\n"
        "engine = Engine('chat', model, Home(sys.argv[2]).prepare(), sys.argv[3:])\n"
        "print(engine.process.pid, flush=True)\nwhile engine.next()['type'] != 'ready': pass\nos.kill(os.getpid(), 9)\n"
    )
    root = str(Path(__file__).parents[2])
    studio = subprocess.run(
        [sys.executable, "-c", code, small.path, str(tmp_path / "other-home"), *FAKE],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    until(lambda: not psutil.pid_exists(int(studio.stdout)))
