"""Forgetting: rows of lane state about sagas of which the topics hold nothing any more go, too, a few with each commit."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol

_PAUSE_S: Final = 1.0
_SLICES: Final = 0x10000
_PATIENCE: Final = 2.0
"""Rows are kept so many times as long as records: brokers drop whole segments, and later than they might."""

_MOST_ROWS: Final = 1_000
"""Of one kind, looked at with one commit."""

_MOST_SLICES: Final = 16
"""Looked at with one commit, where the last one was long ago."""


class Rows(Protocol):
    """What may be forgotten of."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins so."""
        ...


class Forgetting:
    """Says which rows may go: those that were written so long ago that no record can ask for them.

    ``written_ms``: by the prefix of keys, behind which a saga's id begins, what says when a row was written, in
    milliseconds since the epoch, or None where it stays. ``keeps_s``: how long topics keep records; None: for ever, and
    so are rows. For each second one 65,536th of all sagas is looked at, that of ids which begin with the same four digits:
    ids that are derived are spread evenly, and all have had their turn after eighteen hours. Ids of version 7 begin with the
    time: they have theirs together, the oldest first, a thousand with each commit for as long as some of these go. An id of
    another form stays.
    """

    def __init__(
        self,
        rows: Rows,
        written_ms: Mapping[bytes, Callable[[bytes], int | None]],
        keeps_s: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._written_ms = written_ms
        self._keeps_s = keeps_s
        self._clock = clock
        self._next_s: float | None = None
        self._slice = 0

    def due(self) -> dict[bytes, bytes | None]:
        """The rows that go with the next commit: an empty dictionary, mostly."""
        going: dict[bytes, bytes | None] = {}
        if self._keeps_s is None:
            return going
        now_s = self._clock()
        slices = 1
        if self._next_s is None:
            self._slice = int(now_s) % _SLICES
        elif now_s < self._next_s:
            return going
        else:
            slices = min(_MOST_SLICES, 1 + int(now_s - self._next_s))
        self._next_s = now_s + _PAUSE_S
        before_ms = (now_s - _PATIENCE * self._keeps_s) * 1000
        for _ in range(slices):
            if not self._look(before_ms, going):
                break
            self._slice = (self._slice + 1) % _SLICES
        return going

    def _look(self, before_ms: float, going: dict[bytes, bytes | None]) -> bool:
        """Look at one slice. Whether that was all of it that is worth a look now."""
        digits = b"%04x" % self._slice
        is_all = True
        for prefix, written_ms in self._written_ms.items():
            looked, before = 0, len(going)
            for key, row in islice(self._rows.scan(prefix + digits), _MOST_ROWS):
                looked += 1
                written = written_ms(row)
                if written is not None and written < before_ms:
                    going[key] = None
            is_all = is_all and (looked < _MOST_ROWS or len(going) == before)
        return is_all
