"""`adapters`: the versions that runs made, which of them is active, and what the user says of them."""

from typing import Annotated

import typer

from studio.commands.common import Commands, Json, beside, comparison, emit, note, open_studio, say, table
from studio.domain.records import Adapter
from studio.domain.words import run_title, size, when

adapters = Commands(help="List, show, compare, choose, describe, archive and remove the versions of adapters.")
Ref = Annotated[str, typer.Argument(metavar="ADAPTER", help="name, name@v2 or a folder.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="An adapter's name, without a version.")]


def _told(adapter: Adapter) -> dict[str, object]:
    return adapter.model_dump() | {"ref": adapter.ref}


def _state(adapter: Adapter) -> str:
    return "Active" if adapter.active else "Archived" if adapter.archived else ""


@adapters.command("list")
def list_adapters(
    name: Annotated[str | None, typer.Option(help="Only the versions of this name.")] = None,
    base: Annotated[str | None, typer.Option(help="Only adapters of this base model.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones too.")] = False,
    json: Json = False,
) -> None:
    """List the versions, newest first; of each name one is active: the one the bare name stands for."""
    found = open_studio().adapters.list(name, base, archived)
    if json:
        emit([_told(adapter) for adapter in found])
    elif not found:
        say("No adapters yet. A finished run puts one here.")
    else:
        rows = [
            (
                adapter.ref,
                _state(adapter),
                adapter.base,
                adapter.method,
                adapter.run,
                size(adapter.bytes),
                when(adapter.created),
                ", ".join(adapter.tags),
            )
            for adapter in found
        ]
        table(("Adapter", "", "Base model", "Method", "Run", "Size", "Made", "Tags"), rows, right=(5,))


LINEAGE = {
    "dataset_sha256": "Data",
    "base_revision": "Base commit",
    "studio": "Studio",
    "versions": "With",
    "seed": "Seed",
    "device": "Made on",
    "precision": "Precision",
}


def _short(value: object) -> str:
    """Return a fact of the lineage in words: hashes by their first letters."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)[:12]


@adapters.command("show")
def show_adapter(adapter: Ref, json: Json = False) -> None:
    """Show one version and how it did."""
    found = open_studio().adapters.get(adapter)
    if json:
        emit(_told(found))
        return
    facts = {
        "State": _state(found),
        "Not active because": "" if found.active else found.held,
        "Note": found.note,
        "Tags": ", ".join(found.tags),
        "Base model": found.base,
        "Method": found.method,
        "Run": found.run,
        "Size": size(found.bytes),
        "Made": when(found.created) if found.created else "",
        "Folder": found.path,
        **{LINEAGE[key]: _short(value) for key, value in found.lineage.items()},
    }
    say(found.ref)
    table(("", ""), [(name, value) for name, value in facts.items() if value])
    if "base" in found.metrics:
        comparison(found.metrics)
    else:
        say(found.metrics.get("verdict", "Not measured."))


@adapters.command("activate")
def activate_adapter(adapter: Ref, json: Json = False) -> None:
    """Let the name alone stand for this version."""
    found = open_studio().adapters.activate(adapter)
    if json:
        emit(_told(found))
    else:
        say(f"{found.name} now stands for v{found.version}.")


@adapters.command("remove")
def remove_adapter(
    adapter: Ref,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete one version; its run stays."""
    studio = open_studio()
    found = studio.adapters.get(adapter)
    frees = studio.adapters.frees(found.ref)
    if not yes and not typer.confirm(f"Delete {found.ref}? {size(frees)} would be free.", err=True):
        raise typer.Exit
    freed = studio.adapters.remove(found.ref)
    if json:
        emit({"removed": found.ref, "bytes": found.bytes, "freed": freed})
    else:
        say(f"{found.ref} is deleted, {size(freed)} are free.")


@adapters.command("rollback")
def rollback_adapter(name: Name, json: Json = False) -> None:
    """Make the version active again that was so before."""
    found = open_studio().versions.rollback(name)
    emit(_told(found)) if json else say(f"{found.name} stands for v{found.version} again.")


@adapters.command("compare")
def compare_adapters(adapter: Ref, other: Ref, json: Json = False) -> None:
    """Set two versions beside one another: what was measured of each, and the settings that differ."""
    found = open_studio().versions.compare(adapter, other)
    if json:
        emit(found)
        return
    for remark in found.notes:
        note(remark)
    for title, rows in (("Measured", found.results), ("Settings that differ", found.settings)):
        beside(title, found.versions, rows)


@adapters.command("describe")
def describe_adapter(
    adapter: Ref,
    text: Annotated[str | None, typer.Option("--note", help="A note of your own; '' takes it away.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Its tags from now on; repeat it. '': none.")] = None,
    json: Json = False,
) -> None:
    """Keep a note and tags with a version."""
    found = open_studio().versions.describe(adapter, text, tag)
    emit(_told(found)) if json else say(" · ".join(filter(None, [found.ref, found.note, ", ".join(found.tags)])))


@adapters.command("archive")
def archive_adapter(adapter: Ref, json: Json = False) -> None:
    """Hide a version from the lists; `restore` brings it back."""
    found = open_studio().versions.archive(adapter)
    emit(_told(found)) if json else say(f"{found.ref} is archived; it still takes {size(found.bytes)}.")


@adapters.command("restore")
def restore_adapter(adapter: Ref, json: Json = False) -> None:
    """Bring an archived version back."""
    found = open_studio().versions.restore(adapter)
    emit(_told(found)) if json else say(f"{found.ref} is back.")


@adapters.command("rule")
def promotion_rule(
    name: Name,
    most_lost: Annotated[
        float | None, typer.Option(help="Points of the general score a new version may lose and still become active.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="No such rule: a better version becomes active.")] = False,
    json: Json = False,
) -> None:
    """Show or set which new versions of a name become active by themselves."""
    versions = open_studio().versions
    if off and most_lost is not None:
        raise typer.BadParameter("either a number of points or --off.", param_hint="--most-lost, --off")
    if off or most_lost is not None:
        versions.set_rule(name, most_lost)
    found = versions.rule(name)
    if json:
        emit({"name": name, "most_lost": found})
    elif found is None:
        say(f"A new version of {name} becomes active when it is better than the base.")
    else:
        say(f"A new version of {name} becomes active when it is better and loses at most {found:g} general points.")


@adapters.command("room")
def free_room(
    clear: Annotated[
        str | None, typer.Option(metavar="RUN", help="Delete the checkpoints of this run; its adapter stays.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Show what may be deleted when the disk runs short, the largest first."""
    rooms = open_studio().rooms
    found = rooms.look()
    if clear:
        size_of = next((item.bytes for item in found.items if item.ref == clear), 0)
        if not yes and not typer.confirm(f"Delete the checkpoints of {run_title(clear)}, {size(size_of)}?", err=True):
            raise typer.Exit
        freed = rooms.clear(clear)
        emit({"cleared": clear, "freed": freed}) if json else say(f"{size(freed)} are free.")
    elif json:
        emit(found)
    else:
        say(f"{size(found.free_bytes)} are free{', which is little' if found.low else ''}.")
        rows = [
            (
                item.ref,
                item.why,
                size(item.bytes),
                f"adapters remove {item.ref}" if item.kind == "version" else f"adapters room --clear {item.ref}",
            )
            for item in found.items
        ]
        if rows:
            table(("May be deleted", "", "Frees", "peft-studio …"), rows, right=(2,))


@adapters.callback(invoke_without_command=True)
def adapters_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_adapters()
