"""Foreign clients: an agent without Pavane, Kafka's own console, kcat, and a CloudEvents library, all on a real Kafka."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from confluent_kafka import Message
from examples.shop import Charged, Packed, payment, shipping, warehouse

from pavane import Agent, Rejected
from pavane_events.ids import derived, output_id
from pavane_events.partition import partition_of
from pavane_saga.facts import Declared, Settled, Undone
from pavane_saga.intake import saga_id_of
from pavane_saga.wire import FACTS, read_fact
from support.foreign import KILLED, PARTITIONS, Shop, raw_headers, reasons, shop_on, texts
from support.kafka import Kafka
from support.stage import until

OpenShop = Callable[..., AbstractAsyncContextManager[Shop]]
TEA: dict[str, object] = {"order": "o-1", "cents": 500, "item": "tea"}
UNICORN: dict[str, object] = {"order": "o-2", "cents": 900, "item": "unicorn"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KILLS = 3
THE_OTHERS = (warehouse, shipping)


@pytest.fixture
def open_shop(kafka: Kafka, kafka_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenShop:
    monkeypatch.chdir(tmp_path)  # the shop keeps its store where it runs

    @asynccontextmanager
    async def open_it(*agents: Agent) -> AsyncGenerator[Shop]:
        async with asyncio.timeout(180), shop_on(kafka, kafka_prefix, tmp_path, agents or THE_OTHERS) as shop:
            yield shop

    return open_it


def slow_warehouse() -> Agent:
    """A warehouse that packs what is paid for, and refuses a unicorn only then: so there is something to undo."""
    slow = Agent("warehouse")

    @slow.step(effects=False)
    async def pack(paid: Charged) -> Packed:
        if paid.cents == UNICORN["cents"]:
            raise Rejected("no unicorn is in stock")
        return Packed(order=paid.order, item="tea")

    return slow


def test_a_foreign_agent_is_owed_answers_and_is_undone(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop(slow_warehouse(), shipping) as shop:
            shop.payment.start()
            good = await shop.stage.publish(TEA)
            bad = await shop.stage.publish(UNICORN)
            assert await shop.stage.ended(good) == "completed"
            assert await shop.stage.ended(bad) == "compensated"
            assert shop.payment.charges() == [500]

            assert Undone("payment/charge", (derived("start", bad),)) in await shop.stage.facts(bad)
            (answer,) = await shop.stage.events("shop.charged", good)
            assert answer.id == output_id(good, "payment/charge", [derived("start", good)], 1)
            assert (answer.step, answer.depth, answer.declaration) == ("payment/charge", 1, "payment@1")
            assert await asyncio.to_thread(shop.payment.stop) == 0

    asyncio.run(scenario())


def test_what_a_foreign_step_refuses_turns_its_saga_back(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            saga = await shop.stage.publish({**TEA, "cents": 1_000_000})
            assert await shop.stage.ended(saga) == "compensated"
            refused = [each for each in await shop.stage.facts(saga) if isinstance(each, Settled) and each.how == "failed"]
            assert [(each.step, each.code, each.reason) for each in refused] == [
                ("payment/charge", "rejected", "the card is good for 5,000.00")
            ]
            assert shop.payment.charges() == []

    asyncio.run(scenario())


def test_a_foreign_agent_that_is_killed_between_produce_and_commit_answers_once(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start(doom="KILL")
            saga = await shop.stage.publish(TEA)
            assert await asyncio.to_thread(shop.payment.wait) == KILLED
            assert shop.payment.charges() == [500]
            (lost,) = shop.read("shop.charged", committed=False)

            shop.payment.start()
            assert await shop.stage.ended(saga) == "completed"
            assert shop.payment.charges() == [500]
            (answer,) = shop.read("shop.charged")
            assert answer.offset() != lost.offset()
            assert texts(answer)["ce_id"] == texts(lost)["ce_id"]

    asyncio.run(scenario())


def test_a_foreign_agent_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            chance = random.Random(1994)
            sagas: dict[str, str] = {}
            for _ in range(KILLS):
                answers = len(await shop.stage.events("shop.charged"))
                shop.payment.start()
                for _ in range(4):
                    sagas[await shop.stage.publish(TEA)] = "completed"
                    sagas[await shop.stage.publish(UNICORN)] = "compensated"

                async def has_answered(enough: int = answers + chance.randrange(1, 4)) -> bool:
                    return len(await shop.stage.events("shop.charged")) >= enough  # of tea at least; a unicorn may be skipped

                await until(has_answered)
                await asyncio.to_thread(shop.payment.kill)
            shop.payment.start()

            async def verdicts() -> dict[str, str] | None:
                found = await shop.stage.verdicts()
                return found if len(found) == len(sagas) else None

            assert await until(verdicts) == sagas
            assert shop.payment.charges() == [500] * (len(sagas) // 2)
            answered = [each.id for each in await shop.stage.events("shop.charged")]
            assert len(set(answered)) == len(answered)
            declared = [(each.partition(), texts(each)["ce_source"]) for each in declarations(shop, "payment")]
            assert sorted(declared) == [(lane, "/agents/payment") for lane in range(PARTITIONS)]  # once, not at each start

    asyncio.run(scenario())


def test_a_foreign_agent_that_wakes_up_after_its_lanes_were_taken_over_commits_nothing(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start(doom="STOP")
            saga = await shop.stage.publish(TEA)
            await asyncio.to_thread(shop.payment.wait_for_stop)
            heir = shop.payment.another("1")
            heir.start()
            try:
                assert await shop.stage.ended(saga) == "completed"
                shop.payment.go_on()

                async def knows() -> bool:
                    return "beginning anew" in shop.payment.log.read_text()

                assert await until(knows)
                assert len(shop.read("shop.charged", committed=False)) == 2
                assert len(shop.read("shop.charged")) == 1
                assert shop.payment.charges() == [500]
            finally:
                await asyncio.to_thread(heir.kill)

    asyncio.run(scenario())


def test_two_foreign_processes_share_the_lanes_out(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            other = shop.payment.another("1")
            shop.payment.start()
            other.start()
            try:
                sagas = [await shop.stage.publish(TEA if number % 2 else UNICORN) for number in range(16)]
                for number, saga in enumerate(sagas):
                    assert await shop.stage.ended(saga) == ("completed" if number % 2 else "compensated")
                assert shop.payment.charges() == [500] * 8
            finally:
                await asyncio.to_thread(other.kill)

    asyncio.run(scenario())


def test_a_foreign_process_cannot_join_the_group_of_a_pavane_agent(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop(payment, warehouse, shipping) as shop:
            first = await shop.stage.publish(TEA)
            assert await shop.stage.ended(first) == "completed"
            shop.payment.start()

            async def is_refused() -> bool:
                return "INCONSISTENT_GROUP_PROTOCOL" in shop.payment.log.read_text()

            assert await until(is_refused)
            second = await shop.stage.publish(TEA)
            assert await shop.stage.ended(second) == "completed"
            assert shop.payment.charges() == []

    asyncio.run(scenario())


def test_kafkas_own_console_starts_sagas_with_plain_json(
    open_shop: OpenShop, kafka_tool: Callable[..., "CompletedProcess[str]"]
) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            to_intake = ("--bootstrap-server", shop.kafka.servers, "--topic", f"{shop.prefix}shop.orders")
            lines = "\n".join(map(json.dumps, (TEA, UNICORN, {**TEA, "cents": -1})))
            done = await asyncio.to_thread(
                kafka_tool, "org.apache.kafka.tools.ConsoleProducer", *to_intake, stdin=lines + "\n"
            )
            assert done.returncode == 0, done.stderr

            async def both() -> dict[str, str] | None:
                found = await shop.stage.verdicts()
                return found if len(found) == 2 else None

            assert sorted((await until(both)).values()) == ["compensated", "completed"]
            (refused,) = await shop.stage.dead("pavane.coordinator")
            assert refused["error_code"] == "greater_than"
            assert [each["where"] for each in json.loads(refused["error_problems"])] == ["data.cents"]

    asyncio.run(scenario())


def test_kcat_starts_a_saga_once_and_reads_headers_and_json(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            intake = ("-P", "-t", f"{shop.prefix}shop.orders", "-H", "idempotency-key=o-1", "-H", f"traceparent={TRACE}")
            for _ in range(2):
                await asyncio.to_thread(shop.kcat, *intake, stdin=json.dumps(TEA))
            saga = saga_id_of("/intake/shop.orders", "o-1")
            assert await shop.stage.ended(saga) == "completed"
            assert list(await shop.stage.verdicts()) == [saga]

            said = await asyncio.to_thread(shop.kcat, "-C", "-t", f"{shop.prefix}shop.charged", "-o", "beginning", "-e", "-J")
            (line,) = said.splitlines()
            record = json.loads(line)
            names, values = record["headers"][::2], record["headers"][1::2]
            headers = dict(zip(names, values, strict=True))
            start = derived("start", saga)
            assert sorted(names) == sorted(headers)
            assert headers.pop("ce_time")
            assert headers == {
                "content-type": "application/json",
                "ce_specversion": "1.0",
                "ce_id": output_id(saga, "payment/charge", [start], 1),
                "ce_source": "/agents/payment",
                "ce_type": "shop.charged",
                "ce_dataschema": "urn:pavane:shop.charged:1",
                "ce_sagaid": saga,
                "ce_causationid": start,
                "ce_causes": json.dumps([start]),
                "ce_step": "payment/charge",
                "ce_depth": "1",
                "ce_part": "1/1",
                "ce_declaration": "payment@1",
                "traceparent": TRACE,
            }
            assert (record["key"], record["partition"]) == (saga, partition_of(saga.encode(), PARTITIONS))
            assert json.loads(record["payload"]) == {"order": "o-1", "cents": 500}

    asyncio.run(scenario())


def test_a_cloudevents_library_reads_what_the_shop_says(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop(slow_warehouse(), shipping) as shop:
            shop.payment.start()
            saga = await shop.stage.publish(UNICORN, name="o-2")
            assert await shop.stage.ended(saga) == "compensated"
            for topic, source in {
                "shop.order-placed": "/sagas/order",
                "shop.charged": "/agents/payment",
                "pavane.ends": "/pavane.coordinator",
                "payment.commands": "/pavane.coordinator",
                "pavane.saga-ended": "/pavane.coordinator",
            }.items():
                (record,) = shop.read(topic)
                event = from_binary_event(kafka_message(record))
                assert (event.get_source(), event.get_type()) == (source, texts(record)["ce_type"])
                assert event.get_extension("sagaid") == saga
                assert isinstance(event.get_data(), dict), topic

    asyncio.run(scenario())


def test_a_misplaced_record_ends_in_the_dead_letters_of_everyone_who_hears_it(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            await everyone_has_declared(shop)
            wrong = (partition_of(b"a-saga", PARTITIONS) + 1) % PARTITIONS
            shop.write("shop.order-placed", "a-saga", b"{}", headers_of("a-saga"), partition=wrong)
            for agent in ("payment", "warehouse", "pavane.coordinator"):
                found = await dead_letter_of(shop, agent)
                assert reasons(found)["error_code"] == "partition.misplaced"
                assert (reasons(found)["source_topic"], reasons(found)["source_partition"]) == (
                    "shop.order-placed",
                    str(wrong),
                )
                assert (found.key(), found.value(), found.partition()) == (b"a-saga", b"{}", wrong)
            saga = await shop.stage.publish(TEA)
            assert await shop.stage.ended(saga) == "completed"

    asyncio.run(scenario())


def test_a_record_with_a_doubled_header_ends_in_the_dead_letters_with_its_headers_as_they_came(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            shop.payment.start()
            await everyone_has_declared(shop)
            doubled = [*headers_of("a-saga"), ("ce_id", b"another")]
            shop.write("shop.order-placed", "a-saga", b"{}", doubled)
            shop.write("shop.orders", "any", b"{}", doubled)
            for agent in ("payment", "warehouse"):
                found = await dead_letter_of(shop, agent)
                assert reasons(found)["error_code"] == "header.doubled"
                assert [each["where"] for each in json.loads(reasons(found)["error_problems"])] == ["ce_id"]
                assert raw_headers(found)[: len(doubled)] == doubled

            async def two() -> list[dict[str, str]] | None:
                found = await shop.stage.dead("pavane.coordinator")
                return found if len(found) == 2 else None

            both = await until(two)
            assert {each["source_topic"] for each in both} == {"shop.order-placed", "shop.orders"}
            assert {each["error_code"] for each in both} == {"header.doubled"}

    asyncio.run(scenario())


def headers_of(saga: str) -> list[tuple[str, bytes]]:
    named = {"specversion": "1.0", "id": "an-id", "source": "/test", "type": "shop.order-placed", "sagaid": saga}
    return [(f"ce_{name}", value.encode()) for name, value in named.items()]


def kafka_message(record: Message) -> KafkaMessage:
    headers = {name: value.encode() for name, value in texts(record).items()}
    return KafkaMessage(headers=headers, key=record.key(), value=record.value() or b"")


def declarations(shop: Shop, agent: str) -> list[Message]:
    """The declarations that lie on the topic of facts."""
    found = [each for each in shop.read(FACTS) if texts(each)["ce_type"] == "pavane.fact.declared"]
    return [each for each in found if json.loads(each.value() or b"")["agent"] == agent]


async def everyone_has_declared(shop: Shop) -> None:
    """Wait until nothing that is published from now on is overheard."""

    async def lanes() -> bool:
        facts = [read_fact(each) for each in await shop.stage.events(FACTS)]
        return len([each for each in facts if isinstance(each, Declared)]) == 3 * PARTITIONS

    await until(lanes)


async def dead_letter_of(shop: Shop, agent: str) -> Message:
    """The one dead letter that an agent has, as soon as it has it."""

    async def has_one() -> bool:
        return len(await shop.stage.records(f"{agent}.dead-letters")) > 0

    await until(has_one)
    (found,) = shop.read(f"{agent}.dead-letters")
    return found
