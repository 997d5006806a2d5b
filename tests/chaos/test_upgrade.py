"""A rolling upgrade under load, with real processes: a step comes, one goes, one is renamed, and the saga's ends change."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from chaos import upgrade_shop as shop
from chaos.crew import Child, child
from pavane.plan import plan_of
from pavane_events.bus import Bus, TopicSpec
from pavane_events.buses.address import open_bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.envelope import Envelope
from pavane_saga.coordinator import topic_specs
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import SagaEnded
from support.kafka import Kafka

ORDERS = 400
TARGETS = ("order", "stock", "till", "door")
"""In the order in which they are upgraded: who reads before who says."""
KILLED = "till"
"""This one's old version is killed in mid-work, the others end gracefully."""
PATIENCE_S = 150.0


async def publish_some(bus: Bus, first: int, count: int) -> list[str]:
    envelopes = [
        Envelope(
            id=f"order-{number}",
            source="/test",
            type=shop.Ordered.event_type,
            data=shop.Ordered(order=f"order-{number}", refuse=number % 3 == 0).to_json(),
        )
        for number in range(first, first + count)
    ]
    sagas = [saga_id_of(each.source, each.id) for each in envelopes]
    await bus.publish([each.to_message("shop.orders", key=saga) for each, saga in zip(envelopes, sagas, strict=True)])
    return sagas


async def verdicts(bus: Bus) -> dict[str, str]:
    ends = [SagaEnded.from_json(record.value or b"") async for record in bus.read(SagaEnded.event_type)]
    assert len(ends) == len({each.saga for each in ends})
    return {each.saga: each.verdict for each in ends}


async def upgraded_under_load(bus: Bus, url: str, environment: Mapping[str, str]) -> None:
    """Orders come in all the time; one process after another is replaced by its next version."""
    published = 0
    running: dict[str, Child] = {}
    async with AsyncExitStack() as stack:

        async def start(target: str, version: str) -> None:
            one = await stack.enter_async_context(
                child(f"chaos.upgrade_shop:{target}", url, {**environment, "SHOP_VERSION": version})
            )
            async with asyncio.timeout(60):
                await one.ready.wait()
            assert one.alive, one.said.decode()
            running[target] = one

        async def feed(until: int) -> None:
            nonlocal published
            while published < until:
                await publish_some(bus, published, 10)
                published += 10
                await asyncio.sleep(0.1)

        for target in TARGETS:
            await start(target, "1")
        for number, target in enumerate(TARGETS, 1):
            feeding = asyncio.create_task(feed(ORDERS * number // (len(TARGETS) + 1)))
            old = running[target]
            await start(target, "2")
            await feeding
            old.process.send_signal(signal.SIGKILL if target == KILLED else signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await old.process.wait() == (-signal.SIGKILL if target == KILLED else 0), old.said.decode()
        await feed(ORDERS)
        async with asyncio.timeout(PATIENCE_S):
            while len(await verdicts(bus)) < ORDERS:
                await asyncio.sleep(0.5)
                assert all(one.alive for one in running.values()), [one.said.decode() for one in running.values()]
        for one in running.values():
            one.process.send_signal(signal.SIGTERM)
            assert await one.process.wait() == 0


async def check(bus: Bus) -> None:
    found = await verdicts(bus)
    refused = {saga_id_of("/test", f"order-{number}") for number in range(0, ORDERS, 3)}
    assert {saga for saga, verdict in found.items() if verdict == "compensated"} == refused
    assert set(found.values()) == {"completed", "compensated"}
    for kind in (shop.Refused, shop.Withdrawn):
        assert len([record async for record in bus.read(kind.event_type)]) > 5, "one is said by the first version, one after"
    standing = Counter(shop.standing())
    assert max(standing.values()) == 1, "nothing was done twice"
    for what, exactly in (("reserved", True), ("paid", True), ("insured", False), ("labelled", False)):
        sagas = {saga for saga, each in standing if each == what}
        assert sagas.isdisjoint(refused), f"{what} stands of a saga that was refused"
        assert not exactly or sagas == found.keys() - refused
        assert exactly or 10 < len(sagas) < ORDERS - len(refused), f"{what}: under one version, not under the other"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "kafka"])
def test_a_shop_is_upgraded_while_orders_come_in(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SHOP_LEDGER", str(tmp_path / "ledger.db"))
    environment = {"SHOP_LEDGER": str(tmp_path / "ledger.db"), "PYTHONPATH": str(Path(__file__).parents[1])}
    url, options = f"sqlite:///{tmp_path / 'bus.db'}", None
    if kind == "kafka":
        kafka = cast("Kafka", request.getfixturevalue("kafka"))
        prefix = kafka.prefix()
        url, options = kafka.url, KafkaOptions(prefix=prefix)
        environment["PAVANE_KAFKA_PREFIX"] = prefix

    async def scenario() -> None:
        async with await open_bus(url, partitions=2, kafka=options) as bus:
            names = ("shop.orders", "shop.withdrawn", "shop.refused")
            specs = [*topic_specs([shop.order]), *(spec for each in shop.AGENTS for spec in plan_of(each).topic_specs())]
            await bus.create_topics([*specs, *(TopicSpec(name) for name in names)])
            await upgraded_under_load(bus, url, {**environment, "PAVANE_PARTITIONS": "2"})
            await check(bus)

    asyncio.run(scenario())
    owed = subprocess.run(
        [sys.executable, "-m", "pavane", "sagas", "owed", "stock/insure", "--bus", url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (owed.returncode, owed.stderr) == (0, "nothing is owed: it may go\n")
