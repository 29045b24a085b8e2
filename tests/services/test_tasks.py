"""Task files: what is read of them, and what is refused in words before anything is loaded."""

import pytest
import yaml

from studio.domain.errors import DataError, NotFound
from studio.services import tasks

PLAIN = {
    "task": "colours",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "colours.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metadata": {"version": 1.0},
}


@pytest.fixture
def write(tmp_path):
    """Write a file of the tasks' folder: YAML of a dict, or a text."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.jsonl").write_text('{"question": "?", "choices": ["a", "b"], "answer": 0}\n')

    def written(name, content):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return folder

    return written


def test_tasks_are_plain_settings_with_whole_paths(write):
    write("_common", {"description": "Colours.", "test_split": "other"})  # without .yaml: only there to be included
    write("more/mine.yaml", PLAIN | {"task": "mine", "dataset_kwargs": {"data_files": ["../colours.jsonl"]}})
    write("group.yaml", {"group": "all", "task": ["colours", "mine"]})
    write("settings.yml", {"description": "no task"})
    write("list.yaml", "[1, 2]")
    folder = write("colours.yaml", PLAIN | {"include": "_common", "process_docs": None})
    found = tasks.gather(folder)
    assert list(found) == ["colours", "mine"]
    data = str(folder / "colours.jsonl")
    assert found["colours"] == PLAIN | {"description": "Colours.", "dataset_kwargs": {"data_files": {"test": data}}}
    assert found["mine"]["dataset_kwargs"] == {"data_files": [data]}
    assert list(tasks.gather(folder, ["mine"])) == ["mine"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("process_docs: !function utils.pick", r"runs code of its own \(process_docs: !function utils\.pick\)"),
        ("metric_list:\n- metric: !function u.m", r"\(metric: !function u\.m\)"),
        ("metadata: {!function u.m : 1}", r"!function u\.m"),
        ({"process_results": "utils.score"}, r"\(process_results\)"),
        ({"class": "evil.Task"}, r"\(class\)"),
        ({"unsafe_code": True}, r"\(unsafe_code\)"),
        ({"custom_dataset": "x"}, r"\(custom_dataset\)"),
        ({"dataset_path": "colours.py"}, r"\(dataset_path: colours\.py\)"),
        (
            {"dataset_kwargs": {"trust_remote_code": True, "data_files": "colours.jsonl"}},
            r"\(dataset_kwargs\.trust_remote_code\)",
        ),
        ({"metric_list": [{"metric": "./evil.py", "hf_evaluate": True}]}, r"which loads \./evil\.py as a program"),
        ({"generation_kwargs": {"custom_generate": "./evil", "until": ["."]}}, r"generation_kwargs\.custom_generate"),
        ({"fewshot_config": {"process_docs": "x"}}, r"fewshot_config\.process_docs, which is not taken"),
        ({"use_prompt": "evil.yaml:x"}, "has the key use_prompt"),
        ({"doc_to_image": "image"}, "has the key doc_to_image"),
    ],
)
def test_what_would_run_code_is_refused_by_name(write, changes, words):
    if isinstance(changes, str):
        folder = write(
            "colours.yaml", f"{yaml.safe_dump(PLAIN)}\n{changes}\n".replace("metadata:\n  version: 1.0\n", "")
        )
    else:
        folder = write("colours.yaml", PLAIN | changes)
    with pytest.raises(DataError, match=f"The task colours .*{words}"):
        tasks.gather(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset_path": "allenai/ai2_arc"}, r"not a local file \(dataset_path: allenai/ai2_arc\)"),
        ({"dataset_path": "pandas"}, "dataset_path: pandas"),  # reads pickles
        ({"dataset_path": None}, "dataset_path: None"),
        ({"dataset_path": ["json"]}, "not a local file"),
        ({"dataset_kwargs": None}, "names no file of data"),
        ({"dataset_kwargs": "colours.jsonl"}, "dataset_kwargs of the task colours does not hold settings"),
        ({"dataset_kwargs": {"data_files": "https://host/x.jsonl"}}, r"data_files: https://host/x\.jsonl"),
        ({"dataset_kwargs": {"data_files": {"test": "missing.jsonl"}}}, r"data_files: missing\.jsonl"),
        ({"dataset_kwargs": {"data_files": "*.jsonl"}}, r"data_files: \*\.jsonl"),
        ({"dataset_kwargs": {"data_files": "x::http:/host/colours.jsonl"}}, "not a local file"),
        ({"dataset_kwargs": {"data_files": "colours.jsonl", "cache_dir": "/tmp"}}, r"dataset_kwargs\.cache_dir"),
        ({"test_split": None}, "does not say which rows it asks"),
    ],
)
def test_data_is_a_file_here_or_refused_by_name(write, changes, words):
    folder = write("colours.yaml", PLAIN | changes)
    (folder / "x::http:" / "host").mkdir(parents=True)  # so that the chain of addresses is a path too
    (folder / "x::http:" / "host" / "colours.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=words):
        tasks.gather(folder)


def test_only_the_tasks_asked_for_have_to_be_good(write):
    write("bad.yaml", PLAIN | {"task": "bad", "class": "evil"})
    folder = write("colours.yaml", PLAIN)
    assert list(tasks.gather(folder, ["colours"])) == ["colours"]
    with pytest.raises(DataError, match="The task bad runs code"):
        tasks.gather(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: [", r"colours\.yaml, line 2: "),
        ("task: a\nmetadata: !!python/object/apply:os.system [ls]", "line 2: could not determine a constructor"),
        ("task: a\nmetadata: {x: &x [1], y: *x}", r"line 2: an alias \(\*\) is not taken here"),
        ("task: a\ndescription: 2024-99-99", "cannot be read as YAML"),
        ("\x00", "colours.yaml"),
        ("task: a\ninclude: nowhere.yaml", r"includes nowhere\.yaml, which is not there"),
        ("task: a\ninclude: colours.yaml", "includes itself"),
        ("[" * 5000, "colours.yaml"),
    ],
)
def test_a_broken_file_is_named_with_its_line(write, text, words):
    with pytest.raises(DataError, match=words):
        tasks.gather(write("colours.yaml", text + "\n"))


def test_a_folder_without_the_tasks_asked_for_is_told(write, tmp_path):
    with pytest.raises(NotFound, match=r"There is no folder .*nowhere"):
        tasks.gather(tmp_path / "nowhere")
    folder = write("notes.txt", "")
    with pytest.raises(DataError, match="holds no YAML file"):
        tasks.gather(folder)
    with pytest.raises(NotFound, match=r"notes\.txt is a file, not a folder"):
        tasks.gather(folder / "notes.txt")
    write("settings.yaml", {"description": "x"})
    with pytest.raises(DataError, match=r"No YAML file in .* says `task: NAME`"):
        tasks.gather(folder)
    write("colours.yaml", PLAIN)
    with pytest.raises(NotFound, match=r"There is no task sums in .* There are: colours"):
        tasks.gather(folder, ["sums"])
    write("again.yaml", PLAIN)
    with pytest.raises(DataError, match=r"two tasks colours: again\.yaml and colours\.yaml"):
        tasks.gather(folder)
