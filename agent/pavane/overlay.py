"""Overlay: a lane's state as the work of this process sees it, with what is not committed yet."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from pavane_events.bus import LaneState


class Overlay:
    """The committed state, under the changes of a commit under way, under the changes of finished work.

    If a commit fails for good the lane is lost, and the overlay with it: there is nothing to roll back.
    """

    def __init__(self, state: LaneState) -> None:
        self._state = state
        self._under_way = _Layer()
        self._changes = _Layer()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        changes = self._changes.values
        if key in changes:
            return changes[key]
        under_way = self._under_way.values
        return under_way[key] if key in under_way else self._state.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order."""
        found: dict[bytes, bytes | None] = dict(self._state.scan(prefix))
        found.update(self._under_way.scan(prefix))
        found.update(self._changes.scan(prefix))
        for key in sorted(found):
            value = found[key]
            if value is not None:
                yield key, value

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Work has finished with these changes (None deletes)."""
        for key, value in changes.items():
            self._changes.put(key, value)

    def begin_commit(self) -> dict[bytes, bytes | None]:
        """The changes for the commit to come; they stay visible."""
        self._under_way, self._changes = self._changes, _Layer()
        return self._under_way.values

    def end_commit(self) -> None:
        """The commit has happened."""
        self._under_way = _Layer()


class _Layer:
    """Changes, with their keys in order: thousands may be pending, and each unit may scan."""

    __slots__ = ("_keys", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._keys: list[bytes] = []

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            insort(self._keys, key)
        self.values[key] = value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        for place in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[place]
            if not key.startswith(prefix):
                return
            yield key, self.values[key]
