"""Finding: one thing that is wrong with a choreography."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: a stable code, how bad it is, where, and a sentence that names the fix.

    ``source``: the file and line of the step or event, where whoever checks knows them.
    """

    code: str
    severity: Severity
    where: str
    message: str
    source: str = ""

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}
