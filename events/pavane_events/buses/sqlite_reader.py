"""Reading the SQLite bus: the tail that follows the file for the whole process, and the inbox of each lane.

Every record of a process's own commits goes straight to the inboxes, as one object for all of them. What other
processes wrote is read from the file first, so that an inbox always grows in order of offset.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from heapq import merge

from pavane_events.buses.placing import unknown_topic
from pavane_events.buses.sqlite_file import BusFile, Row
from pavane_events.buses.sqlite_schema import LAST_ID, decode_headers
from pavane_events.buses.waiting import Bell
from pavane_events.errors import BusError
from pavane_events.record import Record

INBOX_LIMIT = 2048
"""An inbox that is longer falls behind: it hears no live records until it has caught up from the file."""

PAGE = 256
GAP_LIMIT = 2000
"""When other processes have written more than this since we looked, every inbox catches up by itself."""

_COLUMNS = "id, topic, partition, key, value, headers, ts_ms"


class Topics:
    """Topic names and their numbers in the file. Topics are never deleted, so what is known stays true."""

    def __init__(self, file: BusFile) -> None:
        self._file = file
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}

    def load(self) -> None:
        """Read what other processes have created."""
        for number, name in self._file.select("SELECT id, name FROM topics"):
            self.ids[name] = number
            self.names[number] = name

    def id(self, name: str) -> int:
        """The number of a topic. Raises UnknownTopic."""
        number = self.ids.get(name)
        if number is None:
            self.load()
            number = self.ids.get(name)
            if number is None:
                raise unknown_topic(name)
        return number

    def name(self, number: int) -> str:
        """The name of a topic that a record names."""
        if number not in self.names:
            self.load()
        return self.names[number]


class Tail:
    """Follows the file: ``dispatched`` is the id up to which every record was offered to the live inboxes."""

    def __init__(self, file: BusFile, topics: Topics) -> None:
        self.file = file
        self.topics = topics
        self.dispatched = self.last_id()
        self._live: dict[tuple[str, int], list[Inbox]] = {}

    def last_id(self) -> int:
        """The last id given, by whatever process."""
        return int(self.file.select(LAST_ID)[0][0])

    def hears(self, topic: str, partition: int) -> bool:
        """Whether any live inbox wants the records of a partition."""
        return (topic, partition) in self._live

    def attach(self, inbox: "Inbox") -> None:
        """Offer an inbox what comes after ``dispatched``."""
        for topic in inbox.topics:
            self._live.setdefault((topic, inbox.partition), []).append(inbox)

    def detach(self, inbox: "Inbox") -> None:
        """Offer an inbox nothing any more."""
        for topic in inbox.topics:
            inboxes = self._live.get((topic, inbox.partition), [])
            if inbox in inboxes:
                inboxes.remove(inbox)
                if not inboxes:
                    del self._live[topic, inbox.partition]

    def catch_up(self, last_id: int) -> None:
        """Offer what other processes wrote, up to an id that is in the file."""
        if last_id <= self.dispatched:
            return
        if last_id - self.dispatched > GAP_LIMIT or not self._live:
            self._all_behind(last_id)
            return
        try:
            rows = self.file.select(
                f"SELECT {_COLUMNS} FROM records WHERE id > ? AND id <= ? ORDER BY id", (self.dispatched, last_id)
            )
        except BusError:
            self._all_behind(last_id)  # nothing is lost: each inbox reads for itself, and says so if it cannot
            return
        wanted = self.topics
        self.offer([record_of(row, name) for row in rows if self.hears(name := wanted.name(row[1]), row[2])], last_id)

    def offer(self, records: Sequence[Record], last_id: int) -> None:
        """Give records to the live inboxes; with them, everything up to ``last_id`` has been offered."""
        touched: dict[int, Inbox] = {}
        live = self._live
        for record in records:
            for inbox in live.get((record.topic, record.partition), ()):
                inbox.queue.append(record)
                touched[id(inbox)] = inbox
        self.dispatched = last_id
        for inbox in touched.values():
            if len(inbox.queue) > INBOX_LIMIT:
                inbox.fall_behind()
            inbox.bell.ring()

    def _all_behind(self, last_id: int) -> None:
        inboxes = {id(inbox): inbox for inboxes in self._live.values() for inbox in inboxes}
        for inbox in inboxes.values():
            inbox.fall_behind()  # it reads on from what was dispatched so far: nothing of the gap is in its queue
        self.dispatched = last_id
        for inbox in inboxes.values():
            inbox.bell.ring()


class Inbox:
    """What one lane is to receive: a queue that is fed live, or from the file page by page while it is behind."""

    def __init__(self, tail: Tail, partition: int) -> None:
        self.partition = partition
        self.queue: deque[Record] = deque()
        self.bell = Bell()
        self.positions: dict[str, int] = {}
        self._tail = tail
        self._unread: dict[str, int] = {}
        self._paused: set[str] = set()
        self._live = False

    @property
    def topics(self) -> Collection[str]:
        """The topics it reads now."""
        return self._unread.keys()

    def begin(self, starts: dict[str, int]) -> None:
        """Read further topics from the offsets given."""
        if self._live:
            self.fall_behind()
        self._unread.update(starts)
        self.positions.update(starts)
        self.bell.ring()

    def take(self, maximum: int) -> Sequence[Record]:
        """The next records, at most so many; empty if there is nothing now."""
        queue = self.queue
        while not queue and not self._live:
            self._read_page()
        if len(queue) <= maximum:
            records = list(queue)
            queue.clear()
        else:
            records = [queue.popleft() for _ in range(maximum)]
        positions = self.positions
        for record in records:
            positions[record.topic] = record.offset + 1
        return records

    def skip(self, topic: str, offset: int) -> None:
        """Do not return records of a topic below an offset: they were committed unseen."""
        if topic in self.positions and offset > self.positions[topic]:
            self.positions[topic] = offset
            if topic in self._unread:
                self._unread[topic] = max(offset, self._unread[topic])
                self._keep(lambda record: record.topic != topic or record.offset >= offset)

    def pause(self, topics: Collection[str]) -> None:
        """Read nothing of these topics: what the queue holds of them is dropped, and read again after :meth:`resume`."""
        pausing = self._unread.keys() & set(topics)
        if not pausing:
            return
        if self._live:
            self.fall_behind()
        for topic in pausing:
            del self._unread[topic]
        self._paused |= pausing
        self._keep(lambda record: record.topic not in pausing)

    def resume(self, topics: Collection[str]) -> None:
        """Read these topics again, from where the lane stands in them."""
        resuming = self._paused & set(topics)
        if resuming:
            self._paused -= resuming
            self.begin({topic: self.positions[topic] for topic in resuming})

    def fall_behind(self) -> None:
        """Stop being fed live; what the queue does not hold is read from the file later."""
        self._tail.detach(self)
        self._live = False
        following = self._tail.dispatched + 1
        for topic, unread in self._unread.items():
            self._unread[topic] = max(unread, following)

    def close(self) -> None:
        """Forget everything."""
        self._tail.detach(self)
        self._live = True  # nothing is read any more
        self.queue.clear()
        self.bell.ring()

    def _keep(self, wanted: Callable[[Record], bool]) -> None:
        kept = [record for record in self.queue if wanted(record)]
        self.queue.clear()
        self.queue.extend(kept)

    def _read_page(self) -> None:
        """Queue the next page, over all topics in order of id; go live when the file holds no more."""
        tail = self._tail
        rows = self._rows(tail.dispatched)
        self.queue.extend([record_of(row, tail.topics.name(row[1])) for row in rows])
        if len(rows) < PAGE:
            tail.attach(self)
            self._live = True
            following = tail.dispatched + 1
        else:
            following = rows[-1][0] + 1
        for topic, unread in self._unread.items():
            self._unread[topic] = max(unread, following)

    def _rows(self, last_id: int) -> Sequence[Row]:
        """One walk along the index per topic, merged as SQLite goes: nothing is sorted, nothing is read twice."""
        if not self._unread:
            return ()
        part = (
            f"SELECT {_COLUMNS} FROM records INDEXED BY records_by_partition "
            "WHERE topic = ? AND partition = ? AND id >= ? AND id <= ?"
        )
        sql = " UNION ALL ".join([part] * len(self._unread)) + f" ORDER BY id LIMIT {PAGE}"
        parameters: list[int] = []
        for topic, unread in self._unread.items():
            parameters += (self._tail.topics.id(topic), self.partition, unread, last_id)
        return self._tail.file.select(sql, parameters)


def record_of(row: Row, topic: str) -> Record:
    """A record from its row."""
    number, _, partition, key, value, headers, ts_ms = row
    return Record(topic, partition, number, key, value, decode_headers(headers), ts_ms)


def browse(
    tail: Tail, topic: str, partitions: Collection[int], start: int, end: int | None, key: bytes | None
) -> Iterator[Record]:
    """The records now in a topic, in order of offset, page by page."""
    last_id = tail.last_id() if end is None else min(end - 1, tail.last_id())
    topic_id = tail.topics.id(topic)
    if key is not None:
        pages = _pages(tail, "records_by_key WHERE key = ? AND topic = ?", (key, topic_id), start, last_id)
        return (record_of(row, topic) for row in pages if row[2] in partitions)
    walks = [
        _pages(tail, "records_by_partition WHERE topic = ? AND partition = ?", (topic_id, partition), start, last_id)
        for partition in partitions
    ]
    return (record_of(row, topic) for row in merge(*walks, key=lambda row: row[0]))


def high_watermark(tail: Tail, topic: str, partition: int) -> int:
    """The offset just above the last record of a partition."""
    rows = tail.file.select(
        "SELECT id FROM records INDEXED BY records_by_partition WHERE topic = ? AND partition = ? ORDER BY id DESC LIMIT 1",
        (tail.topics.id(topic), partition),
    )
    return int(rows[0][0]) + 1 if rows else 0


def latest_by_key(tail: Tail, topic: str) -> Iterator[Record]:
    """The latest record of each key of a topic."""
    rows = tail.file.select(
        f"SELECT {_COLUMNS} FROM records WHERE id IN (SELECT max(id) FROM records "
        "INDEXED BY records_by_partition WHERE topic = ? AND key IS NOT NULL GROUP BY key)",
        (tail.topics.id(topic),),
    )
    return map(record_of, rows, [topic] * len(rows))


def _pages(tail: Tail, where: str, parameters: tuple[object, ...], start: int, last_id: int) -> Iterator[Row]:
    sql = f"SELECT {_COLUMNS} FROM records INDEXED BY {where} AND id >= ? AND id <= ? ORDER BY id LIMIT {PAGE}"
    while True:
        rows: Sequence[Row] = tail.file.select(sql, (*parameters, start, last_id))
        yield from rows
        if len(rows) < PAGE:
            return
        start = rows[-1][0] + 1
