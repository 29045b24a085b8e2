"""`api`: whether programs may ask this studio's models, and with which key."""

import typer

from studio.commands.common import Commands, Json, emit, note, open_studio, say, table
from studio.domain.words import when

api = Commands(help="Let programs ask the models here as they ask OpenAI's, with a key.")


@api.command("show")
def show(json: Json = False) -> None:
    """Say whether programs may ask, where, and by which names."""
    _tell(json)


@api.command("on")
def on(json: Json = False) -> None:
    """Let programs ask; the first time this makes the key, and shows it once."""
    programs = open_studio().programs
    programs.switch(True)
    _tell(json, "" if programs.access.key_sha256 else programs.new_key())


@api.command("off")
def off(json: Json = False) -> None:
    """Answer programs no longer; the key is kept for the next time."""
    open_studio().programs.switch(False)
    _tell(json)


@api.command("key")
def new_key(json: Json = False) -> None:
    """Make a new key and show it once; the one before is no longer good."""
    _tell(json, open_studio().programs.new_key())


def _tell(json: bool, key: str = "") -> None:
    """Print how things stand; a new key is all that goes to stdout, so that a script can keep it."""
    studio = open_studio()
    access, address = studio.programs.access, studio.programs.address
    names = [voice.name for voice in studio.programs.voices()]
    if json:
        told = {"on": access.on, "address": address, "key_made": access.made or None, "models": names}
        emit(told | ({"key": key} if key else {}))
        return
    if key:
        note("The key, shown this once:")
        say(key)
    facts = [
        ("Programs", "may ask" if access.on else "are not answered; `peft-studio api on` changes that"),
        ("Address", address or "none: no studio is open"),
        ("Key", f"made {when(access.made)}" if access.made else "none; `peft-studio api key` makes one"),
        ("Models", ", ".join(names) or "none yet"),
    ]
    if key:
        note("\n".join(f"{name}: {value}" for name, value in facts))
    else:
        table(("", ""), facts)


@api.callback(invoke_without_command=True)
def alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show()
