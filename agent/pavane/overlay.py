"""Overlay: a lane's state as the work of this process sees it, with what is not committed yet."""

from collections.abc import Iterator, Mapping

from pavane_events.bus import LaneState


class Overlay:
    """The committed state, under the changes of a commit under way, under the changes of finished work.

    If a commit fails for good the lane is lost, and the overlay with it: there is nothing to roll back.
    """

    def __init__(self, state: LaneState) -> None:
        self._state = state
        self._under_way: dict[bytes, bytes | None] = {}
        self._changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        if key in self._changes:
            return self._changes[key]
        if key in self._under_way:
            return self._under_way[key]
        return self._state.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every pair whose key begins with the prefix, in key order."""
        found: dict[bytes, bytes | None] = dict(self._state.scan(prefix))
        for layer in (self._under_way, self._changes):
            found.update({key: value for key, value in layer.items() if key.startswith(prefix)})
        for key in sorted(found):
            value = found[key]
            if value is not None:
                yield key, value

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Work has finished with these changes (None deletes)."""
        self._changes.update(changes)

    def begin_commit(self) -> dict[bytes, bytes | None]:
        """The changes for the commit to come; they stay visible."""
        self._under_way, self._changes = self._changes, {}
        return self._under_way

    def end_commit(self) -> None:
        """The commit has happened."""
        self._under_way = {}
