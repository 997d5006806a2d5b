"""Plans: by which plan the sagas of a lane are decided, of what was declared and of the ends that sagas ever had."""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Final, cast

from pavane_events.bus import LaneState
from pavane_events.compact import read_json, write_json
from pavane_saga.facts import Declared, fact_from_json
from pavane_saga.history import Plan, declared_after
from pavane_saga.saga import Saga

Ends = tuple[str, str, list[str]]
"""The types of events with which a saga starts, completes, and fails."""

_ENDS: Final = b"g/ends"


class Plans:
    """The plan of each saga, by its name. Changes gather in :attr:`changes` until the commit that makes them durable.

    Rows: ``d/<agent>`` is what an agent declared last, ``e/<agent>/<n>`` what it had declared before, ``w/<version>`` the
    steps that owe no undo under a version, ``g/ends`` all ends that each saga ever had, in order.
    """

    def __init__(self, state: LaneState, sagas: Mapping[str, Saga]) -> None:
        self._sagas = sagas
        self._declared: dict[str, tuple[Declared, ...]] = {}
        self._versions = {key[2:].decode(): _free_of(row) for key, row in state.scan(b"w/")}
        self._ends: dict[str, list[Ends]] = {}
        self.changes: dict[bytes, bytes | None] = {}
        self.ends: dict[str, int] = {}
        """By a saga's name, which of the ends that it ever had are those that it has now."""

        for prefix in (b"e/", b"d/"):
            for _, row in state.scan(prefix):
                fact = fact_from_json(row)
                if isinstance(fact, Declared):
                    self._declared[fact.agent] = (*self._declared.get(fact.agent, ()), fact)
        self._note_ends(state.get(_ENDS))
        self._learn()

    def __getitem__(self, name: str) -> Plan:
        return self._plans[name]

    def get(self, name: str | None) -> Plan | None:
        """The plan of a saga; None where no saga of that name is known."""
        return self._plans.get(name or "")

    @property
    def declared(self) -> set[str]:
        """The agents that have declared the lane."""
        return set(self._declared)

    @property
    def versions(self) -> Set[str]:
        """Every version of an agent that was ever declared in the lane."""
        return self._versions.keys()

    def declare(self, fact: Declared) -> Mapping[str, Plan]:
        """A lane of an agent answers by this manifest from now on. Returns the plans as they were before."""
        before = self._plans
        earlier = self._declared.get(fact.agent, ())
        self._declared[fact.agent] = declared_after(earlier, fact)
        self._versions[fact.version] = fact.free
        *former, last = self._declared[fact.agent]
        self.changes[b"d/" + fact.agent.encode()] = last.to_json()
        if len(former) == len(earlier) > 0:
            self.changes[b"e/%s/%06d" % (fact.agent.encode(), len(former))] = former[-1].to_json()
        self.changes[b"w/" + fact.version.encode()] = write_json(sorted(fact.free))
        self._learn()
        return before

    def waited_for_since(self, before: Mapping[str, Plan]) -> set[str]:
        """The types of events with which something waits, for a grant or somebody outside, and by earlier plans did not."""
        return {
            kind
            for name, plan in self._plans.items()
            for kind in (plan.asking | plan.externals) - before[name].asking - before[name].externals
        }

    def with_ends(self, plan: Plan, ends: int) -> Plan | None:
        """A plan with other ends that its saga had: those by that place in :attr:`ends`; None where it has these now."""
        if ends == self.ends[plan.saga]:
            return None
        starts, completes, fails = self._ends[plan.saga][ends]
        return replace(plan, starts=starts, completes=completes, fails=frozenset(fails))

    def committed(self) -> None:
        """The changes are durable."""
        self.changes = {}

    def _note_ends(self, row: bytes | None) -> None:
        """Which ends each saga has, of those that it ever had: what an earlier coordinator has heard may call for something by
        these, and did not by those."""
        noted = cast("dict[str, list[list[str | list[str]]]]", read_json(row)) if row is not None else {}
        for name, all_had in noted.items():
            for starts, completes, fails in all_had:
                self._ends.setdefault(name, []).append((str(starts), str(completes), list(fails)))
        for name, saga in self._sagas.items():
            ends = saga.starts.event_type, saga.completes.event_type, sorted([each.event_type for each in saga.fails])
            had = self._ends.setdefault(name, [])
            if ends not in had:
                had.append(ends)
            self.ends[name] = had.index(ends)
        now = write_json(self._ends)
        if now != row:
            self.changes[_ENDS] = now

    def _learn(self) -> None:
        self.said = frozenset(
            kind for known in self._declared.values() for each in known for step in each.steps for kind in step.produces
        )
        """The types of events that steps say."""
        self._plans = {
            name: Plan(
                saga=name,
                starts=saga.starts.event_type,
                completes=saga.completes.event_type,
                fails=frozenset(each.event_type for each in saga.fails),
                declared={agent: known[-1] for agent, known in self._declared.items()},
                former=dict(self._versions),
                earlier={agent: known[:-1] for agent, known in self._declared.items() if len(known) > 1},
            )
            for name, saga in self._sagas.items()
        }


def _free_of(row: bytes) -> frozenset[str] | None:
    """The steps that owe no undo under a version; None where an earlier release of ours wrote the row, which did not say."""
    return frozenset(cast("list[str]", read_json(row))) if row else None
