"""`estimate`: what a run would need, before it starts."""

from typing import TYPE_CHECKING, Annotated

import typer

from studio.commands import train
from studio.commands.common import Json, Map, emit, note, open_studio, progress, say, table
from studio.domain.words import count, duration, interval, plural, price, size

if TYPE_CHECKING:
    from studio.domain.quote import Quote

BASES = {
    "rough": "A rough figure: nothing like it has been trained here yet.",
    "calculated": "",
    "measured": "By what steps and runs on this machine took.",
}


def estimate(
    config: train.Config = None,
    model: train.ModelName = None,
    dataset: train.DatasetName = None,
    map: Map = None,
    profile: train.Purpose = None,
    method: train.MethodName = None,
    max_steps: train.MaxSteps = None,
    epochs: train.Epochs = None,
    name: train.Name = None,
    set: train.Set = None,
    skip_bad_rows: train.SkipBadRows = False,
    fix: train.Fix = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="CARD", help="As if this machine had that card, as `RTX 4090`.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Load the model and try some steps: slower, and most exact.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Reckon from sizes alone, in an instant.")] = False,
    json: Json = False,
) -> None:
    """Say what a run of these settings needs: memory, time, and the changes that would make it fit."""
    settings = train.settings_of(
        config, model, dataset, map, profile, method, max_steps, epochs, name, set, skip_bad_rows, fix
    )
    from studio.domain.cards import card
    from studio.services.hardware import as_if

    studio = open_studio()
    with progress() as report:
        found = studio.runs.resolve(settings, report)
        if on:
            quote = studio.estimates.of(found, as_if(studio.machine.facts(), card(on)))
        else:
            quote = studio.estimates.of(found) if quick else studio.estimates.thorough(found, report, measure)
    if json:
        emit(quote.model_dump())
        return
    tell(quote)


def tell(quote: "Quote") -> None:
    """Print a quote in words."""
    fits = "fits" if quote.fits else "does not fit"
    say(f"Memory: {size(quote.peak_memory_bytes)} of {size(quote.room_bytes)}; it {fits}.")
    say(f"Time: {interval(quote.low, quote.high)}, {plural(quote.steps, 'step')}, {count(quote.tokens)} tokens.")
    if quote.energy_kwh:
        cost = price(quote.cost, quote.currency)
        say(f"Electricity: {quote.energy_kwh:.2g} kWh{', ' + cost if cost else ''}.")
    table(("Part", "Memory"), [(name, size(value)) for name, value in quote.breakdown.items()], right=(1,))
    if quote.ladder:
        say("What would need less:" if quote.fits else "What would make it fit:")
        rows = [
            (
                rung.words,
                size(rung.peak_memory_bytes),
                "yes" if rung.fits else "no",
                duration(rung.seconds),
                rung.effect,
                ", ".join(f"{key}={value}" for key, value in rung.edit.items()),
            )
            for rung in quote.ladder
        ]
        table(("Change", "Memory", "Fits", "Time", "Effect", "Setting"), rows, right=(1, 3))
    if words := BASES[quote.time_basis]:
        note(words)
