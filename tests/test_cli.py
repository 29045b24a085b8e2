"""The command line as a whole: quick help, exit codes, the small commands and their JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from studio.cli import app
from studio.storage.paths import Home

HEAVY = {"gradio", "pyarrow", "huggingface_hub", "pandas", "torch", "transformers"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands for the page: what it was opened with."""
    found: list[dict[str, Any]] = []
    module = type(sys)("studio.ui.app")
    module.launch = lambda *args, **options: found.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "studio.ui.app", module)
    return found


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from studio.cli import main\n"
        "try: main()\n"
        "finally: print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert result.returncode == 0
    assert "quickstart" in result.stdout
    assert "typer" in result.stderr.split()
    assert not HEAVY & set(result.stderr.split())


def test_the_version_is_printed() -> None:
    assert call("--version").stdout == "peft-studio 0.1.0\n"


@pytest.mark.parametrize("words", [("nonsense",), ("runs", "nonsense"), ("data", "check"), ("ui", "--port", "0")])
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...]) -> None:
    assert call(*words).exit_code == 2


def test_without_a_command_the_studio_opens(home: Home, opened: list[dict[str, Any]]) -> None:
    assert call().exit_code == 0
    assert opened == [{"host": "127.0.0.1", "port": None, "share": False, "browser": True}]


def test_the_options_of_the_page_reach_it(home: Home, opened: list[dict[str, Any]]) -> None:
    assert call("ui", "--host", "0.0.0.0", "--port", 7999, "--share", "--no-browser").exit_code == 0
    assert opened == [{"host": "0.0.0.0", "port": 7999, "share": True, "browser": False}]


def test_no_models_yet(home: Home) -> None:
    assert "peft-studio models fetch starter" in call("models", "list").stdout
    assert json.loads(call("models", "list", "--json").stdout) == []


def test_a_model_that_cannot_be_had_is_exit_code_1(home: Home) -> None:
    result = call("models", "fetch", "./nowhere", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "There is no folder or file ./nowhere."


def test_the_starter_is_told_with_path_source_and_sum(home: Home) -> None:
    from tests.commands.played import put_starter

    put_starter(home)
    told = json.loads(call("models", "fetch", "starter", "--json").stdout)
    assert {"path", "source", "sha256"} <= set(told)
    assert Path(told["path"]) == home.models / "starter"
    assert "135" in call("models", "list").stdout


@pytest.mark.spec("U24.2")
def test_a_data_file_is_checked(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nWhy?,So.\nHow?,\nWhy?,So.\n" + "".join(f"q{n},a{n}\n" for n in range(20)))
    told = json.loads(call("data", "check", path, "--json").stdout)
    assert {"format", "rows", "usable", "columns", "problems", "duplicates", "examples"} <= set(told)
    assert (told["format"], told["rows"], told["usable"], told["duplicates"]) == ("question-answer", 23, 22, 1)
    assert [set(problem) for problem in told["problems"]] == [{"row", "problem", "remedy"}]
    assert told["problems"][0]["row"] == 2
    words = call("data", "check", path).stdout
    assert "22 of 23 rows can be used" in words
    assert "Why?" in words


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"\x89PNG\r\n\x1a\n" + bytes(50), "picture"), (b"kunde,wir\na,b\nc,d\n", "--map prompt=")],
)
def test_a_file_of_no_use_is_refused_in_words(home: Home, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    result = call("data", "check", path)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_the_doctor_looks_at_every_part(home: Home) -> None:
    findings = json.loads(call("doctor", "--json").stdout)
    assert all(set(finding) == {"check", "ok", "detail", "remedy"} for finding in findings)
    by_name = {finding["check"]: finding for finding in findings}
    assert {"python", "packages", "disk", "home folder", "graphics card", "precision", "port"} <= set(by_name)
    assert by_name["python"]["ok"]
    assert by_name["home folder"]["ok"]
    assert by_name["starter model"]["remedy"]
    assert "python" in call("doctor").stdout


def test_the_doctor_shows_every_part_of_the_machine(home: Home) -> None:
    parts = {part["part"]: part for part in json.loads(call("doctor", "--machine", "--json").stdout)}
    assert parts["processor"]["has"]["cores"] >= 1
    assert parts["disk"]["allows"]
    shown = call("doctor", "--machine").stdout
    assert "What it allows" in shown
    assert "python" not in shown


def test_the_doctor_works_where_the_studio_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEFT_STUDIO_HOME", str(tmp_path / "file" / "home"))
    result = call("doctor", "--json")
    assert result.exit_code == 1
    (finding,) = [each for each in json.loads(result.stdout) if each["check"] == "home folder"]
    assert not finding["ok"]
    assert "PEFT_STUDIO_HOME" in finding["remedy"]


def test_a_damaged_database_is_found_and_made_anew(home: Home) -> None:
    home.database.write_bytes(b"no database at all" * 100)
    told = call("doctor", "--json")
    assert told.exit_code == 1
    assert "--reindex" in json.dumps(json.loads(told.stdout))
    assert "The database now knows 0 adapters." in call("doctor", "--reindex").stderr
    database = next(each for each in json.loads(call("doctor", "--json").stdout) if each["check"] == "database")
    assert database["ok"]
