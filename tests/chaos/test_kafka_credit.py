"""Five credit agents and their coordinator on three brokers, all of them killed again and again: the invariant holds."""

import asyncio
import json
import time
import uuid
from pathlib import Path

import pytest

from chaos.kafka_credit import Fire, Scale
from chaos.kafka_order import Order
from chaos.kafka_scale import scaled
from chaos.kafka_witness import Witness
from chaos.test_kill import INTAKE, check_outputs, check_sagas
from pavane.dev.kafka import KafkaCluster
from pavane.plan import plan_of
from pavane_credit import clerk
from pavane_credit.applications import read_applications
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_events.bus import TopicSpec
from pavane_saga.coordinator import topic_specs
from pavane_saga.wire import ADMISSIONS

SEED = 1994
SHORT = Scale(applications=24, kills_each=2, bounces=1)
LONG = Scale(applications=200, kills_each=20, bounces=3)

pytestmark = pytest.mark.slow


def test_every_saga_ends_and_the_ledgers_agree_when_agents_coordinator_and_brokers_are_killed(
    kafka_cluster: KafkaCluster, tmp_path: Path
) -> None:
    scale = scaled(SHORT, LONG)
    order = Order(kafka_cluster.servers, f"credit-{uuid.uuid4().hex[:8]}.", partitions=3)
    applications = read_applications()[: scale.applications]
    print(f"seed {SEED}, {scale}")

    async def scenario() -> None:
        began = time.monotonic()
        async with await order.open() as bus:
            specs = [*topic_specs(SAGAS), *(spec for agent in (*AGENTS, clerk.agent) for spec in plan_of(agent).topic_specs())]
            await bus.create_topics(list(dict.fromkeys([TopicSpec(INTAKE), *specs])))
            fire = Fire(bus, order, kafka_cluster, scale, SEED, tmp_path / "ledgers", applications)
            witness = Witness(order, outside=(INTAKE, ADMISSIONS))
            with witness.watching():
                tallies = await fire.burn()
            print(json.dumps({target: str(tally) for target, tally in tallies.items()}, indent=1))
            print(f"{fire.kills} kills and {fire.bounces} broker kills in {time.monotonic() - began:.0f} s")
            assert fire.kills >= fire.total_kills
            assert fire.bounces == scale.bounces
            assert all(tally.zombies for tally in tallies.values())
            await check_sagas(bus, applications)
            await check_outputs(bus)
            witness.check()
            print(f"a reader beside it saw {witness.seen.total()} events, none of them twice")
            assert witness.seen.total() > 10 * len(applications)
            await fire.check_effects()

    async def bounded() -> None:
        async with asyncio.timeout(scaled(400, 2700)):
            await scenario()

    asyncio.run(bounded())
