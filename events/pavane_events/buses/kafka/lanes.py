"""Lanes on Kafka: one membership, which fetches, restores, commits and gives up lanes as the group says."""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.bus import Start
from pavane_events.buses.kafka.changelog import TOPIC
from pavane_events.buses.kafka.committer import TRANSACTION_S, Commit, Committer
from pavane_events.buses.kafka.connecting import Door, close
from pavane_events.buses.kafka.failures import Refused, translated
from pavane_events.buses.kafka.fetcher import Fetcher
from pavane_events.buses.kafka.fetching import LATEST, list_offsets
from pavane_events.buses.kafka.group import Group
from pavane_events.buses.kafka.lane import KafkaLane
from pavane_events.buses.kafka.opening import Opening
from pavane_events.buses.kafka.places import Places
from pavane_events.buses.kafka.requests import Client
from pavane_events.buses.kafka.signature import Signature
from pavane_events.buses.kafka.transactions import Member, Payload, Producer
from pavane_events.buses.waiting import Bell
from pavane_events.errors import BusError, BusUnavailable, ConfigurationError, LaneLost
from pavane_events.record import Message, Record

log = logging.getLogger("pavane.kafka")

_RETRY_S = 0.2
_ABORT_S = 2.0

SILENCE_S = 3.0
"""A partition that has brought no good answer for so long is not polled: so long after the time (``fetch_wait_ms``) in
which answers come where there is nothing new."""

WRITES = "-writes"
"""What the client id of a member's second connection ends with; the first's is its transactional id."""


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """How one lane does.

    ``polling``: every partition of it that is asked for has brought a good answer within :data:`SILENCE_S`, and no commit
    takes longer than :data:`TRANSACTION_S`: a lane whose inbox is full asks for nothing. ``trouble``: what a broker said
    instead, where one did. ``assigned``: it is open. ``last_commit_age_s``: since this process last
    committed it. ``in_flight``: offsets fetched whose inputs are not done yet.
    """

    group: str
    partition: int
    polling: bool
    assigned: bool
    last_commit_age_s: float | None
    in_flight: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a membership is made of, once it is connected. Fetches wait on ``reading``: all else goes by ``writing``."""

    reading: Client
    writing: Client
    group: Group
    opening: Opening
    producer: Producer
    committer: Committer
    fetcher: Fetcher


class KafkaLanes:
    """A membership; see :class:`~pavane_events.bus.Lanes`."""

    def __init__(
        self,
        places: Places,
        door: Door,
        group: str,
        topics: Collection[str],
        start: Start,
        earliest: Collection[str] = (),
    ) -> None:
        self._places = places
        self._options = places.options
        self._door = door
        self._group_name = group
        self._topics = set(topics)
        self._start: Start = start
        self._earliest = frozenset(earliest)
        self.transactional_id = places.options.physical(f"{group}-{uuid.uuid4().hex[:12]}")
        self._parts: _Parts | None = None
        self._lanes: dict[int, KafkaLane] = {}
        self._assigned: frozenset[int] = frozenset()
        self._generation = -1
        self._member_id = ""
        self._began: set[str] = set()
        self._granted: deque[KafkaLane] = deque()
        self._bell = Bell()
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: asyncio.Task[None] | None = None
        self._failure: BusError | ConfigurationError | None = None
        self._closed = False

    @property
    def group(self) -> str:
        """The group's name."""
        return self._group_name

    @property
    def settled(self) -> bool:
        """Whether the group has assigned this member its lanes, and all of them are open."""
        return self._closed or (self._generation > 0 and self._assigned == frozenset(self._lanes))

    async def open(self) -> None:
        """Connect, take the transactional id, and join. Raises BusUnavailable, ConfigurationError."""
        try:
            self._parts = await self._connect_parts()
        except (KafkaError, Refused) as error:
            raise translated(error, f"joining {self._group_name}") from error
        if self._closed:  # meanwhile: nobody else lets go of what is open now
            await self._let_go()
            raise BusUnavailable("the bus was closed")
        topics = [self._options.physical(topic) for topic in self._topics]
        known = [*topics, self._options.physical(self._group_name + TOPIC)]
        _ = self._at.writing.set_topics(known)  # else: every topic there is
        self._at.group.join(topics)
        door = self._door.watch((self._at.reading, self._at.writing))
        for work in (self._at.fetcher.run(), self._at.committer.run(), self._at.group.watch(), door):
            task = asyncio.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def _connect_parts(self) -> "_Parts":
        options = self._options
        async with AsyncExitStack() as undo:
            reading = await self._door.connect(self.transactional_id, join_ms=options.session_ms)
            undo.push_async_callback(close, reading)
            writing = await self._door.connect(self.transactional_id + WRITES)
            undo.push_async_callback(close, writing)
            group = Group(
                reading,
                options.physical(self._group_name),
                self._places.partitions,
                options,
                held=lambda: (self._generation, self._assigned),
                revoked=self._on_revoked,
                assigned=self._on_assigned,
            )
            opening = Opening(self._places, self._group_name, group, writing, self.transactional_id)
            producer = opening.producer(self.transactional_id)
            await producer.initialise()
            undo.pop_all()
        committer = Committer(
            group.name,
            producer,
            opening.signatures,
            expelled=self._on_expelled,
            stale=group.rejoin,
            most=options.commit_records,
            pace=options.pace,
            fenced_s=1.5 * options.heartbeat_ms / 1000,
        )
        fetcher = Fetcher(reading, options.fetch_wait_ms, self._deliver)
        return _Parts(reading, writing, group, opening, producer, committer, fetcher)

    @property
    def _at(self) -> "_Parts":
        assert self._parts is not None, "the membership is not open"
        return self._parts

    def __aiter__(self) -> AsyncIterator[KafkaLane]:
        return self

    async def __anext__(self) -> KafkaLane:
        while not self._closed:
            if self._failure is not None:
                raise self._failure
            while self._granted:
                lane = self._granted.popleft()
                if not lane.lost:
                    return lane
            await self._bell.wait()
        raise StopAsyncIteration

    async def subscribe(self, topics: Collection[str]) -> None:
        """Read further topics, too."""
        await self._places.check(topics)
        if not set(topics) - self._topics:
            return
        self._topics |= set(topics)
        for topic in topics:
            _ = self._at.writing.add_topic(self._options.physical(topic))
        self._at.group.join([self._options.physical(topic) for topic in self._topics])
        while not self._closed and not self._topics <= self._began:
            if self._failure is not None:
                raise self._failure
            await self._bell.wait()

    async def close(self) -> None:
        """Leave the group. Bounded: brokers that do not answer are left waiting; cut short, it lets go all the same."""
        if self._closed:
            return
        self._closed = True
        self._bell.ring()
        if self._parts is None:
            return
        try:
            await self._leave()
        finally:
            await self._let_go()

    async def _leave(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
        was_open = self._at.committer.is_open
        for task in self._tasks:
            task.cancel()
        for lane in list(self._lanes.values()):
            self._drop(lane)
        self._bell.ring()
        await asyncio.gather(*self._tasks, *([self._settling] if self._settling else []), return_exceptions=True)
        if was_open:
            await self._abort()
        await self._at.group.close()

    async def _let_go(self) -> None:
        try:
            await close(self._at.reading)
        finally:
            await close(self._at.writing)

    async def _abort(self) -> None:
        """End what is open now and not when it times out: readers and heirs wait for it."""
        try:
            async with asyncio.timeout(_ABORT_S):
                await self._at.producer.initialise()
        except (KafkaError, Refused, TimeoutError) as error:
            log.info("the open transaction of %s ends by its timeout: %r", self._group_name, error)

    def health(self) -> list[LaneHealth]:
        """How every lane that is assigned does."""
        if self._parts is None or self._closed:
            return []
        return [self._health_of(partition) for partition in sorted(self._assigned)]

    def _health_of(self, partition: int) -> LaneHealth:
        lane = self._lanes.get(partition)
        if lane is None:  # nothing is asked for yet
            return LaneHealth(self._group_name, partition, polling=True, assigned=False, last_commit_age_s=None, in_flight=0)
        silence = self._at.fetcher.silence([self._places.of(topic, partition) for topic in lane.committed])
        age_s = None if lane.last_commit is None else time.monotonic() - lane.last_commit
        answers = silence.seconds < SILENCE_S + self._options.fetch_wait_ms / 1000
        polling = answers and self._at.committer.busy_s <= TRANSACTION_S
        return LaneHealth(self._group_name, partition, polling, True, age_s, lane.in_flight, silence.trouble)

    # What lanes ask for

    async def place(self, messages: Sequence[Message]) -> list[tuple[TopicPartition, Payload]]:
        """Check messages and find their partitions."""
        return await self._places.place(messages)

    def check_state(self, state: Mapping[bytes, bytes | None]) -> None:
        """Raise RecordTooLarge for a state that the bus does not take."""
        self._places.check_state(self._group_name + TOPIC, state)

    def place_of(self, topic: str, partition: int) -> TopicPartition:
        """A partition as the brokers name it."""
        return self._places.of(topic, partition)

    async def commit(self, commit: Commit) -> int:
        """Let a commit happen. A caller who is cancelled in the middle of it waits until it is decided."""
        self._at.committer.submit(commit)
        try:
            return await asyncio.shield(commit.future)
        except asyncio.CancelledError:
            while not self._at.committer.withdraw(commit):
                await asyncio.wait([commit.future])
            raise

    def flow(self, lane: KafkaLane, topics: Collection[str], *, on: bool) -> None:
        """Fetch topics of a lane, or stop to."""
        act = self._at.fetcher.resume if on else self._at.fetcher.pause
        for topic in topics:
            act(self._places.of(topic, lane.partition))

    def seek(self, lane: KafkaLane, topic: str, offset: int) -> None:
        """Fetch a topic of a lane from there."""
        self._at.fetcher.seek(self._places.of(topic, lane.partition), offset)

    async def high_watermarks(self, lane: KafkaLane) -> Mapping[str, int]:
        """By topic, where it ends, what is not committed yet included."""
        wanted = {self._places.of(topic, lane.partition): topic for topic in lane.committed}
        try:
            found = await list_offsets(self._at.writing, wanted, LATEST)
        except (KafkaError, Refused) as error:
            raise translated(error, "the ends of topics") from error
        return {topic: found[place] for place, topic in wanted.items()}

    # What the group says

    async def _on_revoked(self, expelled: bool) -> None:
        if self._settling is not None:
            self._settling.cancel()
        if expelled:  # before it joins anew, which takes as long as others need to agree: its handlers stop now
            self._disown()
        await self._at.committer.hold()

    def _on_assigned(self, member: Member, assigned: set[TopicPartition]) -> None:
        if self._closed:
            return
        if member.member_id != self._member_id:
            self._lose_all()  # it was put out of the group meanwhile: somebody else may have held its lanes
        self._member_id = member.member_id
        self._generation = member.generation
        self._assigned = frozenset(place.partition for place in assigned)
        for partition in set(self._lanes) - self._assigned:
            self._drop(self._lanes[partition])
        topics = {topic for place in assigned if (topic := self._options.logical(place.topic)) is not None}
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.create_task(self._settle(member, topics or set(self._topics)))
        self._settling.add_done_callback(self._ended)

    def _on_expelled(self) -> None:
        self._disown()
        self._at.group.expelled()

    def _disown(self) -> None:
        """It is no member any more: claim nothing, for somebody else may hold its lanes by now."""
        self._lose_all()
        self._generation, self._assigned = -1, frozenset()

    def _lose_all(self) -> None:
        for lane in list(self._lanes.values()):
            self._drop(lane)

    def _drop(self, lane: KafkaLane) -> None:
        if self._lanes.get(lane.partition) is lane:
            del self._lanes[lane.partition]
        for topic in lane.committed:
            self._at.fetcher.drop(self._places.of(topic, lane.partition))
        lane.lose()
        self._at.committer.forget(lane)

    async def _settle(self, member: Member, topics: set[str]) -> None:
        """After an assignment: lanes that stayed go on where nobody committed meanwhile, new ones are opened."""
        kept = dict(self._lanes)
        if kept:
            signatures = await self._at.opening.signatures(kept)
            for partition, lane in kept.items():
                found = signatures.get(partition, Signature()).stamp
                if found not in ("", lane.row.stamp) and not self._at.committer.is_under_way(lane):
                    self._drop(lane)  # somebody else has held it meanwhile, and committed
        self._at.committer.go(member)
        await asyncio.gather(
            *(self._patiently(self._begin, lane, topics) for lane in self._lanes.values()),
            *(self._patiently(self._open_lane, partition, topics) for partition in sorted(self._assigned - set(self._lanes))),
        )
        self._began = topics
        self._bell.ring()

    async def _patiently(self, what: Callable[..., object], *arguments: object) -> None:
        while True:
            try:
                await what(*arguments)  # type: ignore[misc]
            except LaneLost:
                return
            except (KafkaError, Refused, BusUnavailable) as error:
                problem = error if isinstance(error, BusError) else translated(error, f"a lane of {self._group_name}")
                if not isinstance(problem, BusUnavailable):
                    raise problem from error
                log.warning("a lane of %s is not open yet, it is tried again: %s", self._group_name, problem)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _open_lane(self, partition: int, topics: set[str]) -> None:
        restored, known = await self._at.opening.read(partition, topics)
        lane = KafkaLane(self, partition, self._at.opening.changelog(partition), restored)
        self._lanes[partition] = lane
        try:
            await self._begin(lane, topics, known)
        except BaseException:
            if self._lanes.get(partition) is lane:
                self._drop(lane)
            raise
        if not lane.lost:
            self._granted.append(lane)
            self._bell.ring()

    async def _begin(self, lane: KafkaLane, topics: set[str], known: Mapping[str, int] | None = None) -> None:
        """Read the topics that the lane does not read yet, from where it stands in them or the member starts."""
        known = lane.row.offsets if known is None else known
        added = topics - set(lane.committed)
        late = {topic for topic in added if topic not in known and self._start == "latest"} - self._earliest
        opening = self._at.opening
        new = await opening.starts(lane.partition, late, "latest")
        if new:
            await lane.take_starts(new)
        if lane.lost:
            return
        first = await opening.starts(lane.partition, added - late - set(known), "earliest")
        starts = {**new, **first, **{topic: known[topic] for topic in added if topic in known}}
        lane.begin(starts)
        for topic, offset in starts.items():
            self.seek(lane, topic, offset)

    def _deliver(self, place: TopicPartition, records: list[Record], after: int) -> None:
        lane = self._lanes.get(place.partition)
        topic = self._options.logical(place.topic)
        if lane is None or topic is None:
            return
        if self._options.prefix:
            for record in records:
                record.topic = topic
        lane.deliver(topic, records, after)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self._closed:
            return
        error = task.exception()
        if error is None:
            return
        log.error("the membership of %s has failed", self._group_name, exc_info=error)
        known = isinstance(error, BusError | ConfigurationError)
        self._failure = error if known else translated(error, f"the membership of {self._group_name}")  # type: ignore[assignment]
        self._lose_all()
        for each in [*self._tasks, *([self._settling] if self._settling else [])]:
            each.cancel()  # a commit that is looked up is looked up no more
        self._bell.ring()
