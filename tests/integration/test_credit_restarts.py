"""An agent dies while one undo is stuck and others behind it are finished: its next run does not finish those again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from pavane.runner import Surroundings, run_agent
from pavane_credit import fraud
from pavane_credit.applications import read_applications
from pavane_credit.events import ApplicationSubmitted
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message
from pavane_saga.facts import Undone
from pavane_saga.wire import FACTS, UndoCommand, commands_topic, read_fact
from support.stage import until

COMMANDS = commands_topic(fraud.agent.name)
STEP = fraud.check_identity.wire_name
STUCK, *OTHERS = [each.event for each in read_applications()[:4]]


class Register:
    """Stands in for the seam: the register does not answer for one application until it is well again."""

    def __init__(self) -> None:
        self.is_well = False

    def before_undo(self, application_id: str, context: object) -> None:
        if application_id == STUCK.application_id and not self.is_well:
            raise ConnectionError("the register does not answer")


def undo_of(application: ApplicationSubmitted) -> Message:
    """The coordinator's command to release an identity, whether or not it was held."""
    saga = f"saga of {application.application_id}"
    start = Envelope(id=f"start of {saga}", source="/test", type=application.event_type, data=application.to_json(), saga=saga)
    command = UndoCommand(saga, STEP, (start.id,), (start.to_structured(),), (), "unknown")
    return command.envelope(0.0).to_message(COMMANDS)


async def undone(bus: Bus) -> Counter[str]:
    """How often each saga was said to be undone."""
    envelopes = [parse(record) async for record in bus.read(FACTS)]
    return Counter([each.saga or "" for each in envelopes if isinstance(read_fact(each), Undone)])


async def dead_letters(bus: Bus) -> int:
    return len([record async for record in bus.read(f"{fraud.agent.name}.dead-letters")])


@contextlib.asynccontextmanager
async def at_work(bus: Bus) -> AsyncGenerator[None]:
    """The agent at work, until it dies at the end of the block: nothing drains, nothing more is committed."""
    running = asyncio.create_task(run_agent(fraud.agent, bus, asyncio.Event(), Surroundings(trace=False)))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_undos_and_dead_letters_behind_a_stuck_undo_are_not_repeated_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Register()
    monkeypatch.setenv("CREDIT_LEDGERS", ":memory:test-restarts-")
    monkeypatch.setattr(fraud.seam, "before_undo", register.before_undo)
    everybody = {f"saga of {each.application_id}": 1 for each in (STUCK, *OTHERS)}
    others = {f"saga of {each.application_id}": 1 for each in OTHERS}

    async def scenario() -> None:
        async with MemoryBus(partitions=1) as bus:
            await bus.create_topics([TopicSpec(topic) for topic in (COMMANDS, FACTS, f"{fraud.agent.name}.dead-letters")])

            async def has_declared() -> bool:
                return len([record async for record in bus.read(FACTS)]) == 1

            async def all_others_are_done() -> bool:
                return await undone(bus) == others and await dead_letters(bus) == 1

            async with at_work(bus):
                await until(has_declared)
                await bus.publish([undo_of(STUCK), *map(undo_of, OTHERS), Message(COMMANDS, b"no command", key=b"k")])
                await until(all_others_are_done)

            register.is_well = True

            async def the_stuck_one_is_done() -> bool:
                return f"saga of {STUCK.application_id}" in await undone(bus)

            async with at_work(bus):
                await until(the_stuck_one_is_done)
            assert await undone(bus) == everybody
            assert await dead_letters(bus) == 1

    asyncio.run(scenario())
