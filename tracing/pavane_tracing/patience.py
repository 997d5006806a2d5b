"""Patience with a request that is not taken: without end in an outage, bounded with one that alone is not while others are."""

import time

_LONGEST_PAUSE_S = 30.0
_MOST_ALONE = 10
"""Over about three minutes: one poisonous body costs the others next to nothing, and a proxy that fails every other time
loses one request in a thousand."""


class Patience:
    """With one request, of one thread.

    ``due`` is when it may be sent again, on the monotonic clock; ``since_ns`` when it was put off last, by the wall clock, 0
    where it never was.
    """

    __slots__ = ("_alone", "_taken", "due", "since_ns")

    def __init__(self) -> None:
        self.due = 0.0
        self.since_ns = 0
        self._alone = 0
        self._taken: int | None = None

    def put_off(self, taken: int, first_pause_s: float) -> bool:
        """It was not taken, where ``taken`` others have been in all. Whether it may be tried again.

        It counts against the request only where others were taken since its last try: in an outage none is.
        """
        if self._taken is not None and taken > self._taken:
            self._alone += 1
        self._taken = taken
        self.due = time.monotonic() + min(_LONGEST_PAUSE_S, first_pause_s * 2**self._alone)
        self.since_ns = time.time_ns()
        return self._alone < _MOST_ALONE
