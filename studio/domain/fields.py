"""What the groups of settings are made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

Auto = Literal["auto"]
# YAML reads on and off as true and false
OnOff = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))
]


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)
