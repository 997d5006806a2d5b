"""The fetcher: one long poll per node for all lanes of a member; what comes is handed to the lanes at once.

It replaces aiokafka's: nothing waits in it, so no partition keeps its node from being asked (aiokafka holds back a
whole node for up to 200 ms), and no partition can fall silent unnoticed after a broker's restart (aio-libs/aiokafka#1154).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.client import QUIET_S
from pavane_events.buses.kafka.failures import LEADER_NOT_AVAILABLE, TOPIC_FORBIDDEN, UNKNOWN_TOPIC, Refused
from pavane_events.buses.kafka.fetching import (
    EARLIEST,
    OFFSET_OUT_OF_RANGE,
    Answer,
    FetchSession,
    Portion,
    by_leader,
    list_offsets,
)
from pavane_events.buses.waiting import Bell
from pavane_events.record import Record

log = logging.getLogger("pavane.kafka")

Deliver = Callable[[TopicPartition, list[Record], int], None]
"""Called with a partition, its next records (none where only markers came), and the offset to go on from."""

_LOOK_S = 0.5
_BACKOFF_S = 0.1
_NEWS_S = 1.0
"""After so long a trouble is worth a line: leaders move in less."""

FORBIDDEN_S = 3.0
"""For so long a topic must be forbidden to be believed so: brokers hear of new rights one by one."""


class _Trouble(NamedTuple):
    """What a broker says of a partition that cannot be read, and since when it is this."""

    code: int
    began: float


@dataclass(frozen=True, slots=True)
class Silence:
    """For how long a partition has brought no good answer; what a broker said instead, where one said something."""

    seconds: float
    trouble: str


class Fetcher:
    """Positions and long polls. All methods belong to one event loop; a position changes between two deliveries only."""

    def __init__(self, client: AIOKafkaClient, wait_ms: int, deliver: Deliver) -> None:
        self._client = client
        self._wait_ms = wait_ms
        self._deliver = deliver
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._answered: dict[TopicPartition, float] = {}
        self._troubles: dict[TopicPartition, _Trouble] = {}
        self._said: dict[tuple[str, int], float] = {}
        self._nodes: dict[int, asyncio.Task[None]] = {}
        self._stale = False
        self._bell = Bell()

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Fetch a partition from here on; what is under way for another place is dropped."""
        if place not in self._positions:
            self._answered[place] = time.monotonic()
        self._positions[place] = offset
        self._bell.ring()

    def drop(self, place: TopicPartition) -> None:
        """Fetch a partition no more."""
        self._positions.pop(place, None)
        self._answered.pop(place, None)
        self._troubles.pop(place, None)
        self._paused.discard(place)

    def pause(self, place: TopicPartition) -> None:
        """Ask no more for a partition for now. What is under way is still delivered."""
        self._paused.add(place)

    def resume(self, place: TopicPartition) -> None:
        """Ask for a partition again."""
        if place in self._paused:
            self._paused.discard(place)
            if place in self._positions and place not in self._troubles:
                self._answered[place] = time.monotonic()
            self._bell.ring()

    def silence(self, places: Collection[TopicPartition]) -> Silence:
        """The longest silence among those of these partitions that are asked for; none where none of them is."""
        asked = [place for place in places if place in self._positions and place not in self._paused]
        if not asked:
            return Silence(0.0, "")
        worst = min(asked, key=self._answered.__getitem__)
        found = self._troubles.get(worst)
        trouble = f"{worst.topic}[{worst.partition}]: {for_code(found.code).__name__} ({found.code})" if found else ""
        return Silence(time.monotonic() - self._answered[worst], trouble)

    async def run(self) -> None:
        """Fetch until cancelled. Brokers that are away are asked again; nothing is lost by it.

        Raises :class:`Refused` for a topic that this user may not read, and could not for :data:`FORBIDDEN_S`.
        """
        try:
            while True:
                await self._look_for_leaders()
                await self._bell.wait(_LOOK_S)
        finally:
            for task in self._nodes.values():
                task.cancel()
            await asyncio.gather(*self._nodes.values(), return_exceptions=True)

    def _wanted(self) -> list[TopicPartition]:
        return [place for place in self._positions if place not in self._paused]

    async def _look_for_leaders(self) -> None:
        nodes = by_leader(self._client, self._wanted())
        if self._stale or -1 in nodes:
            self._stale = False
            await asyncio.wait([self._client.force_metadata_update()], timeout=_LOOK_S)
            nodes = by_leader(self._client, self._wanted())
        for place in nodes.get(-1, ()):
            self._troubled(place, self._why_without_leader(place.topic))
        for node in nodes:
            task = self._nodes.get(node)
            if node >= 0 and (task is None or task.done()):
                if task is not None and not task.cancelled():
                    task.result()
                self._nodes[node] = asyncio.create_task(self._follow(node))

    async def _follow(self, node: int) -> None:
        """Ask one node for as long as it leads something that is wanted."""
        session = FetchSession(self._client, node, self._wait_ms)
        while True:
            places = by_leader(self._client, self._wanted()).get(node)
            if not places:
                return
            try:
                answers = await session.fetch({each: self._positions[each] for each in places})
            except KafkaError as error:
                log.warning("node %d does not answer a fetch, it is asked again: %r", node, error)
                self._stale = True
                await asyncio.sleep(_BACKOFF_S)
                self._bell.ring()
                return
            moved = self._note(places, answers)
            for place, asked, code, portions in answers:
                if self._positions.get(place) != asked:
                    continue  # sought elsewhere meanwhile, or dropped
                if code == OFFSET_OUT_OF_RANGE:
                    await self._overtaken(place, asked)
                elif not code:
                    await self._hand_over(place, asked, portions)
            if moved:
                self._stale = True
                await asyncio.sleep(_BACKOFF_S)
                self._bell.ring()
                return

    def _note(self, places: Collection[TopicPartition], answers: Collection[Answer]) -> bool:
        """Keep in mind how each partition does; whether one must be asked for elsewhere, or later."""
        failed = {each.place: each.code for each in answers if each.code and each.code != OFFSET_OUT_OF_RANGE}
        now = time.monotonic()
        for place in places:  # of what is well and has nothing new, a session says nothing
            if place in self._answered and place not in failed:
                self._answered[place] = now
                self._troubles.pop(place, None)
        for place, code in failed.items():
            self._troubled(place, code)
        return bool(failed)

    def _why_without_leader(self, topic: str) -> int:
        cluster = self._client.cluster
        if topic in cluster.unauthorized_topics:
            return TOPIC_FORBIDDEN
        return UNKNOWN_TOPIC if cluster.partitions_for_topic(topic) is None else LEADER_NOT_AVAILABLE

    def _troubled(self, place: TopicPartition, code: int) -> None:
        """A partition cannot be read now: keep in mind why, and say so where it lasts. Raises what no waiting mends."""
        since = self._answered.get(place)
        if since is None:
            return  # dropped meanwhile
        now, what = time.monotonic(), (place.topic, code)
        last = self._troubles.get(place)
        began = last.began if last is not None and last.code == code else now
        self._troubles[place] = _Trouble(code, began)
        if code == TOPIC_FORBIDDEN and now - began >= FORBIDDEN_S:
            raise Refused(code, "Fetch", place.topic)
        if now - since >= _NEWS_S and now - self._said.get(what, -QUIET_S) >= QUIET_S:
            self._said[what] = now
            log.warning("%s[%d] cannot be read, it is asked for again: %s (%d)", *place, for_code(code).__name__, code)

    async def _hand_over(self, place: TopicPartition, asked: int, portions: Iterator[Portion]) -> None:
        """Deliver one portion after another, while others work on what came before."""
        at = asked
        for records, after in portions:
            if self._positions.get(place) != at:
                return  # sought elsewhere meanwhile, or dropped
            if after != at:
                self._positions[place] = at = after
                self._deliver(place, records, after)
            await asyncio.sleep(0)

    async def _overtaken(self, place: TopicPartition, asked: int) -> None:
        """Retention has deleted what was not read yet. It is gone: say so, and go on with what is left."""
        try:
            earliest = (await list_offsets(self._client, [place], EARLIEST))[place]
        except (KafkaError, Refused) as error:
            log.warning("where %s[%d] begins cannot be found out yet: %r", *place, error)
            await asyncio.sleep(_BACKOFF_S)
            return
        if self._positions.get(place) == asked and earliest != asked:
            log.error(
                "records %d to %d of %s[%d] were deleted before they were read: its retention is too short",
                asked,
                earliest - 1,
                *place,
            )
            self._positions[place] = earliest
            self._deliver(place, [], earliest)
