"""Foreign clients: an agent without Pavane, Kafka's own console, kcat, and a CloudEvents library, all on a real Kafka."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from support.foreign import DOOMED, KILLED, Shop, reasons, shop_on, texts
from support.kafka import Kafka
from support.stage import until

from pavane_events.ids import derived, idempotency_key, output_id
from pavane_events.partition import partition_of
from pavane_saga.facts import Declared, Settled, Undone
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS

OpenShop = Callable[[], AbstractAsyncContextManager[Shop]]
TEA = {"order": "o-1", "cents": 500, "item": "tea"}
UNICORN = {"order": "o-2", "cents": 900, "item": "unicorn"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def open_shop(kafka: Kafka, kafka_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenShop:
    monkeypatch.chdir(tmp_path)  # the shop keeps its store where it runs

    @asynccontextmanager
    async def open_it() -> AsyncGenerator[Shop]:
        async with asyncio.timeout(120), shop_on(kafka, kafka_prefix, tmp_path) as shop:
            yield shop

    return open_it


def test_a_foreign_agent_is_owed_answers_and_is_undone(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            good = await shop.stage.publish(TEA)
            bad = await shop.stage.publish(UNICORN)
            assert await shop.stage.ended(good) == "completed"
            assert await shop.stage.ended(bad) == "compensated"
            assert sorted(shop.payment.charges()) == [(500, False), (900, True)]

            start = derived("start", bad)
            assert Undone("payment/charge", (start,)) in await shop.stage.facts(bad)
            (answer,) = await shop.stage.events("shop.charged", good)
            assert answer.id == output_id(good, "payment/charge", [derived("start", good)], 1)
            assert (answer.step, answer.depth, answer.declaration) == ("payment/charge", 1, "payment@1")

            assert await asyncio.to_thread(shop.payment.stop) == 0
            assert shop.payment.log.read_text() == ""

    asyncio.run(scenario())
