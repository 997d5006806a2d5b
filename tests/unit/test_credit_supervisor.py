"""The supervisor: an agent that crashes by plan is begun anew, anything else ends everything and is raised."""

import asyncio
import sys

import pytest

from pavane import Agent
from pavane.runner import Surroundings
from pavane_credit import clerk, supervisor
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.seam import SimulatedCrash
from pavane_credit.supervisor import TARGETS, peak_rss_mb, run_together, supervise
from pavane_events.bus import Bus
from pavane_events.buses.memory import MemoryBus


class Runs:
    """Stands in for running an agent: what it is to raise, run by run, and then it waits for the end."""

    def __init__(self, *raises: BaseException) -> None:
        self.raises = list(raises)
        self.begun = 0

    async def __call__(self, agent: Agent, bus: Bus, stop: asyncio.Event, surroundings: Surroundings) -> None:
        self.begun += 1
        if self.raises:
            raise self.raises.pop(0)
        stop.set()


def crash() -> BaseExceptionGroup[BaseException]:
    """As task groups hand it on: nested."""
    return BaseExceptionGroup("lanes", [BaseExceptionGroup("lane", [SimulatedCrash("DE-0001")])])


def supervised(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "run_agent", runs)

    async def scenario() -> None:
        await supervise(AGENTS[0], MemoryBus(partitions=1), asyncio.Event(), Surroundings(trace=False))

    asyncio.run(scenario())


def test_an_agent_that_crashes_by_plan_is_begun_anew_as_often_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(crash(), crash())
    supervised(runs, monkeypatch)
    assert runs.begun == 3


def test_what_is_no_planned_crash_is_raised_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(BaseExceptionGroup("lanes", [SimulatedCrash("DE-0001"), OSError("disk")]))
    with pytest.raises(ExceptionGroup) as caught:
        supervised(runs, monkeypatch)
    assert [repr(each) for each in caught.value.exceptions] == ["OSError('disk')"]
    assert runs.begun == 1


def test_an_agent_is_not_begun_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()
    monkeypatch.setattr(supervisor, "run_agent", runs)

    async def scenario() -> None:
        stop = asyncio.Event()
        stop.set()
        await supervise(AGENTS[0], MemoryBus(partitions=1), stop, Surroundings(trace=False))

    asyncio.run(scenario())
    assert runs.begun == 0


def test_where_one_agent_cannot_go_on_all_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "run_agent", Runs(OSError("disk")))

    async def scenario() -> None:
        async with MemoryBus(partitions=1) as bus:
            await run_together(bus, asyncio.Event(), Surroundings(trace=False))

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(asyncio.wait_for(scenario(), 10))
    assert caught.value.subgroup(OSError) is not None


def test_every_agent_and_saga_has_a_process_of_its_own() -> None:
    modules = [target.partition(":") for target in TARGETS]
    found = [getattr(sys.modules[module], name) for module, _, name in modules]
    assert found == [*AGENTS, clerk.agent, *SAGAS]


def test_memory_is_told_in_megabytes_where_there_is_such_a_process() -> None:
    assert 5 < peak_rss_mb() < 5_000
    assert peak_rss_mb(2**22 + 1) == 0.0
