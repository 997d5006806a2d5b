"""Patience: a commit that the bus cannot take now is tried again as it is; nothing is lost by waiting."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from pavane_events.bus import Lane
from pavane_events.errors import BusUnavailable
from pavane_events.record import Message

log = logging.getLogger("pavane.bus")

FIRST_PAUSE_S = 0.05
MOST_PAUSE_S = 5.0


async def commit_patiently(
    lane: Lane, done: Mapping[str, int], outputs: Sequence[Message], state: Mapping[bytes, bytes | None]
) -> None:
    """Commit, and while the bus is full, locked or away commit the same again, with growing pauses, for as long as it takes.

    Raises :class:`LaneLost` and whatever else :meth:`Lane.commit` raises but :class:`BusUnavailable`.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            await lane.commit(done, outputs, state)
        except BusUnavailable as error:
            log.warning("lane %d of %s cannot commit, it tries again: %s", lane.partition, lane.group, error)
            await asyncio.sleep(pause_s)
            pause_s = min(MOST_PAUSE_S, pause_s * 2)
        else:
            return
