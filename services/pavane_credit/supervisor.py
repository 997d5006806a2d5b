"""Supervisor: keeps the five agents, the stand-in clerk and the coordinator running, in this process or each in its own."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from pavane.agent import Agent
from pavane.runner import Surroundings, run, run_agent
from pavane_credit import clerk
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.seam import SimulatedCrash
from pavane_events.bus import Bus

TARGETS = (
    "pavane_credit.score:agent",
    "pavane_credit.income:agent",
    "pavane_credit.fraud:agent",
    "pavane_credit.risk:agent",
    "pavane_credit.approval:agent",
    "pavane_credit.clerk:agent",
    "pavane_credit.choreography:decision",
)
_STOP_S = 15.0


async def run_together(bus: Bus, stop: asyncio.Event, surroundings: Surroundings) -> None:
    """All in this event loop. An agent that crashes by plan is begun anew; anything else ends it all, and is raised."""
    clerk.desk.give(bus)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run((), SAGAS, bus, stop, surroundings))
            for agent in (*AGENTS, clerk.agent):
                group.create_task(supervise(agent, bus, stop, surroundings))
    finally:
        clerk.desk.give(None)


async def supervise(agent: Agent, bus: Bus, stop: asyncio.Event, surroundings: Surroundings) -> None:
    """Run one agent, and again whenever it died of a simulated crash."""
    while not stop.is_set():
        try:
            await run_agent(agent, bus, stop, surroundings)
        except BaseExceptionGroup as group:
            _, rest = group.split(SimulatedCrash)
            if rest is not None:
                raise rest from None


class Processes:
    """Each in a process of its own, by ``pavane run``. One that is killed is started again."""

    def __init__(self, bus: str, log: Path, environment: Mapping[str, str]) -> None:
        self._bus = bus
        self._log = log
        self._environment = {**os.environ, **environment}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._peaks: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Run them until ``stop`` is set, then end them gracefully. Raises where one of them cannot go on."""
        async with asyncio.TaskGroup() as group:
            for target in TARGETS:
                group.create_task(self._supervise(target, stop))

    def peak_rss_mb(self) -> float:
        """The processes' largest resident sizes, added up; of the living ones so far, where the system tells."""
        for target, process in self._running.items():
            self._peaks[target] = max(self._peaks.get(target, 0.0), peak_rss_mb(process.pid))
        return sum(self._peaks.values())

    async def _supervise(self, target: str, stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stopping.done():
                process = await self._start(target)
                ended = asyncio.ensure_future(process.wait())
                try:
                    await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
                    if ended.done() and not stopping.done() and ended.result() != -signal.SIGKILL:
                        raise RuntimeError(f"{target} ended with {ended.result()}: see {self._log}")
                finally:
                    await self._end(process, ended)
        finally:
            stopping.cancel()

    async def _start(self, target: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "pavane", "run", target, "--bus", self._bus)
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=self._environment)
        self._running[target] = process
        return process

    async def _end(self, process: asyncio.subprocess.Process, ended: "asyncio.Future[int]") -> None:
        if ended.done():
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await ended
        except TimeoutError:
            process.kill()
            await process.wait()


def peak_rss_mb(pid: int | None = None) -> float:
    """The largest resident size of a process (this one: None) so far, in MB; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = next((line for line in text.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(found.split()[1]) / 1000
