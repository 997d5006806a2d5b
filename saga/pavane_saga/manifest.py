"""Manifest: what an agent says of itself on ``pavane.agents``, and what a deployment learns from all of them."""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from pavane_events.bus import Bus
from pavane_events.record import Message
from pavane_saga.facts import Declared, StepPlan, fact_from_json
from pavane_saga.saga import Saga
from pavane_saga.wire import AGENTS

log = logging.getLogger("pavane.coordinator")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An agent's steps, and the version that is a hash of them: another set of steps or contracts is another version."""

    agent: str
    version: str
    steps: tuple[StepPlan, ...]

    def to_message(self) -> Message:
        """The manifest for the compacted table of agents."""
        return Message(AGENTS, self.declared(()).to_json(), f"agent:{self.agent}".encode())

    def declared(self, since: Iterable[tuple[str, int]], until: Mapping[str, Mapping[str, int]] | None = None) -> Declared:
        """The declaration of one lane: from these offsets on this manifest answers, a retiring step only up to others."""
        ends = tuple(sorted((step, tuple(sorted(topics.items()))) for step, topics in (until or {}).items()))
        return Declared(self.agent, self.version, self.steps, tuple(sorted(since)), ends)


def manifest_of(agent: str, steps: Iterable[StepPlan], contracts: Mapping[str, str]) -> Manifest:
    """A manifest; ``contracts`` maps each event type it consumes or produces to a hash of its schema."""
    plans = tuple(sorted(steps, key=lambda plan: plan.name))
    described = Declared(agent=agent, version="", steps=plans, since=()).to_json()
    digest = hashlib.sha256(described + json.dumps(contracts, sort_keys=True).encode()).hexdigest()[:12]
    return Manifest(agent, f"{agent}@{digest}", plans)


@dataclass(frozen=True, slots=True)
class SagaPlan:
    """What a saga's coordinator says of it: names of types, not classes, so that any tool can read it."""

    name: str
    starts: str
    completes: str
    fails: tuple[str, ...]
    intake: str
    deadline_s: float
    answers: tuple[str, ...] = ()

    @classmethod
    def of(cls, saga: Saga) -> "SagaPlan":
        """The plan of a declared saga."""
        return cls(
            name=saga.name,
            starts=saga.starts.event_type,
            completes=saga.completes.event_type,
            fails=tuple(each.event_type for each in saga.fails),
            intake=saga.intake,
            deadline_s=saga.deadline.total_seconds(),
            answers=tuple(each.event_type for each in saga.answers),
        )

    def to_message(self) -> Message:
        """The plan for the compacted table of agents."""
        value = json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()
        return Message(AGENTS, value, f"saga:{self.name}".encode())


@dataclass(frozen=True, slots=True)
class Directory:
    """Who is there: every agent's manifest and every saga's plan, as the table of agents has them."""

    agents: Mapping[str, Manifest]
    sagas: Mapping[str, SagaPlan]

    def steps(self) -> list[StepPlan]:
        """All steps of all agents, observers too."""
        return [step for manifest in self.agents.values() for step in manifest.steps]

    def topics(self) -> set[str]:
        """Every event topic of the deployment's sagas: what steps consume and produce, and the sagas' starts and ends."""
        found = {saga.starts for saga in self.sagas.values()} | {saga.completes for saga in self.sagas.values()}
        found |= {each for saga in self.sagas.values() for each in (*saga.fails, *saga.answers)}
        for step in self.steps():
            if not step.observer:
                found.update(each for alternatives in step.consumes for each in alternatives)
            found.update(step.produces)
        return {topic for topic in found if not topic.startswith("pavane.")}

    def leading_to(self, event_type: str, saga: SagaPlan) -> tuple[set[str], set[str]]:
        """Agents whose steps lead to an event, and the event types on the way that nobody produces.

        What starts another saga, or answers one, is nobody's to produce: an end may be that of two sagas.
        """
        agents: set[str] = set()
        orphans: set[str] = set()
        seen = {kind for each in (saga, *self.sagas.values()) for kind in (each.starts, *each.answers)}
        todo = [event_type]
        while todo:
            wanted = todo.pop()
            if wanted in seen:
                continue
            seen.add(wanted)
            makers = [
                (manifest.agent, step)
                for manifest in self.agents.values()
                for step in manifest.steps
                if wanted in step.produces and not step.retiring
            ]
            if not makers:
                orphans.add(wanted)
            for agent, step in makers:
                agents.add(agent)
                todo.extend(each for alternatives in step.consumes for each in alternatives)
        return agents, orphans


async def read_directory(bus: Bus) -> Directory:
    """The table of agents as it is now; empty where nobody has started yet. What nobody can read is passed over."""
    agents: dict[str, Manifest] = {}
    sagas: dict[str, SagaPlan] = {}
    if AGENTS not in await bus.topics():
        return Directory({}, {})
    for key, record in (await bus.table(AGENTS)).items():
        kind, _, name = key.decode(errors="replace").partition(":")
        if record.value is None:
            continue
        try:
            if kind == "agent":
                declared = fact_from_json(record.value)
                if isinstance(declared, Declared):
                    agents[name] = Manifest(declared.agent, declared.version, declared.steps)
            elif kind == "saga":
                sagas[name] = _saga_plan(record.value)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            _pass_over(key, record.partition, record.offset, type(error).__name__)
    return Directory(agents, sagas)


def _saga_plan(value: bytes) -> SagaPlan:
    members = cast("dict[str, object]", json.loads(value))
    return SagaPlan(
        name=str(members["name"]),
        starts=str(members["starts"]),
        completes=str(members["completes"]),
        fails=tuple(str(each) for each in cast("Collection[object]", members["fails"])),
        intake=str(members["intake"]),
        deadline_s=float(cast("float", members["deadline_s"])),
        answers=tuple(str(each) for each in cast("Collection[object]", members.get("answers", ()))),
    )


@lru_cache(maxsize=256)  # the table is read again and again: each such record is worth one line
def _pass_over(key: bytes, partition: int, offset: int, why: str) -> None:
    log.warning("%r on %s[%d] at %d is no manifest (%s): it counts for nothing", key, AGENTS, partition, offset, why)
