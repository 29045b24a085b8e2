"""The settings that keep a run from being lost: its checkpoints, and what the guard does."""

from typing import Annotated, Literal

from pydantic import Field

from studio.domain.fields import Group


class CheckpointConfig(Group):
    """Where it can go on after a pause or a crash."""

    every_steps: Annotated[int, Field(title="Save every, steps", description="0: by time alone.", ge=0)] = 0
    every_minutes: Annotated[
        float,
        Field(title="Save every, minutes", description="At most this much work is lost to a crash.", gt=0, le=1440),
    ] = 5.0
    keep: Annotated[
        int, Field(title="Checkpoints kept", description="The last ones; the best is kept besides.", ge=1, le=100)
    ] = 2


Policy = Literal["act", "pause", "tell"]
BACK = "Act: back to the last good checkpoint, a lower rate. Pause: it waits for you. Tell: it only says so."


class GuardConfig(Group):
    """What is done when training goes wrong."""

    invalid: Annotated[Policy, Field(title="Loss is no number", description=BACK)] = "act"
    divergence: Annotated[Policy, Field(title="Loss climbs", description=BACK)] = "pause"
    explosion: Annotated[Policy, Field(title="Gradients explode", description=BACK)] = "act"
    flat: Annotated[
        Policy, Field(title="Nothing is learned", description="The loss stays where it was. Act pauses here too.")
    ] = "tell"
    overfitting: Annotated[
        Policy, Field(title="Memorising", description="Held-out loss rises. Act: end early, keep the best step.")
    ] = "act"
    memory: Annotated[
        Policy, Field(title="Memory runs out", description="Act: half the tokens at once, the same result.")
    ] = "act"
