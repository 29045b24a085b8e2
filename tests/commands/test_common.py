"""At the edge nothing but words: known errors with their next step, unknown ones in the log, output that is JSON."""

import json
from pathlib import Path

import pytest

from studio.cli import app
from studio.commands import common
from studio.domain.errors import StudioError
from studio.domain.events import Phase
from studio.storage.paths import Home
from tests.commands.conftest import Call


def every_command() -> list[common.Commands]:
    return [app, *(group.typer_instance for group in app.registered_groups)]  # type: ignore[misc]


def test_every_command_is_guarded() -> None:
    commands = [command for group in every_command() for command in group.registered_commands]
    assert len(commands) > 12
    assert all(hasattr(command.callback, "__wrapped__") for command in commands)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret detail")

    monkeypatch.setattr("studio.services.runs.Runs.list", fail)


def test_an_unknown_error_is_one_sentence_and_a_log(call: Call, home: Home, broken: None) -> None:
    result = call("runs", "list", "--json")
    log = home.logs / "studio.log"
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == f"Something failed here. The details are in {log}."
    assert "secret detail" not in result.output
    assert "KeyError: 'a secret detail'" in log.read_text()


def test_for_developers_the_error_comes_through(call: Call, broken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_STUDIO_DEBUG", "1")
    assert isinstance(call("runs", "list").exception, KeyError)


def test_a_home_that_cannot_be_written_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEFT_STUDIO_HOME", str(tmp_path / "file" / "home"))
    for words in (("runs", "list"), ("quickstart",), ("models", "fetch", "starter")):
        result = call(*words)
        assert result.exit_code == 1
        assert f"The home folder {tmp_path / 'file' / 'home'} cannot be written" in result.stderr
        assert "PEFT_STUDIO_HOME" in result.stderr


def test_a_known_error_is_its_sentence_and_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    @common.edge
    def command(json: bool = False) -> None:
        raise StudioError("It is broken.", "Repair it.")

    for as_json in (True, False):
        with pytest.raises(common.typer.Exit) as ended:
            command(json=as_json)
        assert ended.value.exit_code == 1
        out, err = capsys.readouterr()
        assert err == "It is broken.\nRepair it.\n"
        assert (json.loads(out) if as_json else out) == (
            {"error": "It is broken.", "hint": "Repair it."} if as_json else ""
        )


def test_ctrl_c_is_exit_code_130() -> None:
    @common.edge
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(common.typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 130


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    common.emit({"a": float("nan"), "b": float("inf"), "c": "é"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": None, "c": "é"}


def test_progress_without_a_terminal_is_a_line_for_each_step_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress() as report:
        for number in range(1000):
            report(Phase(words=f"Reading: {number:,} rows so far", done=number))
        report(Phase(words="Saving"))
    assert capsys.readouterr().err == "Reading: 0 rows so far\nSaving\n"


def test_text_of_the_user_s_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    common.table(("a",), [("[bold]x[/bold] :smile:",)])
    assert "[bold]x[/bold] :smile:" in capsys.readouterr().out
