"""The bus: one port, and the contract that every adapter keeps (``tests/conformance`` holds them to it).

A *lane* is partition p of every topic that one group reads: ordered input, private keyed state, and one atomic
operation: these inputs are done, these outputs are published, this state is changed, all or nothing.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from pavane_events.record import Message, Record

MAX_RECORD_BYTES: Final = 1_000_000
"""The default size limit of one record: key, value and headers together, as Kafka's ``max.message.bytes``."""

Start = Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be created. Every topic of a deployment has the bus's partition count.

    ``compacted``: of each key only the latest record is promised to stay; a null value deletes the key.
    """

    name: str
    compacted: bool = False


class LaneState(Protocol):
    """The private keyed state of a lane, as of its last commit. Reading is synchronous and local: microseconds.

    Only :meth:`Lane.commit` changes it. While a commit is under way, reads may show it or not.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order, as of this call."""
        ...


class Lane(Protocol):
    """Partition ``partition`` of the group's topics, held by this process alone until it is lost.

    Concurrency: one task receives, one commits, any may read state; ``commit`` is never called twice at once.
    Atomicity and fencing: a commit happens whole or not at all, and only if this lane is still the holder: every
    commit, with or without inputs done, checks the lane's token and commit number and raises the number by one.
    After :class:`LaneLost` no further call succeeds (state included), and another owner may already be at work. The
    commit that raised it happened whole or never will: where a connection broke in the middle of it, only the next
    holder can tell, by the commit number, offsets and state it finds. So drop everything that hangs on it.
    """

    @property
    def group(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def commit_number(self) -> int:
        """How many commits this lane has seen since it exists, over all owners."""
        ...

    @property
    def committed(self) -> Mapping[str, int]:
        """By topic, the offset before which every input is done, as of the last commit.

        A topic the lane never committed is there too, with the offset at which the lane begins to read it.
        """
        ...

    @property
    def positions(self) -> Mapping[str, int]:
        """By topic, the offset before which every record was returned by :meth:`receive`. Never below ``committed``."""
        ...

    @property
    def state(self) -> LaneState: ...

    @property
    def lost(self) -> bool:
        """Whether the lane is known to be lost (it may be lost without this process knowing yet)."""
        ...

    async def receive(self, maximum: int, timeout_s: float) -> Sequence[Record]:
        """The next records, at most ``maximum``, in order of offset within each topic; none if the time runs out.

        Returns as soon as there is one. Each record is returned once by one holder of the lane, and again by the next
        holder if its offset was not committed. Cancelling loses nothing. Raises :class:`LaneLost`.
        """
        ...

    async def commit(
        self,
        done: Mapping[str, int],
        outputs: Sequence[Message] = (),
        state: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        """All or nothing: inputs below ``done[topic]`` are done, outputs are published, state is changed (None: gone).

        Topics that ``done`` leaves out stay where they were; offsets never go back (a lower one is ignored); one above
        ``positions`` skips the records between. Outputs to one partition keep their order. On return everything is
        durable. Sizes and topics (those of ``done``, too) are checked before anything is written:
        :class:`RecordTooLarge`, :class:`UnknownTopic` leave the lane usable and nothing done.
        :class:`BusUnavailable` (full, read-only, unreachable): nothing was done, the same commit may be tried again.
        :class:`LaneLost`: see the class. Cancelling leaves it open whether the commit happened.
        """
        ...

    def pause(self, topics: Collection[str]) -> None:
        """Let :meth:`receive` return no record of these topics until they are resumed; all other topics go on.

        It holds from this call on, for a ``receive`` that waits now as well, and for records that the adapter has fetched
        and not returned yet: they are kept back, or dropped and read again, so that after :meth:`resume` each comes once
        and in order. ``positions`` of a paused topic stand still (but for a commit that skips records, as ever), its
        ``committed`` is moved by commits as ever, and ``high_watermarks`` goes on telling of it. What waits in paused
        topics, however much, costs a bounded amount of memory and never keeps records of other topics back.

        Idempotent, synchronous, local: no call to a server is awaited, nothing is stored, and the lane's next holder
        begins with nothing paused. A pause outlives a rebalance in which the lane stays. Naming a topic that the lane
        does not read has no effect. On a lane that is lost it does nothing.
        """
        ...

    def resume(self, topics: Collection[str]) -> None:
        """Receive these topics again, from where they stand: a ``receive`` that waits now wakes for them.

        Topics that are not paused are passed over. On a lane that is lost it does nothing.
        """
        ...

    async def high_watermarks(self) -> Mapping[str, int]:
        """By topic, an offset above every record that was published before this call. Compare with ``positions``."""
        ...


class Lanes(Protocol):
    """A group's membership: lanes come and go. Iterate to get each lane as it is granted; a lost one says so itself.

    Lanes are shared out between the members of a group, in this process or others, by partition number; no lane has
    two holders who can both commit. When a member leaves or dies, its lanes come to the others: at once if it left
    or its process died, after the lease (embedded) or session timeout (Kafka) if it merely stopped.
    """

    def __aiter__(self) -> AsyncIterator[Lane]: ...

    async def __anext__(self) -> Lane:
        """The next lane granted. Waits for ever; cancel it, or :meth:`close` (then StopAsyncIteration)."""
        ...

    async def subscribe(self, topics: Collection[str]) -> None:
        """Read further topics, too. Lanes that are held keep their place and go on; new topics join them.

        Raises :class:`UnknownTopic` if one does not exist; then none was added.
        """
        ...

    async def close(self) -> None:
        """Leave the group: every lane held is given up (it is ``lost``), uncommitted work is not done. Idempotent."""
        ...


class Bus(Protocol):
    """Topics, and groups that read them. Safe to use from any task of one event loop.

    ``async with`` closes it. Every failure of the bus is a :class:`~pavane_events.errors.BusError`.
    """

    @property
    def partitions(self) -> int:
        """How many partitions every topic of this deployment has."""
        ...

    @property
    def embedded(self) -> bool:
        """Whether the bus is one process's or one file's: agents create the topics they need, spans are kept on it."""
        ...

    @property
    def keeps_s(self) -> float | None:
        """How long topics keep their records, compacted ones aside; None: for ever."""
        ...

    async def create_topics(self, specs: Collection[TopicSpec]) -> None:
        """Create the topics that do not exist. Those that do are left as they are."""
        ...

    async def topics(self) -> Collection[str]:
        """The names of all topics."""
        ...

    async def publish(self, messages: Sequence[Message]) -> None:
        """Append messages from outside any lane: all or nothing, durable on return, in order per partition.

        Raises :class:`UnknownTopic` (also for a partition that its topic does not have), :class:`RecordTooLarge`.
        """
        ...

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> Lanes:
        """Join a group. ``start``: where a lane begins a topic of which the group has committed nothing yet; those among
        ``earliest`` with their first record in any case.

        With ``latest`` that place is taken when the lane is granted (or the topic subscribed), and is the lane's from
        then on: a later holder begins there too, even if nothing was committed in between. Raises
        :class:`UnknownTopic`.
        """
        ...

    def read(
        self,
        topic: str,
        *,
        partition: int | None = None,
        start: int = 0,
        end: int | None = None,
        key: bytes | None = None,
    ) -> AsyncIterator[Record]:
        """Look at a topic without a group: the records now in it, offsets ``start`` up to but not ``end``, then stop.

        In order within a partition. With ``key`` only that key's records. Sees committed records only. Raises
        :class:`UnknownTopic` at the first step.
        """
        ...

    async def table(self, topic: str) -> Mapping[bytes, Record]:
        """A compacted topic as a table: the latest record of each key that is not deleted."""
        ...

    async def close(self) -> None:
        """Give up every lane and let go of the bus. Idempotent. What was returned from is durable."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
