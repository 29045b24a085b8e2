"""`models show` says what a model is, as JSON or for people."""

import json
from pathlib import Path

from tests.commands.conftest import Call
from tests.services.test_model_facts import PARAMETERS, make


def test_a_model_is_told(call: Call, tmp_path: Path) -> None:
    folder = make(tmp_path / "my-model")
    found = json.loads(call("models", "show", folder, "--json").stdout)
    assert (found["parameters"], found["template"], found["targets"]) == (
        PARAMETERS,
        True,
        ["down_proj", "k_proj", "q_proj"],
    )
    said = call("models", "show", folder).stdout
    assert said.startswith("my-model, on this machine\n")
    assert "4, 2 for keys and values" in said
    missing = call("models", "show", "./nothing")
    assert missing.exit_code == 1
    assert "There is no folder or file ./nothing." in missing.stderr
