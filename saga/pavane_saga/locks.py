"""Locks: which saga holds what, who waits for it, and who waits in a circle. The rows of one lane, and what follows of each
record. No I/O.

A key's lane is where murmur2 of the key puts it. Its queue is a row of lane state: the first saga in it holds the key, the
others wait, in order. Everything is asked for and answered by records in commits, so no crash leaks a lock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

from pavane_events.bus import Bus
from pavane_events.compact import read_json, write_json
from pavane_events.envelope import NO_TRACE, Envelope, Trace, parse
from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.ids import uuid7
from pavane_events.record import Message
from pavane_saga.facts import Blocked, Fact, Locked, LockRefused, Path
from pavane_saga.wire import COORDINATOR, LOCKS, timestamp, under
from pavane_tracing.work import Work

LOCK = "pavane.lock"
Verb = Literal["acquire", "release", "probe", "check"]
_VERBS: tuple[Verb, ...] = ("acquire", "release", "probe", "check")
_LONGEST_PATH = 64


@dataclass(frozen=True, slots=True)
class LockOrder:
    """What a saga asks of a key's lane.

    ``acquire``: to have it, or (``refuse``) to be told at once that another has it. ``release``: it has ended. ``probe``:
    whoever waits along ``path`` waits for this key's holder, too. ``check``: it holds this key and waits for another.
    """

    verb: Verb
    key: str
    saga: str
    refuse: bool = False
    path: Path = ()

    def envelope(self, time_s: float) -> Envelope:
        """The order as an event, to be keyed by the key."""
        data = write_json({name: getattr(self, name) for name in self.__slots__})
        return Envelope(id=uuid7(), source=f"/{COORDINATOR}", type=LOCK, data=data, time=timestamp(time_s))


def order_message(order: LockOrder, work: Work, time_s: float) -> Message:
    """The order for the key's lane, under the trace of that work."""
    envelope = order.envelope(time_s)
    trace = work.send(LOCKS, envelope.id, envelope.type, size=len(envelope.data), edge="lock")
    return under(envelope, trace).to_message(LOCKS, key=order.key)


def read_order(envelope: Envelope) -> LockOrder:
    """What :meth:`LockOrder.envelope` wrote. Raises :class:`UndecodableRecord`."""
    try:
        members = cast("dict[str, object]", read_json(envelope.data))
        verb = members["verb"]
        if envelope.type != LOCK or verb not in _VERBS:
            raise ValueError("no such verb")
        path = cast("list[list[str]]", members.get("path", []))
        order = LockOrder(
            verb,
            str(members["key"]),
            str(members["saga"]),
            members.get("refuse") is True,
            tuple((str(saga), str(key)) for saga, key in path),
        )
        "".join((order.key, order.saga)).encode()
        return order
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UndecodableRecord("no lock order", [Problem("data", "lock", f"not an order: {type(error).__name__}")]) from None


class LockBook:
    """The queues of one lane. ``read`` and ``write`` are the lane's state, with what is not committed yet."""

    def __init__(self, read: Callable[[bytes], bytes | None], write: Callable[[bytes, bytes | None], None]) -> None:
        self._read = read
        self._write = write

    def follow(self, order: LockOrder, trace: Trace = NO_TRACE) -> Iterator[tuple[str, Fact]]:
        """Do it; what is to be told to whom: a saga's id and a fact. ``trace``: under which the order came."""
        rows = self._rows(order.key)
        queue = [saga for saga, _ in rows]
        holder = queue[0] if queue else None
        if order.verb == "acquire":
            if order.saga not in queue and not (order.refuse and queue):
                self._keep(order.key, [*rows, (order.saga, _written(trace))])
            if holder in (None, order.saga):
                yield order.saga, Locked(order.key)
            elif order.refuse:
                yield order.saga, LockRefused(order.key, holder or "")
            else:
                yield holder or "", Blocked(((order.saga, order.key),))
        elif order.verb == "release":
            self._keep(order.key, [each for each in rows if each[0] != order.saga])
            if holder == order.saga and len(queue) > 1:
                yield queue[1], Locked(order.key)
        elif order.verb == "check":
            if holder == order.saga:
                for waiter in queue[1:]:
                    yield order.saga, Blocked(((waiter, order.key),))
        elif holder is not None and 0 < len(order.path) < _LONGEST_PATH and order.path[-1][0] in queue[1:]:
            yield _probed(order.path, holder)

    def queue(self, key: str) -> list[str]:
        """The saga that holds a key, then those that wait for it."""
        return [saga for saga, _ in self._rows(key)]

    def trace_of(self, key: str, saga: str) -> Trace:
        """Under which trace that saga asked for the key, and what is left of that trace's budget."""
        traceparent, _, tracestate = (dict(self._rows(key)).get(saga) or "").partition(" ")
        return Trace(traceparent or None, tracestate or None)

    def _rows(self, key: str) -> list[tuple[str, str | None]]:
        row = self._read(_row(key))
        stored = cast("list[list[str | None]]", read_json(row)) if row is not None else []
        return [(saga or "", trace) for saga, trace in stored]

    def _keep(self, key: str, rows: list[tuple[str, str | None]]) -> None:
        self._write(_row(key), write_json(rows) if rows else None)


@dataclass(frozen=True, slots=True)
class Held:
    """A lock, the saga that holds it, and those that wait for it, in order."""

    lock: str
    holder: str
    waiting: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def list_locks(bus: Bus) -> list[Held]:
    """The locks that are held now, by name: the orders on the topic, followed anew. Raises :class:`BusError`."""
    rows: dict[bytes, bytes] = {}

    def write(key: bytes, row: bytes | None) -> None:
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row

    book = LockBook(rows.get, write)
    keys: set[str] = set()
    if LOCKS in await bus.topics():
        async for record in bus.read(LOCKS):
            try:
                order = read_order(parse(record))
            except UndecodableRecord:
                continue
            keys.add(order.key)
            for _ in book.follow(order):
                pass
    found = [(key, book.queue(key)) for key in sorted(keys)]
    return [Held(key, queue[0], tuple(queue[1:])) for key, queue in found if queue]


def _probed(path: Path, holder: str) -> tuple[str, Fact]:
    """The last of the path waits for that holder. If he is on the path, it is a circle: one of it is told, who is to fail."""
    sagas = [saga for saga, _ in path]
    if holder not in sagas:
        return holder, Blocked(path)
    circle = path[sagas.index(holder) :]
    return max(saga for saga, _ in circle), Blocked(circle)


def told(path: Path) -> str:
    """A circle, readably."""
    others = [*(saga for saga, _ in path[1:]), path[0][0]]
    waits = (f"{saga} waits for {key!r}, held by {other}" for (saga, key), other in zip(path, others, strict=True))
    return "; ".join(waits)[:2000]


def _written(trace: Trace) -> str | None:
    return f"{trace.traceparent} {trace.tracestate}" if trace.traceparent and trace.tracestate else trace.traceparent


def _row(key: str) -> bytes:
    return b"k/" + key.encode()
