"""``pavane run``: agents and sagas at work until they are told to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Collection
from typing import cast

import typer

from pavane.cli.options import BusOption, TargetsArgument, settings_for
from pavane.cli.output import say
from pavane_events.bus import Bus, Lanes, Start

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(targets: TargetsArgument, bus: BusOption = None) -> None:
    """Run agents and the coordinator of sagas until SIGTERM or Ctrl-C.

    They share out the lanes with whoever else runs them on the same bus. The first signal stops gracefully: running
    work may finish (PAVANE_DRAIN_S), the rest is begun again by the next run; a second signal ends at once. Exits with 0
    after SIGTERM, 130 after Ctrl-C, 1 where an agent failed, 2 where a target cannot be loaded or cannot start, 3 where
    the bus is unavailable, locked or of another version.
    """
    from pavane.cli.check import check_start
    from pavane.cli.logs import set_up_logs
    from pavane.cli.session import open_by
    from pavane.cli.targets import load_targets
    from pavane.runner import Surroundings
    from pavane.runner import run as run_all

    settings = settings_for(bus)
    set_up_logs(settings.log)
    found = load_targets(targets)
    check_start(found)
    stop = asyncio.Event()
    caught: list[signal.Signals] = []

    async def work() -> None:
        catch_signals(stop, caught)
        async with await open_by(settings) as opened:
            groups = [agent.name for agent in found.agents]
            who = [*groups, *(f"saga {saga.name}" for saga in found.sagas)]

            def ready() -> None:
                lanes = f"{opened.partitions} lanes" if opened.partitions > 1 else "1 lane"
                say(f"ready: {', '.join(who)} on {settings.bus} ({lanes})")

            watched = Watched(opened, len(groups) + bool(found.sagas), ready)
            await run_all(found.agents, found.sagas, cast("Bus", watched), stop, Surroundings.of(settings))

    asyncio.run(work())
    if signal.SIGINT in caught:
        raise typer.Exit(130)


def catch_signals(stop: asyncio.Event, caught: list[signal.Signals]) -> None:
    """Let the first signal set ``stop``, and a second one end the process at once."""
    loop = asyncio.get_running_loop()

    def heed(number: signal.Signals) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        say("stopping: running work may finish; once more ends at once")
        stop.set()

    for each in _SIGNALS:
        loop.add_signal_handler(each, heed, each)


class Watched:
    """A bus that says when so many groups have joined it."""

    def __init__(self, bus: Bus, groups: int, ready: Callable[[], None]) -> None:
        self._bus = bus
        self._missing = groups
        self._ready = ready

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def lanes(self, group: str, topics: Collection[str], *, start: Start = "earliest") -> Lanes:
        """Join a group."""
        lanes = await self._bus.lanes(group, topics, start=start)
        self._missing -= 1
        if self._missing == 0:
            self._ready()
        return lanes
