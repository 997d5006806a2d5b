"""The errors of the platform: one root, each leaf with a stable code, fields, and a message that names the fix."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (``data.score``, ``ce_id``), a stable code, and a sentence that names the fix."""

    where: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class PavaneError(Exception):
    """The root. ``code`` is stable and may be matched; the message may change from release to release."""

    code: ClassVar[str] = "pavane"


class ProblemsError(PavaneError):
    """An error that reports everything that is wrong at once, not the first thing only."""

    def __init__(self, headline: str, problems: Iterable[Problem]) -> None:
        self.headline = headline
        self.problems = tuple(problems)
        super().__init__("\n".join([headline, *(f"  - {problem}" for problem in self.problems)]))


class DeclarationError(ProblemsError):
    """An event, agent, step or saga is declared in a way that cannot work. Raised at import or at start-up."""

    code = "declaration"


class ConfigurationError(ProblemsError):
    """A setting is wrong: a bus address that no adapter knows, an unknown ``PAVANE_`` variable. Nothing was started."""

    code = "configuration"


class ContractViolation(ProblemsError):
    """Data does not fit the contract of its event. Field paths and codes only: never the data itself."""

    code = "contract"


class UndecodableRecord(ProblemsError):
    """A record is no CloudEvent that this platform can read. It is dead-lettered with its bytes untouched."""

    code = "undecodable"


class BusError(PavaneError):
    """The bus could not do what was asked, and nothing of it was done. Safe to try again unless a leaf says not."""

    code = "bus"


class BusUnavailable(BusError):
    """The bus cannot be reached, is locked, read-only or full. Nothing was half-written; free it and try again."""

    code = "bus.unavailable"


class BusVersionMismatch(BusError):
    """The bus file was written by another, incompatible version. Open it with that version, or name a new file."""

    code = "bus.version"


class UnknownTopic(BusError):
    """A topic does not exist. Create it (agents do so for their own topics at start) or correct its name."""

    code = "bus.unknown-topic"


class RecordTooLarge(BusError):
    """A record is larger than the bus takes. Nothing of its batch was published. Send a reference instead."""

    code = "bus.too-large"


class StateUnreadable(BusError):
    """A lane's state cannot be read from the file of this process that part of it lies in. A restart brings it back."""

    code = "bus.state"


class LaneLost(BusError):
    """Another owner holds the lane now, or nobody knows. Drop what hangs on it: the next holder begins from the bus."""

    code = "bus.lane-lost"
