"""Verifications that end the process in which they are played, for the tests of several processes."""

import os
import signal
import sys
from collections.abc import Callable

from pavane import Agent, Event, Saga
from pavane.testing import Verification


class Begun(Event, type="lost.begun"):
    n: int = 0


class Over(Event, type="lost.over"):
    n: int = 0


def _verification(end: Callable[[], None]) -> Verification:
    agent = Agent("only")

    @agent.step
    async def act(begun: Begun) -> Over:
        return Over()

    @act.compensate
    async def take_back(begun: Begun, done: Over | None) -> None:
        end()

    saga = Saga("lost", starts=Begun, completes=Over, intake="lost.intake")
    return Verification(agents=[agent], sagas=[saga], starts={"only": Begun()})


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _gone() -> None:
    os._exit(0)


def _unfit() -> None:
    raise OSError("no such table")


killed = _verification(_killed)
gone = _verification(_gone)
leaves = _verification(lambda: sys.exit(0))
unfit = Verification(agents=killed.agents, sagas=killed.sagas, starts=killed.starts, reset=_unfit)
