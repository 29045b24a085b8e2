"""`peft-studio data`: what a file holds and what is wrong with it, and a repaired copy of it."""

from pathlib import Path
from typing import Annotated

import typer

from studio.commands.common import Commands, Json, Map, emit, mapping, open_studio, progress, say, table
from studio.domain.words import plural, said

HeldOut = Annotated[
    Path | None,
    typer.Option(help="A file to test on: rows that it nearly has too are named as leakage."),
]
Structure = Annotated[str, typer.Option("--format", help="Structure of the rows, if it is not detected.")]
MaxTokens = Annotated[
    int | None, typer.Option(help="Tokens of an example that a model reads. Default: 8192, as the starter.", min=1)
]
Rows = Annotated[Path, typer.Argument(help="A file of rows, packed or not, or a data set of the Hub: owner/name.")]
data = Commands(help="Look at data files, and repair copies of them.", no_args_is_help=True)


@data.command("check")
def check_data(
    file: Rows,
    map: Map = None,
    format: Structure = "auto",
    max_tokens: MaxTokens = None,
    held_out: HeldOut = None,
    json: Json = False,
) -> None:
    """Read a data file row by row: what it holds, what is wrong with it, what would be learned."""
    with progress() as report:
        found = open_studio().datasets.check(
            file,
            format=format,
            map=mapping(map) or None,
            max_tokens=max_tokens,
            held_out=held_out,
            report=report,
        )
    if json:
        emit(found)
        return
    say(f"{file.name}: {found.usable:,} of {plural(found.rows, 'row')} can be used. {found.why}")
    for warning in found.warnings:
        say(warning)
    if found.findings:
        rows = [(f.title, ", ".join(str(row) for row in f.rows[:5]), f.why, f.remedy) for f in found.findings]
        table(("Finding", "Rows", "Why it hurts", "What to do"), rows)
    if found.problems:
        table(("Row", "Problem", "Remedy"), [(p.row, p.problem, p.remedy) for p in found.problems], right=(0,))
        if found.problem_count > len(found.problems):
            say(f"And {found.problem_count - len(found.problems):,} more.")
    for example in found.examples[:1]:
        say("The first example:")
        turns = example.get("messages") or [{"role": "text", "content": example.get("text", "")}]
        table(("", ""), [(turn["role"], said(turn)) for turn in turns])


@data.command("repair")
def repair_data(
    file: Rows,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", help="A finding of `data check` to repair, such as encoding. Repeat it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The copy: .jsonl, .csv, .tsv or .txt. Without it only the difference is shown.")
    ] = None,
    map: Map = None,
    format: Structure = "auto",
    max_tokens: MaxTokens = None,
    held_out: HeldOut = None,
    json: Json = False,
) -> None:
    """Write a copy of a data file in which findings are repaired; the file itself stays as it is."""
    with progress() as report:
        made = open_studio().datasets.repair(
            file,
            out,
            fix or [],
            format=format,
            map=mapping(map) or None,
            max_tokens=max_tokens,
            held_out=held_out,
            report=report,
        )
    if json:
        emit(made)
        return
    changed = [f"{kind}: {plural(number, 'row')} changed" for kind, number in made.changed.items()]
    changed += [f"{kind}: {plural(number, 'row')} left out" for kind, number in made.left_out.items()]
    for line in changed or ["Nothing to repair."]:
        say(line)
    if made.unreadable:
        say(f"{plural(made.unreadable, 'row')} could not be read and cannot be copied.")
    shown = [(each.row, each.before, "left out" if each.after is None else each.after) for each in made.differences]
    if shown:
        table(("Row", "Before", "After"), shown, right=(0,))
    if made.out:
        say(f"{plural(made.written, 'row')} in {made.out}. {file.name} is as it was.")
