"""`api` switches programs on and off and makes keys, which only ever go to stdout."""

import hashlib
import json

from studio.storage.paths import Home
from tests.commands.conftest import Call


def test_it_is_switched_on_with_a_key_that_is_shown_once(call: Call, home: Home) -> None:
    assert json.loads(call("api", "show", "--json").stdout)["on"] is False
    first = call("api", "on")
    (key,) = first.stdout.split()
    assert key not in first.stderr
    assert "no studio is open" in first.stderr
    kept = json.loads((home.root / "api.json").read_text())
    assert (kept["on"], kept["key_sha256"]) == (True, hashlib.sha256(key.encode()).hexdigest())

    again = json.loads(call("api", "on", "--json").stdout)
    assert again["on"] is True
    assert "key" not in again
    assert again["models"] == ["starter"]

    other = json.loads(call("api", "key", "--json").stdout)["key"]
    assert other != key
    off = call("api", "off")
    assert "are not answered" in off.stdout
    assert json.loads(call("api", "on", "--json").stdout)["key_made"], "the key is kept for the next time"
    assert json.loads((home.root / "api.json").read_text())["key_sha256"] == hashlib.sha256(other.encode()).hexdigest()


def test_alone_it_says_how_things_stand(call: Call) -> None:
    told = call("api").stdout
    assert "`peft-studio api on`" in told
    assert "starter" in told
