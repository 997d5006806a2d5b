"""``pavane run``: agents and sagas at work until they are told to stop."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import typer

from pavane.cli.groups import leaves
from pavane.cli.options import BusOption, TargetsArgument, settings_for
from pavane.cli.output import say
from pavane.health import Board, Telling, serving
from pavane.memory import settle_memory
from pavane.settings import Settings
from pavane.threads import ContextThreads
from pavane_events.bus import Bus, Lanes, Start
from pavane_events.errors import BusUnavailable

FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(targets: TargetsArgument, bus: BusOption = None) -> None:
    """Run agents and the coordinator of sagas until SIGTERM or Ctrl-C.

    They share out the lanes with whoever else runs them on the same bus. The first signal stops gracefully: running
    work may finish (PAVANE_DRAIN_S), the rest is begun again by the next run; a second signal ends at once. What `pavane
    check` would warn of is logged once, at the start. Exits with 0
    after SIGTERM, 130 after Ctrl-C, 1 where an agent failed, 2 where a target cannot be loaded or cannot start, 3 where
    the bus is unavailable, locked or of another version.
    """
    from pavane.cli.check import check_start
    from pavane.cli.logs import set_up_logs
    from pavane.cli.targets import load_targets
    from pavane.runner import Surroundings
    from pavane.runner import run as run_all
    from pavane_tracing.metering import start_metrics
    from pavane_tracing.work import FLUSH_S

    settings = settings_for(bus)
    os.environ["PAVANE_BUS"] = settings.bus  # what an agent's lifespan opens by the settings is the same bus
    set_up_logs(settings.log)
    found = load_targets(targets)
    check_start(found)
    stop = asyncio.Event()
    caught: list[signal.Signals] = []

    async def work() -> None:
        catch_signals(stop, caught)
        asyncio.get_running_loop().set_default_executor(ContextThreads(thread_name_prefix="pavane"))
        board = Board()
        with serving(board, settings.health_port):
            await _patiently(settings, stop, board, lambda bus: run_on(bus, board))

    async def run_on(opened: Bus, board: Board) -> None:
        groups = [agent.name for agent in found.agents]
        who = [*groups, *(f"saga {saga.name}" for saga in found.sagas)]

        def ready() -> None:
            board.joined(opened if isinstance(opened, Telling) else None)
            lanes = f"{opened.partitions} lanes" if opened.partitions > 1 else "1 lane"
            say(f"ready: {', '.join(who)} on {settings.bus} ({lanes})")

        watched = Watched(opened, len(groups) + bool(found.sagas), ready)
        await run_all(found.agents, found.sagas, cast("Bus", watched), stop, Surroundings.of(settings))

    stop_metrics = start_metrics("pavane")
    settle_memory()
    try:
        asyncio.run(work())
    finally:
        stop_metrics(FLUSH_S)
    if signal.SIGINT in caught:
        raise typer.Exit(130)


async def _patiently(settings: Settings, stop: asyncio.Event, board: Board, run_on: Callable[[Bus], Awaitable[None]]) -> None:
    """Run on the bus; where brokers are away, say so, not be ready, and try again for as long as it takes.

    A file that cannot be opened stays an error: nobody but its owner can mend that.
    """
    from pavane.cli.session import open_by

    pause_s = FIRST_PAUSE_S
    while not stop.is_set():
        try:
            async with await open_by(settings) as opened:
                pause_s = FIRST_PAUSE_S
                await run_on(opened)
        except BusUnavailable as error:
            problem = error
        except BaseExceptionGroup as group:
            unavailable, others = group.split(BusUnavailable)
            if unavailable is None or others is not None:
                raise
            problem = next(leaves(unavailable))
        else:
            return
        if urlsplit(settings.bus).scheme != "kafka":
            raise problem
        board.waiting(str(problem))
        say(f"waiting: {problem}; it is tried again in {pause_s:.0f} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
        pause_s = min(MOST_PAUSE_S, pause_s * 2)


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

    async def lanes(
        self, group: str, topics: Collection[str], *, start: Start = "earliest", earliest: Collection[str] = ()
    ) -> Lanes:
        """Join a group."""
        lanes = await self._bus.lanes(group, topics, start=start, earliest=earliest)
        self._missing -= 1
        if self._missing == 0:
            self._ready()
        return lanes
