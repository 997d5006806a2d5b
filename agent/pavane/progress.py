"""Progress: which inputs of a lane are done, topic by topic, while many are worked on at once."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

PREFIX: Final = b"f/"


class Progress:
    """Counts off units of work (input, step) and says how far a lane has come.

    A topic's offset moves past an input when every unit of it and of all inputs before it is finished. Units finished
    beyond that are remembered by (topic, offset, step) in lane state, so that the next holder does not repeat them, with
    the number of the version that finished them.
    """

    def __init__(self, remembered: Iterable[tuple[bytes, bytes]] = (), number: int = 0) -> None:
        self._inputs: dict[str, deque[list[int]]] = {}
        self._outstanding: dict[tuple[str, int], list[int]] = {}
        self._next: dict[str, int] = {}
        self._highest: dict[str, int] = {}
        self._beyond: dict[tuple[str, int], set[str]] = {}
        rows = dict(remembered)
        self._stored: set[bytes] = set(rows)
        self._skip = {_unit_of(row) for row in self._stored}
        self._under: dict[tuple[str, int], int] = {}
        for row, value in rows.items():
            topic, offset, _ = _unit_of(row)
            finished = int(value or 0)  # rows of before do not say
            self._under[topic, offset] = min(finished, self._under.get((topic, offset), finished))
        self._number = str(number).encode()
        self.unsettled_bytes = 0
        """What the inputs of :attr:`unsettled` hold."""

    @property
    def unsettled(self) -> int:
        """How many inputs are not finished, or finished behind one that is not."""
        return sum(map(len, self._inputs.values()))

    @property
    def remembers(self) -> bool:
        """Whether an earlier holder of the lane finished any unit beyond its offsets that has not come by yet."""
        return bool(self._skip)

    def finished_before(self, topic: str, offset: int, step: str) -> bool:
        """Whether an earlier holder of the lane finished that unit."""
        return bool(self._skip) and (topic, offset, step) in self._skip

    def finished_under(self, topic: str, offset: int) -> int | None:
        """The number of the first version that finished a unit of that input; None where none did."""
        return self._under.get((topic, offset))

    def is_new(self, topic: str, offset: int) -> bool:
        """Whether an input was not admitted before: a bus that delivers one twice to the same holder does no harm."""
        return offset > self._highest.get(topic, -1)

    def admit(self, topic: str, offset: int, units: int, size: int = 0) -> None:
        """An input of so many bytes begins, with so many units; with none it is finished at once."""
        self._highest[topic] = offset
        self.unsettled_bytes += size
        entry = [offset, units, size]
        self._inputs.setdefault(topic, deque()).append(entry)
        if units:
            self._outstanding[topic, offset] = entry
        else:
            self._advance(topic)

    def finish(self, topic: str, offset: int, step: str) -> None:
        """One unit of an input is finished."""
        entry = self._outstanding[topic, offset]
        entry[1] -= 1
        if entry[1] == 0:
            del self._outstanding[topic, offset]
        if self._inputs[topic][0] is entry and entry[1] == 0:
            self._advance(topic)
        else:
            self._beyond.setdefault((topic, offset), set()).add(step)

    def take(self) -> tuple[Mapping[str, int], dict[bytes, bytes | None]]:
        """For the commit to come: how far each topic is done, and what changes in the lane's memory of units beyond."""
        done, self._next = self._next, {}
        rows = {_row(topic, offset, step) for (topic, offset), steps in self._beyond.items() for step in steps}
        kept = {row for row in self._stored if _unit_of(row) in self._skip}
        changes: dict[bytes, bytes | None] = dict.fromkeys(rows - self._stored, self._number)
        changes.update(dict.fromkeys(self._stored - rows - kept))
        self._stored = rows | kept
        return done, changes

    def _advance(self, topic: str) -> None:
        inputs = self._inputs[topic]
        while inputs and inputs[0][1] == 0:
            offset, _, size = inputs.popleft()
            self.unsettled_bytes -= size
            self._next[topic] = offset + 1
            self._beyond.pop((topic, offset), None)
        if self._skip and topic in self._next:
            self._skip = {unit for unit in self._skip if unit[0] != topic or unit[1] >= self._next[topic]}


def _row(topic: str, offset: int, step: str) -> bytes:
    return b"%s%s/%d/%s" % (PREFIX, topic.encode(), offset, step.encode())


def _unit_of(row: bytes) -> tuple[str, int, str]:
    topic, offset, step = row[len(PREFIX) :].decode().split("/", 2)
    return topic, int(offset), step
