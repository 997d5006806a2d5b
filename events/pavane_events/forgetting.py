"""Forgetting: rows of lane state about sagas of which the topics hold nothing any more go, too, a few with each commit."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

_PAUSE_S: Final = 1.0
_SLICES: Final = 0x10000
_PATIENCE: Final = 2.0
"""Rows are kept so many times as long as records: brokers drop whole segments, and later than they might."""


class Rows(Protocol):
    """What may be forgotten of."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins so."""
        ...


class Forgetting:
    """Says which rows may go: those that were written so long ago that no record can ask for them.

    ``written_ms``: by the prefix of keys, behind which a saga's id begins, what says when a row was written, in
    milliseconds since the epoch, or None where it stays. ``keeps_s``: how long topics keep records; None: for ever, and
    so are rows. Once a second one 65,536th of all sagas is looked at, that of ids which begin with the same four digits:
    ids are spread evenly, and all have had their turn after eighteen hours. An id of another form stays.
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
        self._next_s = 0.0

    def due(self) -> dict[bytes, bytes | None]:
        """The rows that go with the next commit: an empty dictionary, mostly."""
        going: dict[bytes, bytes | None] = {}
        if self._keeps_s is None:
            return going
        now_s = self._clock()
        if now_s < self._next_s:
            return going
        self._next_s = now_s + _PAUSE_S
        before_ms = (now_s - _PATIENCE * self._keeps_s) * 1000
        digits = b"%04x" % (int(now_s) % _SLICES)
        for prefix, written_ms in self._written_ms.items():
            for key, row in self._rows.scan(prefix + digits):
                written = written_ms(row)
                if written is not None and written < before_ms:
                    going[key] = None
        return going
