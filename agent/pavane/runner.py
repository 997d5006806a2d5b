"""Runner: agents and sagas at work on a bus, until they are told to stop."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pavane.agent import Agent
from pavane.breaker import Breakers
from pavane.kit import Kit, Limits
from pavane.lane import LaneAtWork
from pavane.plan import AgentPlan, plan_of
from pavane.settings import Settings
from pavane_events.bus import Bus, Lane
from pavane_events.errors import LaneLost
from pavane_events.required import require_topics
from pavane_saga.coordinator import run_coordinator
from pavane_saga.manifest import read_directory
from pavane_saga.saga import Saga
from pavane_saga.wire import ENDS
from pavane_tracing.conventions import COORDINATOR_SERVICE
from pavane_tracing.measured_bus import measured
from pavane_tracing.messaging_metrics import messaging_metrics
from pavane_tracing.options import TracingOptions
from pavane_tracing.setup import make_tracing
from pavane_tracing.work import FLUSH_S, Tracing

log = logging.getLogger("pavane.runner")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What everything that runs in a process shares. ``clock``: seconds since the epoch; ``chance``: [0, 1).

    ``look_s``: how often those who hear nothing look at the clock, and at who is there; None: every second or so. On a
    clock that nobody sets forward, and that wakes them when something is due, it may be infinite.
    """

    deployment: str = "pavane"
    limits: Limits = field(default_factory=Limits)
    trace: bool = True
    tracing_options: TracingOptions = field(default_factory=TracingOptions)
    clock: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    look_s: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Surroundings":
        """As the settings say."""
        limits = Limits(concurrency=settings.concurrency, drain_s=settings.drain_s)
        options = settings.tracing_options()
        return cls(deployment=settings.deployment, limits=limits, trace=settings.trace, tracing_options=options)

    def tracing(self, service: str, bus: Bus, *, sender: bool = False) -> Tracing:
        """Tracing under that service name; spans are kept on an embedded bus where no OTLP endpoint takes them.

        ``sender``: it only sends, and is not told how sagas end.
        """
        system = _system_of(bus)
        metrics = messaging_metrics(system)
        if not self.trace:
            return Tracing.off().measured(metrics)
        options = self.tracing_options.of_a_sender() if sender else self.tracing_options
        return make_tracing(service, keep=bus.embedded, system=system, options=options).measured(metrics)


async def run(
    agents: Sequence[Agent],
    sagas: Sequence[Saga],
    bus: Bus,
    stop: asyncio.Event,
    surroundings: Surroundings | None = None,
) -> None:
    """Run agents and the coordinator of sagas in this event loop until ``stop`` is set; then they drain and return.

    Raises an exception group as soon as one of them fails; the others are cancelled, and what they had not committed
    is begun again by whoever runs them next.
    """
    chosen = surroundings or Surroundings()
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(run_agent(agent, bus, stop, chosen), name=agent.name)
        if sagas:
            tracing = chosen.tracing(COORDINATOR_SERVICE, bus)
            working = run_coordinator(sagas, _measured(bus), stop, tracing=tracing, clock=chosen.clock, look_s=chosen.look_s)
            group.create_task(working, name="coordinator")


async def run_agent(agent: Agent, bus: Bus, stop: asyncio.Event, surroundings: Surroundings) -> None:
    """Run one agent until ``stop`` is set. Raises :class:`DeclarationError` before anything is touched."""
    plan = plan_of(agent)
    bus = _measured(bus)
    tracing = surroundings.tracing(agent.name, bus)
    kit = Kit(
        plan=plan,
        deployment=surroundings.deployment,
        partitions=bus.partitions,
        tracing=tracing,
        breakers=Breakers(surroundings.clock, agent.breakers),
        limits=surroundings.limits,
        clock=surroundings.clock,
        chance=surroundings.chance,
        look_s=surroundings.look_s,
        keeps_s=bus.keeps_s,
    )
    try:
        async with agent.alive():
            await require_topics(bus, plan.topic_specs())
            await _introduce(plan, bus)
            await _run_lanes(kit, bus, stop)
    finally:
        await asyncio.to_thread(tracing.shutdown, FLUSH_S)


def _system_of(bus: Bus) -> str:
    return "pavane" if bus.embedded else "kafka"


def _measured(bus: Bus) -> Bus:
    """The bus itself where nobody collects measurements."""
    metrics = messaging_metrics(_system_of(bus))
    return bus if metrics is None else measured(bus, metrics)


async def _introduce(plan: AgentPlan, bus: Bus) -> None:
    known = (await read_directory(bus)).agents.get(plan.agent.name)
    if known is not None:
        now = {step.name: step for step in plan.manifest.steps}
        for step in known.steps:
            if step.effects and step.name in now and not now[step.name].effects:
                log.warning(
                    "%s has no undo any more: sagas that owe one for what it did will be parked; keep the undo until"
                    " `pavane sagas owed %s` lists nothing",
                    step.name,
                    step.name,
                )
            if step.name not in now and not step.observer:
                log.warning(
                    "%s is gone: sagas that wait for it, or for its undo, will be parked; keep it, with retiring=True, until"
                    " `pavane sagas owed %s` lists nothing",
                    step.name,
                    step.name,
                )
    if known != plan.manifest:
        await bus.publish([plan.manifest.to_message()])


async def _run_lanes(kit: Kit, bus: Bus, stop: asyncio.Event) -> None:
    # what was told of ends before it came counts, too: what it is to hold may be of such a saga
    lanes = await bus.lanes(kit.plan.agent.name, kit.plan.topics, start="latest", earliest=[ENDS])
    try:
        async with asyncio.TaskGroup() as group:

            async def grant() -> None:
                async for lane in lanes:
                    group.create_task(_work(kit, lane, stop))

            granting = group.create_task(grant())
            await stop.wait()
            granting.cancel()
    finally:
        await lanes.close()


async def _work(kit: Kit, lane: Lane, stop: asyncio.Event) -> None:
    try:
        at_work = LaneAtWork(kit, lane)
    except LaneLost:
        return  # between its grant and the first look at its state
    await at_work.run(stop)
