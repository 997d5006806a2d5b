"""Where the application's own things are: ledgers, the size of the credit line, the faults to play."""

import difflib
import os
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pavane_events.errors import ConfigurationError, Problem

_PREFIX = "CREDIT_"


class Where(BaseSettings):
    """Settings of the reference application, from ``CREDIT_`` variables.

    The default line is above all the thousand applications together (3,271,258 DM; those that the score approves come
    to 1,581,711). A line that binds is first come, first served: at 2,000,000 two runs of the demo approved 480 and 460.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    ledgers: str = Field(default="ledgers", min_length=1, description="the directory of the agents' ledgers, or :memory:")
    line_dm: int = Field(default=3_500_000, ge=0, description="the most exposure that may stand at once")
    faults: str = Field(default="none", description="the seed of the faults to play, or none")
    crash: Literal["raise", "kill"] = Field(
        default="raise", description="how a crash is played: raise (one process) or kill (a process of its own)"
    )


def read_where() -> Where:
    """As the environment says now. Raises :class:`ConfigurationError` with every variable that is wrong or unknown."""
    known = {_PREFIX + name.upper() for name in Where.model_fields}
    problems: list[Problem] = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            problems.append(Problem(name, "setting.unknown", f"no such setting; {hint}"))
    try:
        where = Where()
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            name = _PREFIX + ".".join(str(part) for part in each["loc"]).upper()
            problems.append(Problem(name, each["type"], each["msg"]))
        raise ConfigurationError("the settings of the credit agents are wrong", problems) from None
    if problems:
        raise ConfigurationError("the settings of the credit agents are wrong", problems)
    return where
