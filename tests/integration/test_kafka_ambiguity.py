"""Where a connection breaks in the middle of a request, a commit happens once, and who asked learns what happened."""

import asyncio

import pytest

from conformance.deployments import content, lanes_of, numbered, receive, scenario, values
from pavane.dev.ports import free_block
from pavane_events.bus import Lane, TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import BusUnavailable
from support.kafka import MakeKafka
from support.kafka_proxy import Cut, Proxy, When, proxied

APIS = {"Produce": 0, "AddPartitionsToTxn": 24, "AddOffsetsToTxn": 25, "EndTxn": 26, "TxnOffsetCommit": 28}
BESIDE = {"Fetch": 1, "ListOffsets": 2, "OffsetFetch": 9, "JoinGroup": 11, "Heartbeat": 12, "SyncGroup": 14}
WHENS: tuple[When, ...] = ("before", "after")
OPTIONS = KafkaOptions(session_ms=6_000, heartbeat_ms=300)

pytestmark = pytest.mark.slow


async def copy_one(lane: Lane, number: int) -> None:
    """One input becomes one output and one change of state, in one commit."""
    (record,) = await receive(lane, 1)
    assert record.value == b"%d" % number
    await lane.commit({"in": record.offset + 1}, numbered("out", 1, first=number), {b"last": record.value})


def behind(make_kafka: MakeKafka) -> tuple[int, int, str]:
    """A broker that sends its clients to the port of a proxy: the broker's port, the proxy's, and the address."""
    port = free_block(1)
    cluster = make_kafka(properties={"advertised.listeners": f"CLIENT://127.0.0.1:{port}"})
    return int(cluster.servers.rpartition(":")[2]), port, f"127.0.0.1:{port}"


async def used(proxy: Proxy, times: int) -> None:
    """Wait until the proxy has cut so often."""
    give_up = asyncio.get_running_loop().time() + 30
    while proxy.done < times:
        assert asyncio.get_running_loop().time() < give_up, f"{proxy.cut} was not played"
        await asyncio.sleep(0.01)


@scenario
async def test_a_commit_happens_once_whichever_of_its_requests_is_cut_off(make_kafka: MakeKafka) -> None:
    broker, port, servers = await asyncio.to_thread(behind, make_kafka)
    async with proxied(broker, port) as proxy, await KafkaBus.open(servers, 4, OPTIONS) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        cuts = [Cut(api, "-writes", when) for api in APIS.values() for when in WHENS]
        await bus.publish(numbered("in", 2 * len(cuts)))
        members = await bus.lanes("group", ["in"])
        lane = (await lanes_of(members))[0]
        for number, cut in enumerate(cuts):
            proxy.cut = cut
            await copy_one(lane, 2 * number)
            assert proxy.done == number + 1, f"{cut} was not played"
            assert lane.commit_number == 2 * number + 1
            await copy_one(lane, 2 * number + 1)  # and on it goes
        assert values(await content(bus, "out", partition=0)) == [b"%d" % number for number in range(2 * len(cuts))]
        await members.close()
        heir = (await lanes_of(await bus.lanes("group", ["in"])))[0]
        assert heir.commit_number == 2 * len(cuts)
        assert heir.state.get(b"last") == b"%d" % (2 * len(cuts) - 1)
        assert not await heir.receive(1, 0.2)


@scenario
async def test_a_publishing_that_is_cut_off_is_told_as_it_is(make_kafka: MakeKafka) -> None:
    broker, port, servers = await asyncio.to_thread(behind, make_kafka)
    async with proxied(broker, port) as proxy, await KafkaBus.open(servers, 4, OPTIONS) as bus:
        await bus.create_topics([TopicSpec("in")])
        await bus.publish([])
        expected: list[bytes] = []
        for api in (APIS["AddPartitionsToTxn"], APIS["Produce"], APIS["EndTxn"]):
            for when in WHENS:
                value = f"{api} {when}".encode()
                done, proxy.cut = proxy.done, Cut(api, "publisher-", when)
                try:
                    await bus.publish(
                        [*numbered("in", 1, first=proxy.done, partition=1), *numbered("in", 1, first=proxy.done)]
                    )
                except BusUnavailable:
                    pass
                else:
                    expected.append(b"%d" % done)
                assert proxy.done == done + 1, f"{value!r} was not played"
                assert values(await content(bus, "in", partition=0)) == expected
                assert values(await content(bus, "in", partition=1)) == expected
        assert b"5" in expected, "the end was asked for and confirmed, only the answer was lost: it happened"


@scenario
async def test_what_a_member_asks_beside_its_commits_may_be_cut_off_as_well(make_kafka: MakeKafka) -> None:
    broker, port, servers = await asyncio.to_thread(behind, make_kafka)
    async with proxied(broker, port) as proxy, await KafkaBus.open(servers, 4, OPTIONS) as bus:
        await bus.create_topics([TopicSpec("in"), TopicSpec("out")])
        cuts = [Cut(api, "group-", when) for api in BESIDE.values() for when in WHENS]
        await bus.publish(numbered("in", len(cuts)))
        for number, cut in enumerate(cuts):
            proxy.cut = cut
            members = await bus.lanes("group", ["in"])
            lane = (await lanes_of(members))[0]
            await used(proxy, number + 1)
            while lane.lost:
                lane = (await lanes_of(members))[0]
            await copy_one(lane, number)
            await members.close()
        assert values(await content(bus, "out", partition=0)) == [b"%d" % number for number in range(len(cuts))]
