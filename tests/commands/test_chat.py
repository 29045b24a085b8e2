"""`chat` answers once or goes on asking, each voice in turn; `evaluate` prints the comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.domain.events import Phase, Report
from studio.services.evaluate import Evaluate
from tests.commands import played
from tests.commands.conftest import Call

KEYS = {"adapter", "text", "tokens", "tokens_per_second", "first_token_seconds", "swap_seconds"}


def test_a_prompt_is_answered_once_per_voice(call: Call, trained: dict[str, Any]) -> None:
    voices = ("--base", "--adapter", "support-desk", "--adapter", trained["adapter_path"])
    result = call("chat", *voices, "--prompt", "hello !adapter", "--json")
    assert result.exit_code == 0, result.stderr
    answers = json.loads(result.stdout)["answers"]
    assert [set(answer) for answer in answers] == [KEYS] * 3
    assert [answer["adapter"] for answer in answers] == [None, "support-desk", trained["adapter_path"]]
    path = trained["adapter_path"]
    assert [answer["text"] for answer in answers] == ["hello None", f"hello {path}", f"hello {path}"]


def test_without_an_adapter_the_starter_answers(call: Call) -> None:
    result = call("chat", "--prompt", "who is there")
    assert result.stdout == "who is there \n"
    assert "Loading starter" in result.stderr
    assert "3 tokens, 9 tokens/s" in result.stderr


def test_a_conversation_goes_on_until_the_input_ends(call: Call, trained: dict[str, Any]) -> None:
    result = call("chat", "--base", "--adapter", "support-desk", input="first question\n\nsecond one\n")
    assert result.exit_code == 0
    assert result.stdout.count("base model:") == result.stdout.count("support-desk:") == 2
    assert result.stdout.count("second one") == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--json",), 2, "--prompt"),
        (("--temperature", "-1"), 2, "--temperature"),
        (("--adapter", "none", "--prompt", "x"), 1, "There is no adapter none."),
        (("--model", "./none", "--prompt", "x"), 1, "There is no folder or file ./none."),
        (("--prompt", "!error"), 1, "The adapter does not fit."),
    ],
)
def test_what_cannot_be_answered_is_said(call: Call, words: tuple[str, ...], code: int, said: str) -> None:
    result = call("chat", *words)
    assert result.exit_code == code
    assert said in result.stderr


def test_evaluate_prints_the_comparison(
    call: Call, trained: dict[str, Any], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(self: Evaluate, adapter: str, data: str, *, report: Report, **options: Any) -> dict[str, Any]:
        asked.append((adapter, data, options))
        report(Phase(words="Asking the adapter"))
        return played.EVAL

    monkeypatch.setattr(Evaluate, "run", run)
    result = call("evaluate", "support-desk", "--dataset", rows, "--map", "prompt=question", "--json")
    assert json.loads(result.stdout) == played.EVAL
    assert "Asking the adapter" in result.stderr
    options = {"map": {"prompt": "question"}, "format": "auto", "answers": None, "general": True, "judge": None}
    assert asked == [("support-desk", str(rows), options)]
    told = call("evaluate", "support-desk", "--dataset", rows).stdout
    assert "On 4 held-out rows" in told
    assert "Better: 3 against 0" in told


def test_a_judge_is_named_whole_and_what_it_is_sent_is_said(
    call: Call, trained: dict[str, Any], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    verdict = {"verdict": "Better by m: of 4 pairs 3 won, 0 lost, 1 tied."}
    monkeypatch.setattr(
        Evaluate, "run", lambda self, *_, **options: asked.append(options) or played.EVAL | {"judge": verdict}
    )
    given = ("evaluate", "support-desk", "--dataset", rows, "--no-general", "--judge", "http://localhost:1/v1")
    assert call(*given).exit_code == 2
    result = call(*given, "--judge-model", "m")
    assert "are sent to http://localhost:1/v1" in result.stderr
    assert verdict["verdict"] in result.stdout
    assert (asked[0]["judge"].model, asked[0]["general"]) == ("m", False)


ON_TASKS = {
    "documents": {"colours": 1200},
    "base": {"colours": {"acc": 0.5, "mcc": 0.0}},
    "adapter": {"colours": {"acc": 0.75, "mcc": 0.5}},
    "difference": {"colours": {"acc": {"mean": 0.25, "low": 0.2, "high": 0.3, "p": 0.0005}, "mcc": {"mean": 0.5}}},
    "verdict": "Better on colours (acc 0.750 against 0.500).",
}


def test_evaluate_prints_tasks_as_a_table(
    call: Call, trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(self: Evaluate, adapter: str, folder: str, *, report: Report, **options: Any) -> dict[str, Any]:
        asked.append((adapter, folder, options))
        return ON_TASKS

    monkeypatch.setattr(Evaluate, "tasks", run)
    chosen = ("--task", "colours", "--limit", 3, "--chat-template")
    result = call("evaluate", "support-desk", "--tasks", tmp_path, *chosen, "--json")
    assert json.loads(result.stdout) == ON_TASKS
    assert asked == [("support-desk", str(tmp_path), {"names": ["colours"], "limit": 3, "chat_template": True})]
    told = " ".join(call("evaluate", "support-desk", "--tasks", tmp_path).stdout.split())
    assert "colours 1,200 acc 0.500 0.750 +0.250, +0.200 to +0.300, p < 0.001" in told
    assert "colours 1,200 mcc 0.000 0.500 +0.500 Better on colours (acc 0.750 against 0.500)." in told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "--dataset, --tasks"),
        (("--dataset", "a.csv", "--tasks", "."), "--dataset, --tasks"),
        (("--tasks", ".", "--no-general"), "--task, --limit and --chat-template"),
        (("--tasks", ".", "--map", "prompt=a"), "--task, --limit and --chat-template"),
        (("--dataset", "a.csv", "--limit", "3"), "need --tasks"),
        (("--dataset", "a.csv", "--task", "a"), "need --tasks"),
    ],
)
def test_data_or_tasks_each_with_options_of_its_own(call: Call, given: tuple[str, ...], words: str) -> None:
    result = call("evaluate", "support-desk", *given)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_evaluate_names_what_is_missing(call: Call, trained: dict[str, Any]) -> None:
    result = call("evaluate", "support-desk", "--dataset", "nowhere.csv", "--json")
    assert result.exit_code == 1
    assert "nowhere.csv" in json.loads(result.stdout)["error"]
