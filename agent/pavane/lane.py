"""The lane at work: receive, hand out to workers by key, gather what is finished, commit it together."""

import asyncio
import json
import logging
from dataclasses import replace
from functools import partial
from typing import Final

from pavane.answers import Answers
from pavane.arms import filled_ms, tombstone_ms
from pavane.commits import Commits
from pavane.doubt import begins_on
from pavane.kit import Kit
from pavane.marks import Marks
from pavane.overlay import Overlay
from pavane.perform import Performer
from pavane.progress import PREFIX, Progress
from pavane.reception import Reception
from pavane.release import Releases
from pavane.undoing import Undoer
from pavane.units import Abandoned, UndoUnit, Unit
from pavane.until_lost import until_lost
from pavane.waiting import Index
from pavane.workers import Workers
from pavane_events.bus import Lane
from pavane_events.envelope import Envelope
from pavane_events.forgetting import Forgetting
from pavane_events.ids import derived, uuid7
from pavane_events.record import Message
from pavane_saga.wire import BREAKERS, fact_envelope, fact_message, timestamp

log: Final = logging.getLogger("pavane.lane")

_RECEIVE_S: Final = 5.0


class LaneAtWork:
    """One lane of one agent, from its grant until it is lost or stopped."""

    def __init__(self, kit: Kit, lane: Lane) -> None:
        self._kit = kit
        self._lane = lane
        limits = kit.limits
        plan = kit.plan
        state = Overlay(lane.state)
        with_effects = [topic for topic, steps in plan.listeners.items() if any(step.owes_undo for step in steps)]
        owing = [step for step in plan.by_wire_name.values() if step.owes_undo]
        if any(step.options.pivot or step.options.lock is not None for step in owing):
            with_effects.append(plan.commands)  # it begins on a grant
        begins = {name: begins_on(step) for name, step in plan.by_wire_name.items()}
        names = [step.wire_name for step in owing]
        answering = {
            topic: [step.wire_name for step in steps if not step.options.observer] for topic, steps in plan.listeners.items()
        }
        self._marks = Marks(
            lane, plan.manifest.version, with_effects, limits.mark_window, plan.retiring, names, begins, answering
        )
        self._progress = Progress(lane.state.scan(PREFIX), self._marks.number)
        self._index = Index(state)
        ended = {b"t/": tombstone_ms, b"a/": filled_ms}
        forgetting = Forgetting(state, ended, kit.keeps_s, kit.clock)
        self._commits = Commits(
            lane, state, self._index, self._progress, self._marks, limits.window, forgetting, self._breaker_events
        )
        self._workers: Workers[Unit | UndoUnit] = Workers(self._perform, limits.concurrency)
        answers = Answers(kit)
        self._performer = Performer(kit, state, self._index, answers, self._workers.step_aside)
        self._undoer = Undoer(kit, answers, self._workers.step_aside)
        self._reception = Reception(
            kit, state, self._index, self._progress, self._marks, self._commits, self._workers, answers
        )
        self._releases = Releases(kit, lane, self._reception, self._commits, self._workers)
        self._most_s = _RECEIVE_S if kit.look_s is None else kit.look_s

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set (running work may then finish, for ``drain_s``) or the lane is lost.

        Raises an exception group with what a handler raised beyond :class:`Exception`: nothing of that is committed.
        """
        listeners = self._kit.breakers.listeners
        listeners.add(self._commits.nudge)  # what a breaker does is said at once, not when the next step is done
        try:
            if await until_lost(partial(self._work, stop)):
                log.info("lane %d of %s is lost: its next holder goes on", self._lane.partition, self._lane.group)
        finally:
            self._releases.close()
            listeners.discard(self._commits.nudge)

    async def _work(self, stop: asyncio.Event, group: asyncio.TaskGroup) -> None:
        self._workers.start(group)
        try:
            if self._marks.new_version:
                await self._commits.declare(self._declaration())
            committing = group.create_task(self._commits.run())
            receiving = group.create_task(self._receive())
            await stop.wait()
            receiving.cancel()
            self._releases.close()
            drained = await self._workers.drain(self._kit.limits.drain_s)
            if not drained:
                log.warning("lane %d of %s: work was given up at the end", self._lane.partition, self._lane.group)
            self._commits.finish(drained=drained)
            await committing
        finally:
            self._workers.cancel()

    async def _receive(self) -> None:
        while True:
            await self._commits.room()
            self._releases.release()
            records = await self._lane.receive(self._kit.limits.batch, self._releases.wait_s(self._most_s))
            if not records:
                continue
            if not self._marks.cover(records):
                await self._commits.mark()
            for record in records:
                if not self._releases.hold(record) and self._progress.is_new(record.topic, record.offset):
                    self._reception.take(record)
            self._workers.wake()

    async def _perform(self, unit: Unit | UndoUnit) -> None:
        if isinstance(unit, UndoUnit):
            saga = (unit.envelope.saga, None)
            running = self._workers.running(saga)
            if running is not None and running.name == unit.request.step:
                running.interrupt("ended")
                await self._workers.finished(saga)
            self._index.drop(unit.envelope.saga or "", unit.request.step, unit.request.causes)
            done = await self._undoer.undo(unit)
        else:
            done = await self._performer.perform(unit)
        if unit.interrupted == "given up":
            raise Abandoned
        self._commits.settle(unit.settles, unit.name, done)

    def _declaration(self) -> Message:
        """Which manifest answers in this lane, from which offsets on."""
        plan = self._kit.plan
        since = {topic: offset for topic, offset in self._lane.committed.items() if topic in plan.listeners}
        envelope = fact_envelope(
            plan.manifest.declared(since.items(), self._marks.until),
            saga=None,
            source=f"/agents/{plan.agent.name}",
            time_s=self._kit.clock(),
        )
        place = (str(self._lane.partition), str(self._lane.commit_number))
        envelope = replace(envelope, id=derived("declared", plan.agent.name, *place))  # every lane's is an event of its own
        return fact_message(envelope, envelope.trace, partition=self._lane.partition)

    def _breaker_events(self) -> list[Message]:
        """What breakers of this process did since the last commit of any of its lanes."""
        agent = self._kit.plan.agent.name
        messages: list[Message] = []
        for each in self._kit.breakers.take_transitions():
            data = {
                "agent": agent,
                "breaker": each.name,
                "before": each.before,
                "after": each.after,
                "failures": each.failures,
            }
            envelope = Envelope(
                id=uuid7(),
                source=f"/agents/{agent}",
                type="pavane.breaker",
                data=json.dumps(data).encode(),
                time=timestamp(each.at_s),
                subject=f"{agent}/{each.name}",
            )
            messages.append(envelope.to_message(BREAKERS))
        return messages
