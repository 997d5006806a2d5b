"""Places: where in the source agents, steps, events and sagas are declared."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pavane_events.place import Place

if TYPE_CHECKING:
    from pavane.cli.targets import Targets
    from pavane_events.event import Event
    from pavane_saga.finding import Finding


class Places:
    """Knows by a finding's code and ``where`` the file and line to look at; of what is there twice, both."""

    def __init__(self, found: "Targets", events: "Iterable[type[Event]]") -> None:
        self._agents = _listed((agent.name, agent.declared_at) for agent in found.agents)
        self._sagas = _listed((saga.name, saga.declared_at) for saga in found.sagas)
        self._starts = _listed((saga.starts.event_type, saga.declared_at) for saga in found.sagas)
        self._intakes = _listed((saga.intake, saga.declared_at) for saga in found.sagas)
        self._others = {step.wire_name: _of(step.function) for agent in found.agents for step in agent.steps.values()}
        for event in events:
            self._others.setdefault(event.event_type, _of(event))

    def of(self, finding: "Finding") -> str:
        """Where that is; empty where it is in no file."""
        by_code = {"saga.doubled": self._sagas, "saga.start-doubled": self._starts, "saga.intake-doubled": self._intakes}
        if finding.code.startswith("agent."):
            return self._agents.get(finding.where, "")
        return by_code.get(finding.code, self._others).get(finding.where.partition(",")[0], "")


def shown(place: Place | None) -> str:
    """``file:line``, the file as it is seen from the working directory; empty where there is none."""
    if place is None:
        return ""
    path = Path(place.file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{place.line}"


def _listed(declared: Iterable[tuple[str, Place | None]]) -> dict[str, str]:
    by_name: dict[str, list[str]] = {}
    for name, place in declared:
        by_name.setdefault(name, []).append(shown(place))
    return {name: ", ".join(filter(None, places)) for name, places in by_name.items()}


def _of(what: Callable[..., object]) -> str:
    try:
        file, line = inspect.getsourcefile(what), inspect.getsourcelines(what)[1]
    except (OSError, TypeError):  # made at run time
        return ""
    return shown(Place(file, line)) if file is not None else ""
