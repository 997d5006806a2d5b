"""What another member of the deployment publishes reaches a lane whole, however much comes at once."""

import random

import pytest

from conformance.deployments import Deployment, bus_with, lane_of, receive, scenario
from pavane_events.bus import Bus
from pavane_events.record import Message


async def publish(bus: Bus, first: int, count: int) -> None:
    """In one go: nobody gets to look in between."""
    await bus.publish([Message("orders", b"%d" % number, partition=0) for number in range(first, first + count)])


@pytest.mark.parametrize("burst", [1, 1999, 2000, 2001, 2500, 9000])
@scenario
async def test_a_burst_from_elsewhere_reaches_a_waiting_lane_whole_and_in_order(deployment: Deployment, burst: int) -> None:
    async with bus_with(deployment, "orders") as reading, await deployment.open() as writing:
        lane = await lane_of(await reading.lanes("group", ["orders"]), 0)
        await publish(writing, 0, 1)
        assert [record.value for record in await receive(lane, 1)] == [b"0"]
        await publish(writing, 1, burst)
        found = await receive(lane, burst)
        assert [record.value for record in found] == [b"%d" % number for number in range(1, burst + 1)]


@scenario
async def test_bursts_from_here_and_elsewhere_between_receives_lose_and_double_nothing(deployment: Deployment) -> None:
    chance = random.Random(4)
    async with bus_with(deployment, "orders") as reading, await deployment.open() as writing:
        lane = await lane_of(await reading.lanes("group", ["orders"]), 0)
        published = received = 0
        for _ in range(20):
            for bus in chance.choices([reading, writing], k=chance.randint(1, 3)):
                count = chance.choice([1, 7, 900, 2300])
                await publish(bus, published, count)
                published += count
            some = chance.randint(0, published - received)
            found = await receive(lane, some)
            assert [record.value for record in found] == [b"%d" % number for number in range(received, received + some)]
            received += some
        found = await receive(lane, published - received)
        assert [record.value for record in found] == [b"%d" % number for number in range(received, published)]
