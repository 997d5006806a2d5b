"""A lane's tasks as one group. By itself, for it waits while it handles an exception: see docs/decisions/0015."""

import asyncio
from collections.abc import Awaitable, Callable

from pavane_events.errors import LaneLost


async def until_lost(work: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> bool:
    """Do it, and wait for all that it began in the group. True where that ended because the lane was lost.

    Raises an exception group with whatever else was raised within.
    """
    lost = False
    try:
        async with asyncio.TaskGroup() as group:
            await work(group)
    except* LaneLost:
        lost = True
    return lost
