"""Plan: an agent's declarations compiled for work: who listens to which topic, and what it says of itself."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pavane.agent import Agent
from pavane.step import AnyStep
from pavane.tiers import Tier, tier_topics
from pavane_events.bus import TopicSpec
from pavane_events.dead_letter import dead_letters_topic
from pavane_events.errors import DeclarationError
from pavane_events.event import Event
from pavane_saga.facts import StepPlan
from pavane_saga.manifest import Manifest, manifest_of
from pavane_saga.wire import AGENTS, BREAKERS, ENDS, FACTS, commands_topic
from pavane_tracing.store import SPANS_TOPIC


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What a lane of the agent needs to know, looked up once."""

    agent: Agent
    manifest: Manifest
    listeners: dict[str, tuple[AnyStep, ...]]
    by_wire_name: dict[str, AnyStep]
    commands: str
    tiers: Mapping[str, Tier]
    retiring: Mapping[str, Collection[str]]
    """By wire name, the steps that take nothing new, with the topics that they took from."""

    @property
    def topics(self) -> Collection[str]:
        """What the agent's lanes read."""
        ends = () if all(step.options.observer for step in self.by_wire_name.values()) else (ENDS,)
        return [*self.listeners, self.commands, *ends, *self.tiers]

    def topic_specs(self) -> list[TopicSpec]:
        """What the agent needs to exist before it starts."""
        names = {*self.listeners, *(kind for step in self.manifest.steps for kind in step.produces)}
        names |= {self.commands, ENDS, FACTS, BREAKERS, SPANS_TOPIC, dead_letters_topic(self.agent.name), *self.tiers}
        return [*(TopicSpec(name) for name in sorted(names)), TopicSpec(AGENTS, compacted=True)]


def plan_of(agent: Agent) -> AgentPlan:
    """Compile an agent. Raises :class:`DeclarationError` with everything that start-up refuses."""
    problems = agent.problems()
    if problems:
        raise DeclarationError(f"agent {agent.name!r} cannot start", problems)
    listeners: dict[str, list[AnyStep]] = {}
    for step in agent.steps.values():
        for parameter in step.signature.parameters:
            for event_type in parameter.types:
                listeners.setdefault(event_type, []).append(step)
    return AgentPlan(
        agent=agent,
        manifest=manifest_of(agent.name, map(step_plan, agent.steps.values()), contracts(agent)),
        listeners={topic: tuple(steps) for topic, steps in listeners.items()},
        by_wire_name={step.wire_name: step for step in agent.steps.values()},
        commands=commands_topic(agent.name),
        tiers=tier_topics(agent.name),
        retiring={
            step.wire_name: {kind for parameter in step.signature.parameters for kind in parameter.types}
            for step in agent.steps.values()
            if step.options.retiring
        },
    )


def step_plan(step: AnyStep) -> StepPlan:
    """What the coordinator learns of a step."""
    within = step.options.within
    return StepPlan(
        name=step.wire_name,
        consumes=tuple(parameter.types for parameter in step.signature.parameters),
        produces=tuple(kind.event_type for kind in step.signature.produces),
        effects=step.owes_undo,
        observer=step.options.observer,
        within_s=within.total_seconds() if within is not None else None,
        pivot=step.options.pivot,
        external=step.options.external,
        locks=step.options.lock is not None,
        retriable=step.options.retriable,
        retiring=step.options.retiring,
        title=step.title if step.title != step.wire_name else "",
    )


def event_classes(agent: Agent) -> list[type[Event]]:
    """Every event class that the agent's signatures name."""
    found: dict[type[Event], None] = {}
    for step in agent.steps.values():
        for parameter in step.signature.parameters:
            found.update(dict.fromkeys(parameter.views))
        found.update(dict.fromkeys(step.signature.produces))
    return list(found)


def contracts(agent: Agent) -> dict[str, str]:
    """A hash of each contract the agent holds, by wire name and class: part of its version."""
    return {f"{kind.dataschema()}#{kind.__name__}": _hash_of(kind) for kind in event_classes(agent)}


@lru_cache(maxsize=1024)
def _hash_of(kind: type[Event]) -> str:
    return hashlib.sha256(json.dumps(kind.model_json_schema(), sort_keys=True).encode()).hexdigest()[:16]
