"""Event: a sealed, versioned statement of what happened."""

import re
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pavane_events.errors import ContractViolation, DeclarationError, Problem

_TYPE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_LONGEST_TYPE = 200
_MOST_PROBLEMS = 50
_LONGEST_PATH = 200


class Event(BaseModel):
    """A fact that one agent states and others build on. Frozen: a snapshot is never changed, only followed by another.

    ``class ScoreComputed(Event, type="credit.score-computed", version=1)`` names the event on the wire; the type is
    also its topic. A subclass without ``type`` is a consumer's own, narrower view of the same event. Classes of one
    type may exist side by side: there is no registry.

    Producers are strict (what an agent returns was validated when it was made), consumers are open: fields that a
    class does not name are ignored on reading, so a producer may add fields without asking anybody. Numbers are finite:
    JSON has no others.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    event_type: ClassVar[str] = ""
    event_version: ClassVar[int] = 0
    _dataschema: ClassVar[str] = ""

    def __init_subclass__(cls, *, type: str | None = None, version: int | None = None, **kwargs: Any) -> None:  # noqa: A002
        super().__init_subclass__(**kwargs)
        problems = _problems_of_name(cls, type, version)
        if problems:
            raise DeclarationError(f"event {cls.__qualname__} cannot be declared so", problems)
        if type is not None:
            cls.event_type = type
            cls.event_version = version if version is not None else 1
        elif version is not None:
            cls.event_version = version
        cls._dataschema = f"urn:pavane:{cls.event_type}:{cls.event_version}"

    @classmethod
    def dataschema(cls) -> str:
        """The contract's name on the wire (``ce_dataschema``): ``urn:pavane:credit.score-computed:1``."""
        return cls._dataschema

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read an event as a consumer does: open to fields it does not name.

        Raises :class:`ContractViolation` with every problem listed (the first fifty of very many), by field path and
        code, without the data; also where a validator of the class fails by any other exception than those it should.
        """
        try:
            read: Self = cls.__pydantic_validator__.validate_json(data)
        except ValidationError as error:
            raise violation(cls, error) from None
        except Exception as error:
            raise _broken_validator(cls, error) from error
        return read

    @classmethod
    def from_json_strictly(cls, data: bytes | str) -> Self:
        """Read an event as a producer must make it: a field that the contract does not name is a problem, too."""
        try:
            return cls.model_validate_json(data, extra="forbid")
        except ValidationError as error:
            raise violation(cls, error) from None
        except Exception as error:
            raise _broken_validator(cls, error) from error

    def to_json(self) -> bytes:
        """The event's data as UTF-8 JSON, compact."""
        return self.__pydantic_serializer__.to_json(self)


def violation(model: type[BaseModel], error: ValidationError) -> ContractViolation:
    """The problems pydantic found, as ours: field paths, codes and rules, but no input."""
    name = model.event_type if issubclass(model, Event) else model.__name__
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [Problem(_path(each["loc"]), each["type"], each["msg"]) for each in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        problems[-1] = Problem("data", "contract.more", f"and {len(found) - _MOST_PROBLEMS + 1} problems more")
    return ContractViolation(f"{name} does not fit its contract", problems)


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(["data", *(str(part) for part in location)])[:_LONGEST_PATH]


def _broken_validator(model: type[Event], error: Exception) -> ContractViolation:
    how = f"a validator of {model.__name__} raised {type(error).__name__}: it should raise ValueError or AssertionError"
    return ContractViolation(f"{model.event_type} does not fit its contract", [Problem("data", "contract.validator", how)])


def _problems_of_name(cls: type[Event], name: str | None, version: int | None) -> list[Problem]:
    problems: list[Problem] = []
    parent = cls.__mro__[1] if issubclass(cls.__mro__[1], Event) else Event
    if name is None and not cls.event_type and cls.__module__ != __name__:
        problems.append(
            Problem("type", "event.type-missing", f'name it: class {cls.__name__}({parent.__name__}, type="...", version=1)')
        )
    if name is not None and (not _TYPE.fullmatch(name) or len(name) > _LONGEST_TYPE):
        problems.append(
            Problem(
                "type",
                "event.type-malformed",
                f"{name!r} must be lower-case words joined by '.' or '-', as in credit.score-computed",
            )
        )
    if name is not None and name.startswith("pavane.") and cls.__module__.partition(".")[0] != "pavane_saga":
        problems.append(Problem("type", "event.type-reserved", f"{name!r}: the prefix 'pavane.' is the platform's own"))
    if version is not None and version < 1:
        problems.append(Problem("version", "event.version", "versions are whole numbers from 1 on"))
    return problems
