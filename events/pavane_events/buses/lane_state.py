"""The state of a lane as its holder sees it: for as long as the lane is held."""

from collections.abc import Callable, Iterator

from pavane_events.bus import LaneState


class StateOfLane:
    """See :class:`~pavane_events.bus.LaneState`. ``check`` raises LaneLost where the lane is held no more."""

    def __init__(self, check: Callable[[], None], state: LaneState) -> None:
        self._check = check
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        self._check()
        return self._state.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order, as of this call."""
        self._check()
        return self._state.scan(prefix)
