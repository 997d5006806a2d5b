"""The committer: the commits of all lanes of a member, as many as wait together in one transaction after another."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.buses.kafka.changelog import LaneRow, payloads_of
from pavane_events.buses.kafka.failures import (
    FENCED,
    PASSING,
    STALE_GENERATION,
    TOO_LARGE,
    UNKNOWN_MEMBER,
    UNKNOWN_TOPIC,
    Refused,
    translated,
)
from pavane_events.buses.kafka.signature import Signature
from pavane_events.buses.kafka.transactions import GroupOffsets, Member, Payload, Producer
from pavane_events.buses.waiting import Bell
from pavane_events.errors import BusError, ConfigurationError, LaneLost, RecordTooLarge, UnknownTopic

log = logging.getLogger("pavane.kafka")

MOST_BYTES = 4 * 1024 * 1024
"""Of one transaction, where it holds commits of more than one lane."""

TRANSACTION_S = 9.0
"""No transaction takes longer; where its outcome is not known then, it is looked up for as long as that takes."""

REVOKE_S = 3.0
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.1, 2.0


class Committing(Protocol):
    """What the committer needs of a lane."""

    @property
    def partition(self) -> int: ...

    @property
    def lost(self) -> bool: ...

    @property
    def changelog(self) -> TopicPartition: ...

    @property
    def changelog_end(self) -> int: ...

    def lose(self) -> None: ...


@dataclass(slots=True, eq=False)
class Commit:
    """One commit of one lane. ``row`` is the lane's row after it; ``before`` the stamp of the row before it."""

    lane: Committing
    before: str
    row: LaneRow
    offsets: Mapping[TopicPartition, int]
    outputs: Sequence[tuple[TopicPartition, Payload]]
    state: Mapping[bytes, bytes | None]
    future: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    alone: bool = False
    """Whether it needs a transaction of its own: one that it shared was refused, and it may be somebody else's fault."""

    @property
    def weight(self) -> int:
        """How much of a transaction it takes."""
        return len(self.outputs) + len(self.state) + 1

    @property
    def size(self) -> int:
        """How many bytes it writes, about."""
        outputs = sum([len(message.value or b"") for _, message in self.outputs])
        return outputs + sum([len(value) for value in self.state.values() if value is not None])

    @property
    def has_happened(self) -> bool:
        """Whether it is known to be durable."""
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None

    def happened(self, changelog_end: int) -> None:
        """It is durable."""
        if not self.future.done():
            self.future.set_result(changelog_end)

    def failed(self, error: BusError | ConfigurationError) -> None:
        """It has not happened and will not."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # who waited for it may have been cancelled: that is no unheard error


class Committer:
    """One member's transactions, by one producer, under the generation of the last assignment.

    After any failure the producer is initialised anew, and each lane's stamp is read stably: it says whether the commit
    happened. ``signatures`` gives, by partition, whose a lane's last commit was.
    """

    def __init__(
        self,
        group: str,
        producer: Producer,
        signatures: Callable[[Sequence[int]], Awaitable[Mapping[int, Signature]]],
        *,
        expelled: Callable[[], None],
        stale: Callable[[], None],
        most: int,
        pace: float,
        fenced_s: float,
    ) -> None:
        self._group = group
        self._producer = producer
        self._signatures = signatures
        self._expelled = expelled
        self._stale = stale
        self._most = most
        self._pace = pace
        self._fenced_s = fenced_s
        self._member: Member | None = None
        self._queue: deque[Commit] = deque()
        self._under_way: list[Commit] = []
        self._begun: float | None = None
        self._bound: asyncio.Timeout | None = None
        self._bell = Bell()
        self._closed = False
        self.transactions = 0

    def submit(self, commit: Commit) -> None:
        """Let a commit happen as soon as it can; its future tells."""
        if self._closed or commit.lane.lost:
            commit.failed(_lost(commit.lane))
            return
        self._queue.append(commit)
        self._bell.ring()

    def withdraw(self, commit: Commit) -> bool:
        """Take back a commit that has not begun; False where it is under way."""
        if commit in self._queue:
            self._queue.remove(commit)
            return True
        return commit.future.done()

    def is_under_way(self, lane: Committing) -> bool:
        """Whether a commit of that lane is being made, or its outcome found out."""
        return any(each.lane is lane for each in self._under_way)

    def forget(self, lane: Committing) -> None:
        """A lane is lost: what waits of it will not happen."""
        for commit in [each for each in self._queue if each.lane is lane]:
            self._queue.remove(commit)
            commit.failed(_lost(lane))

    def go(self, member: Member) -> None:
        """Commit under this membership."""
        self._member = member
        self._bell.ring()

    async def hold(self) -> None:
        """Begin no transaction more; wait until the open one has ended, and end it where it takes too long."""
        self._member = None
        loop = asyncio.get_running_loop()
        give_up = loop.time() + REVOKE_S
        while self._bound is not None:
            if loop.time() >= give_up:
                self._bound.reschedule(loop.time())
                await self._bell.wait(1.0)
                return
            await self._bell.wait(give_up - loop.time())

    async def run(self) -> None:
        """Make transactions until cancelled; what waits then is refused, what is open is aborted."""
        try:
            while True:
                while not self._queue or self._member is None:
                    await self._bell.wait()
                self._under_way = self._take()
                self._begun = begun = time.monotonic()
                await self._transact(self._member)
                self._under_way, self._begun = [], None
                self._bell.ring()
                if self._pace and self._queue:
                    await asyncio.sleep((time.monotonic() - begun) * (self._pace - 1))
        finally:
            self._closed = True
            for commit in [*self._under_way, *self._queue]:
                commit.failed(_lost(commit.lane))

    @property
    def busy_s(self) -> float:
        """For how long the transaction under way is being made, or its outcome found out; 0 where there is none."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def is_open(self) -> bool:
        """Whether a transaction may be open."""
        return self._bound is not None

    def _take(self) -> list[Commit]:
        taken: list[Commit] = []
        weight = size = 0
        while self._queue:
            commit = self._queue[0]
            weight += commit.weight
            size += commit.size
            if taken and (commit.alone or taken[0].alone or weight > self._most or size > MOST_BYTES):
                break
            taken.append(self._queue.popleft())
        return taken

    async def _transact(self, member: Member) -> None:
        outputs: dict[TopicPartition, list[Payload]] = defaultdict(list)
        offsets: dict[TopicPartition, tuple[int, str]] = {}
        for commit in self._under_way:
            for place, payload in commit.outputs:
                outputs[place].append(payload)
            changelog = commit.lane.changelog
            outputs[changelog] += [*payloads_of(commit.state), commit.row.payload()]
            offsets.update({place: (offset, "") for place, offset in commit.offsets.items()})
            signature = Signature(commit.row.stamp, self._producer.transactional_id, member.member_id)
            offsets[changelog] = (commit.lane.changelog_end, signature.text())
        try:
            async with asyncio.timeout(TRANSACTION_S) as self._bound:
                written = await self._producer.transact(outputs, GroupOffsets(self._group, member, offsets))
        except (KafkaError, Refused, TimeoutError) as error:
            self._bound = None
            await self._after(error)
            return
        self._bound = None
        self.transactions += 1
        for commit in self._under_way:
            place = commit.lane.changelog
            commit.happened(written[place] + len(outputs[place]))

    async def _after(self, error: KafkaError | Refused | TimeoutError) -> None:
        """Nobody knows what happened. Find out, commit by commit."""
        code = error.code if isinstance(error, Refused) else None
        log.log(
            logging.INFO if code in STALE_GENERATION | UNKNOWN_MEMBER else logging.WARNING,
            "a transaction of %s did not end well, it is looked up: %r",
            self._group,
            error,
        )
        if code in UNKNOWN_MEMBER:
            self._member = None
            self._expelled()
        elif code in STALE_GENERATION:
            self._member = None
            self._stale()
        elif code in FENCED:
            await asyncio.sleep(self._fenced_s)
        await self.settle_producer()
        unsure = [commit for commit in self._under_way if not commit.lane.lost]
        signatures = await self._signatures([commit.lane.partition for commit in unsure]) if unsure else dict[int, Signature]()
        for commit in reversed(self._under_way):
            if commit.lane.lost:
                commit.failed(_lost(commit.lane))
                continue
            found = signatures.get(commit.lane.partition, Signature())
            if (found.stamp, found.producer) == (commit.row.stamp, self._producer.transactional_id):
                commit.happened(commit.lane.changelog_end)
            elif found.stamp not in (commit.before, ""):
                commit.lane.lose()
                commit.failed(_lost(commit.lane))
            else:
                refusal = _refusal(commit, error)
                if refusal is not None and len(self._under_way) == 1:
                    commit.failed(refusal)
                else:
                    commit.alone = refusal is not None
                    self._queue.appendleft(commit)

    async def settle_producer(self) -> None:
        """Initialise the producer, for as long as it takes: then its last transaction is decided."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(2 * TRANSACTION_S):
                    await self._producer.initialise()
            except (KafkaError, Refused, TimeoutError) as error:
                if isinstance(error, Refused) and error.code not in PASSING | FENCED:
                    raise translated(error, f"the transactional id {self._producer.transactional_id}") from error
                log.warning("transactions of %s wait for a broker: %r", self._group, error)
                await asyncio.sleep(pause_s)
                pause_s = min(_MOST_PAUSE_S, pause_s * 2)
            else:
                return


def _lost(lane: Committing) -> LaneLost:
    return LaneLost(f"lane {lane.partition} has another owner, or may have: drop what is not committed")


def _refusal(commit: Commit, error: Exception) -> BusError | ConfigurationError | None:
    """What to tell the lane whose outputs a broker refuses; None where the same commit may be tried again."""
    if not isinstance(error, Refused):
        return None
    topics = {place.topic for place, _ in commit.outputs} | {commit.lane.changelog.topic}
    if error.topic is not None and error.topic not in topics:
        return None
    if error.code in TOO_LARGE:
        return RecordTooLarge(f"{error}: raise max.message.bytes of the topic, or send a reference instead")
    if error.code == UNKNOWN_TOPIC:
        return UnknownTopic(f"{error}: topic {error.topic!r} does not exist any more; see `pavane topics diff`")
    if error.code in PASSING | STALE_GENERATION | UNKNOWN_MEMBER | FENCED:
        return None
    return translated(error, "a commit")
