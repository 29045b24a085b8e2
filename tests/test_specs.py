"""The specifications, their tasks and the tests' marks agree: ids exist, boxes are ticked exactly when proved."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPECS = ROOT / ".kiro" / "specs"
NAMES = {"requirements.md", "design.md", "tasks.md"}
STATUSES = {"Active", "In Progress", "Complete", "On Hold", "Archived"}
CRITERION = re.compile(r"^- \*\*([URC]\d+\.\d+)\*\* (.+)$", re.MULTILINE)
EARS = re.compile(r"(WHEN|IF|WHILE|WHERE) .+, THE studio SHALL .+\.")
TASK = re.compile(r"^- \[([ x])\] ([\d.]+?)\.? (.+) _Requirements: (.+)_$", re.MULTILINE)


def folders() -> list[Path]:
    active = [path for path in SPECS.iterdir() if path.is_dir() and path.name != "archive"]
    return sorted(active + [path for path in SPECS.glob("archive/*") if path.is_dir()])


def criteria(folder: Path) -> dict[str, str]:
    found = CRITERION.findall((folder / "requirements.md").read_text(encoding="utf-8"))
    assert [id for id, n in Counter(id for id, _ in found).items() if n > 1] == []
    return dict(found)


def every_criterion() -> set[str]:
    return {id for folder in folders() for id in criteria(folder)}


def marks() -> dict[str, set[str]]:
    """Return the ids that tests are marked with, each with the files that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.spec"):
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path.name}:{node.lineno}: write the id as a string"
                    found.setdefault(argument.value, set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.spec("C5.1")
def test_kiro_holds_the_specifications_and_nothing_else() -> None:
    files = {path.relative_to(SPECS).as_posix() for path in (ROOT / ".kiro").rglob("*") if path.is_file()}
    expected = {f"{folder.relative_to(SPECS).as_posix()}/{name}" for folder in folders() for name in NAMES}
    assert files == expected | {"README.md"}


@pytest.mark.spec("C5.1", "C5.2")
def test_the_index_lists_each_specification_with_its_status() -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(([^)]+)/requirements\.md\) \| ([\w ]+?)(?: (\d{4}-\d\d-\d\d))? \| ", index(), re.MULTILINE
    )
    listed = {place: (status, date) for _, place, status, date in rows}
    assert set(listed) == {folder.relative_to(SPECS).as_posix() for folder in folders()}
    for place, (status, date) in listed.items():
        assert status in STATUSES
        archived = place.startswith("archive/")
        assert archived == (status == "Archived"), f"{place}: an ended specification lies in archive/"
        assert archived == bool(date), f"{place}: an ended specification has its date in the index"


def index() -> str:
    return (SPECS / "README.md").read_text(encoding="utf-8")


def test_every_story_has_a_story_and_two_to_five_criteria_in_ears_form() -> None:
    for folder in folders():
        text = (folder / "requirements.md").read_text(encoding="utf-8")
        assert "## Introduction" in text
        assert "## Glossary" in text
        stories = re.split(r"^### (?=[URC]\d+\. )", text, flags=re.MULTILINE)[1:]
        for story in stories:
            id = story.split(".")[0]
            assert re.search(r"^As .+, I want .+, so that .+\.$", story, re.MULTILINE), id
            numbered = CRITERION.findall(story)
            assert [name for name, _ in numbered] == [f"{id}.{n}" for n in range(1, len(numbered) + 1)]
            assert 2 <= len(numbered) <= 5, id
            for name, sentence in numbered:
                assert EARS.fullmatch(sentence), f"{name} is not in EARS form: {sentence}"
        assert sum(len(CRITERION.findall(story)) for story in stories) == len(criteria(folder))


def test_the_stories_are_complete() -> None:
    stories = {id.split(".")[0] for id in every_criterion()}
    expected = [("U", 36), ("R", 10), ("C", 8)]
    assert stories == {f"{letter}{n}" for letter, last in expected for n in range(1, last + 1)}


def test_a_criterion_belongs_to_one_specification() -> None:
    counts = Counter(id for folder in folders() for id in criteria(folder))
    assert [id for id, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_tasks_cite_every_criterion_and_only_those(folder: Path) -> None:
    text = (folder / "tasks.md").read_text(encoding="utf-8")
    tasks = TASK.findall(text)
    assert len(tasks) == text.count("\n- ["), "a task does not end in _Requirements: …_"
    numbers = [tuple(int(part) for part in number.split(".")) for _, number, _, _ in tasks]
    assert numbers == sorted(set(numbers)), "task numbers are not in order"
    cited = {id for _, _, _, ids in tasks for id in ids.split(", ")}
    assert cited == set(criteria(folder))


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_design_has_its_sections(folder: Path) -> None:
    text = (folder / "design.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == [
        "Overview",
        "Architecture",
        "Components",
        "Data models",
        "Correctness properties",
        "Error handling",
        "Testing strategy",
    ]


def test_tests_prove_criteria_that_exist() -> None:
    unknown = {id: files for id, files in marks().items() if id not in every_criterion()}
    assert not unknown, f"no specification has these ids: {unknown}"


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_a_box_is_ticked_exactly_when_all_its_criteria_are_proved(folder: Path) -> None:
    proved = set(marks())
    changes = []
    path = folder / "tasks.md"
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := TASK.fullmatch(line):
            ids = set(match[4].split(", "))
            box = "x" if ids <= proved else " "
            if box != match[1]:
                why = f"not proved: {', '.join(sorted(ids - proved))}" if ids - proved else "all proved"
                changes.append(f"{path.relative_to(ROOT)}:{line_number} ({why}) should read\n- [{box}]{line[5:]}")
    assert not changes, "\n" + "\n".join(changes)
