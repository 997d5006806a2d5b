"""Targets: agents and sagas named on the command line as ``module:attribute``."""

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

from pavane.agent import Agent
from pavane_events.errors import ConfigurationError, DeclarationError, Problem
from pavane_events.event import Event
from pavane_saga.saga import Saga

if TYPE_CHECKING:
    from pavane.simulation.verification import Verification

_EXAMPLE = "as in pavane_credit.score:agent"


@dataclass(frozen=True, slots=True)
class Targets:
    """What was named, each once, in that order."""

    agents: tuple[Agent, ...]
    sagas: tuple[Saga, ...]


class _Wrong(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def load_targets(names: Sequence[str]) -> Targets:
    """The agents and sagas. Modules are found on ``sys.path`` and in the working directory.

    Raises :class:`ConfigurationError` with every name that leads nowhere, and :class:`DeclarationError` where a module
    declares what cannot work.
    """
    problems: list[Problem] = []
    found: list[Agent | Saga] = []
    for name in names:
        try:
            for each in _members(name, load_object(name)):
                if each not in found:
                    found.append(each)
        except _Wrong as wrong:
            problems.append(Problem(name, wrong.code, str(wrong)))
    if problems:
        raise ConfigurationError("not everything named can be loaded", problems)
    return Targets(
        tuple(each for each in found if isinstance(each, Agent)), tuple(each for each in found if isinstance(each, Saga))
    )


def load_event(name: str) -> type[Event]:
    """The class that ``module:Class`` names. Raises :class:`ConfigurationError`."""
    try:
        found = load_object(name)
        if isinstance(found, type) and issubclass(found, Event) and found.event_type:
            return found
        raise _Wrong("target.event", "it is no class of events: class Name(Event, type=...)")
    except _Wrong as wrong:
        raise ConfigurationError("not everything named can be loaded", [Problem(name, wrong.code, str(wrong))]) from None


def load_verification(name: str) -> "Verification":
    """The verification that ``module:attribute`` names. Raises :class:`ConfigurationError`."""
    from pavane.simulation.verification import Verification

    try:
        found = load_object(name)
        if isinstance(found, Verification):
            return found
        raise _Wrong("target.type", f"it is {_a(found)}, no Verification(agents=..., sagas=..., starts=...)")
    except _Wrong as wrong:
        raise ConfigurationError("not everything named can be loaded", [Problem(name, wrong.code, str(wrong))]) from None


def load_object(name: str) -> object:
    """Whatever ``module:attribute`` names."""
    module_name, colon, attribute = name.partition(":")
    module = _import(module_name, colon=bool(colon))
    if not attribute:
        raise _Wrong("target.attribute", f"name what is meant in it, as in {module_name}:{_likely(module) or 'agent'}")
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [each for each in vars(module) if not each.startswith("_")], 1)
            known = near[0] if near else _likely(module)
            hint = f"; did you mean {module_name}:{known}?" if known else ""
            raise _Wrong("target.attribute", f"{module_name} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _import(name: str, *, colon: bool) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _Wrong("target.form", f"{'it' if colon else 'that'} is no module:attribute, {_EXAMPLE}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except DeclarationError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            raise _Wrong("target.module", f"there is no module {missing!r} here or on the Python path") from None
        raise _Wrong("target.import", f"its import fails: it needs the module {missing!r}, which is not installed") from None
    except SystemExit as error:
        message = f"its import ends the process: sys.exit({error.code!r}); keep that under if __name__ == '__main__':"
        raise _Wrong("target.import", message) from error
    except Exception as error:  # whatever a module raises is the user's to see, in one line
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"its import fails: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        raise _Wrong("target.import", message) from error


def _members(name: str, found: object) -> list[Agent | Saga]:
    if isinstance(found, Agent | Saga):
        return [found]
    if isinstance(found, list | tuple | set | frozenset):
        members = list(cast("Iterable[object]", found))
        wrong = [each for each in members if not isinstance(each, Agent | Saga)]
        if wrong:
            raise _Wrong("target.type", f"it holds {_a(wrong[0])}, where only agents and sagas may be")
        if not members:
            raise _Wrong("target.empty", "it is empty: put agents or sagas into it")
        return cast("list[Agent | Saga]", members)
    module = name.partition(":")[0]
    likely = _likely(sys.modules[module])
    hint = f"; did you mean {module}:{likely}?" if likely else ""
    raise _Wrong("target.type", f"it is {_a(found)}, no agent and no saga{hint}")


def _likely(module: ModuleType) -> str | None:
    from pavane.simulation.verification import Verification

    for name, each in vars(module).items():
        if isinstance(each, Agent | Saga | Verification):
            return name
    return None


def _a(found: object) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    if isinstance(found, ModuleType):
        return "a module"
    name = type(found).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
