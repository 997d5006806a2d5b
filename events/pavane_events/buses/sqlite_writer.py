"""Writing the SQLite bus: group commit. Whatever the lanes of a process ask for at once is one transaction."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from pavane_events.buses.placing import Placing
from pavane_events.buses.sqlite_file import BusFile, Locked, Patience
from pavane_events.buses.sqlite_reader import Tail
from pavane_events.buses.sqlite_schema import LAST_ID, encode_headers
from pavane_events.errors import LaneLost
from pavane_events.partition import partition_of
from pavane_events.record import Message, Record

Placed = tuple[int, int, bytes | None]
"""Of a message: topic id, partition, encoded headers."""

_RECORD_CHUNKS = (64, 16, 4, 1)
_STATE_CHUNKS = (16, 4, 1)


class Committer(Protocol):
    """What the writer needs to know of the lane that commits."""

    @property
    def lost(self) -> bool: ...

    @property
    def row_id(self) -> int: ...

    @property
    def token(self) -> int: ...

    @property
    def commit_number(self) -> int: ...

    def offsets_after(self, done: Mapping[str, int]) -> dict[str, int]:
        """The offsets to be stored."""
        ...

    def committed_now(self, offsets: dict[str, int]) -> None:
        """The commit is in the file."""
        ...

    def lose(self) -> None:
        """Another owner holds the lane."""
        ...

    def loss(self) -> LaneLost:
        """The error that says so."""
        ...


@dataclass(slots=True, eq=False)
class Request:
    """One publish or commit, checked and encoded, on its way into the file."""

    messages: Sequence[Message]
    placed: Sequence[Placed]
    future: asyncio.Future[None]
    lane: Committer | None = None
    done: Mapping[str, int] = field(default_factory=dict[str, int])
    state: Mapping[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])


@dataclass(slots=True)
class _Flush:
    """What one transaction did; told to the world once it is in the file."""

    now_ms: int
    first_id: int
    written: list[Request] = field(default_factory=list[Request])
    lost: list[Request] = field(default_factory=list[Request])
    offsets: list[dict[str, int]] = field(default_factory=list[dict[str, int]])


class Writer:
    """Queues requests and flushes them together, in the order they came, one flush at a time."""

    def __init__(
        self, file: BusFile, tail: Tail, max_record_bytes: int, clock: Callable[[], float], on_lost: Callable[[], None]
    ) -> None:
        self._file = file
        self._tail = tail
        self._placing = Placing(file.partitions, max_record_bytes)
        self._max_record_bytes = max_record_bytes
        self._clock = clock
        self._on_lost = on_lost
        self._queue: list[Request] = []
        self._timer: asyncio.Handle | None = None
        self._patience: Patience | None = None

    def place(self, messages: Sequence[Message]) -> list[Placed]:
        """Check messages, find their places, encode their headers: everything that may fail for the caller's sake."""
        topics = self._tail.topics
        partitions = self._file.partitions
        limit = self._max_record_bytes
        placed: list[Placed] = []
        for message in messages:
            topic = topics.ids.get(message.topic) or topics.id(message.topic)
            headers = encode_headers(message.headers)
            # the encoding is no shorter than what it encodes: most messages need no exact count
            if len(message.key or b"") + len(message.value or b"") + len(headers or b"") > limit:
                self._placing.check_size(message)
            if message.partition is None and message.key is not None:
                partition = partition_of(message.key, partitions)
            else:
                partition = self._placing.partition(message)
            placed.append((topic, partition, headers))
        return placed

    async def submit(self, request: Request) -> None:
        """Write a request with the next flush, and wait until it is in the file."""
        self._file.check_open()
        self._queue.append(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._flush)
        await request.future

    async def drain(self) -> None:
        """Wait until nothing is queued."""
        while self._queue:
            await asyncio.wait([request.future for request in self._queue])

    def _flush(self) -> None:
        """Write everything that is queued; without the lock, try again soon."""
        self._timer = None
        requests = [request for request in self._queue if not request.future.done()]  # cancelled: never happened
        self._queue.clear()
        if not requests:
            return
        try:
            self._file.begin()
        except Locked:
            self._wait(requests)
            return
        except Exception as error:
            _fail(requests, error)
            return
        self._patience = None
        try:
            flush = self._write(requests)
            self._file.end()
        except BaseException as error:
            self._file.abandon()
            if not isinstance(error, Exception):
                raise
            _fail(requests, self._file.explain_any(error))
            return
        self._tell(flush)

    def _wait(self, requests: list[Request]) -> None:
        if self._patience is None:
            self._patience = Patience(self._file.busy_timeout_s)
        if self._patience.left():
            self._queue[:0] = requests
            self._timer = asyncio.get_running_loop().call_later(self._patience.pause_s(), self._flush)
        else:
            self._patience = None
            _fail(requests, self._file.locked())

    def _write(self, requests: Sequence[Request]) -> _Flush:
        """Everything of one transaction, between begin and commit."""
        execute = self._file.connection.execute
        ((last_id, _),) = execute(LAST_ID).fetchall()
        now_ms = int(self._clock() * 1000)
        flush = _Flush(now_ms, last_id + 1)
        rows: list[tuple[object, ...]] = []
        state: list[tuple[object, ...]] = []
        gone: list[tuple[int, bytes]] = []
        for request in requests:
            lane = request.lane
            if lane is not None:
                if not self._fence(lane, request.done, flush):
                    flush.lost.append(request)
                    continue
                row_id = lane.row_id
                for key, value in request.state.items():
                    if value is None:
                        gone.append((row_id, key))
                    else:
                        state.append((row_id, key, value))
            flush.written.append(request)
            for message, (topic, partition, headers) in zip(request.messages, request.placed, strict=True):
                last_id += 1
                rows.append((last_id, topic, partition, now_ms, message.key, message.value, headers))
        if rows:
            self._insert(_RECORDS, rows)
        if state:
            self._insert(_STATE, state)
        for pair in gone:
            execute("DELETE FROM state WHERE lane = ? AND key = ?", pair)
        return flush

    def _fence(self, lane: Committer, done: Mapping[str, int], flush: _Flush) -> bool:
        """Raise the lane's commit number if this process holds it still. Part of every commit, empty ones too."""
        if lane.lost:
            return False
        offsets = lane.offsets_after(done)
        cursor = self._file.connection.execute(
            "UPDATE lanes SET number = number + 1, offsets = ? WHERE id = ? AND token = ? AND number = ?",
            (_dumps(offsets), lane.row_id, lane.token, lane.commit_number),
        )
        if cursor.rowcount != 1:
            return False
        flush.offsets.append(offsets)
        return True

    def _insert(self, statements: Sequence[tuple[int, str]], rows: Sequence[tuple[object, ...]]) -> None:
        """Many rows per statement: the interpreter lock is given up once per step, so few steps are fast steps."""
        execute = self._file.connection.execute
        place, left = 0, len(rows)
        for size, sql in statements:
            while left >= size:
                execute(sql, list(chain.from_iterable(rows[place : place + size])))
                place += size
                left -= size

    def _tell(self, flush: _Flush) -> None:
        """The transaction is in the file: answer everybody, and hand the new records to the lanes of this process."""
        committed = iter(flush.offsets)
        for request in flush.written:
            if request.lane is not None:
                request.lane.committed_now(next(committed))
            if not request.future.done():
                request.future.set_result(None)
        for request in flush.lost:
            if request.lane is not None:
                request.lane.lose()
                if not request.future.done():
                    request.future.set_exception(request.lane.loss())
        if flush.lost:
            self._on_lost()
        self._dispatch(flush)

    def _dispatch(self, flush: _Flush) -> None:
        tail = self._tail
        tail.catch_up(flush.first_id - 1)
        records: list[Record] = []
        number = flush.first_id
        for request in flush.written:
            for message, (_, partition, _) in zip(request.messages, request.placed, strict=True):
                if tail.hears(message.topic, partition):
                    records.append(
                        Record(
                            message.topic,
                            partition,
                            number,
                            message.key,
                            message.value,
                            tuple(message.headers),
                            flush.now_ms,
                            message.parsed,
                        )
                    )
                number += 1
        tail.offer(records, number - 1)


def _fail(requests: Sequence[Request], error: Exception) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(copy(error))  # each caller its own: a traceback belongs to one


def _statements(sizes: Sequence[int], head: str, row: str, tail: str = "") -> list[tuple[int, str]]:
    return [(size, f"{head} VALUES {','.join([row] * size)}{tail}") for size in sizes]


_RECORDS = _statements(
    _RECORD_CHUNKS,
    "INSERT INTO records (id, topic, partition, ts_ms, key, value, headers)",
    "(?,?,?,?,?,?,?)",
)
_STATE = _statements(
    _STATE_CHUNKS,
    "INSERT INTO state (lane, key, value)",
    "(?,?,?)",
    " ON CONFLICT (lane, key) DO UPDATE SET value = excluded.value",
)
_dumps = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
