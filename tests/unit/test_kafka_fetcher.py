"""The fetcher says how each partition does: what was wrong for a moment is forgotten, what lasts is told."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from pavane.simulation.virtual_time import VirtualLoop
from pavane_events.buses.kafka import fetcher
from pavane_events.buses.kafka.failures import TOPIC_FORBIDDEN, Refused
from pavane_events.buses.kafka.fetcher import FORBIDDEN_S, Fetcher
from pavane_events.buses.kafka.fetching import Answer, unpack
from pavane_events.record import Record

PLACE = TopicPartition("in", 0)
NODE = 1


def now() -> float:
    return asyncio.get_running_loop().time()


class Brokers:
    """A cluster whose leader is known, and whose answers are good, as the time says. Nothing is ever new."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        leads: Callable[[float], bool] = lambda now: True,
        code: Callable[[float], int] = lambda now: 0,
    ) -> None:
        self.cluster = self
        self.unauthorized_topics: frozenset[str] = frozenset()
        self._leads = leads
        self._code = code
        monkeypatch.setattr(fetcher, "time", SimpleNamespace(monotonic=now))
        monkeypatch.setattr(fetcher, "FetchSession", self.session)

    def session(self, client: object, node: int, wait_ms: int) -> "Brokers":
        return self

    def leader_for_partition(self, place: TopicPartition) -> int | None:
        return NODE if self._leads(now()) else None

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    def force_metadata_update(self) -> "asyncio.Future[bool]":
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        known.set_result(True)
        return known

    async def fetch(self, wanted: Mapping[TopicPartition, int]) -> list[Answer]:
        await asyncio.sleep(0.05)
        code = self._code(now())
        return [Answer(PLACE, wanted[PLACE], code, iter(()))] if code else []


def deliver(place: TopicPartition, records: list[Record], after: int) -> None:
    raise AssertionError("nothing is new")


def virtually(work: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


async def run_for(brokers: Brokers, seconds: float) -> Fetcher:
    fetching = Fetcher(cast("AIOKafkaClient", brokers), 50, deliver)
    fetching.seek(PLACE, 7)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await fetching.run()
    return fetching


def test_a_partition_whose_leader_was_unknown_for_a_moment_is_well_also_where_nothing_new_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        brokers = Brokers(monkeypatch, leads=lambda now: now > 4.0)
        silence = (await run_for(brokers, 3.0)).silence([PLACE])
        assert silence.seconds == pytest.approx(3.0)
        assert "LeaderNotAvailable" in silence.trouble
        silence = (await run_for(brokers, 10.0)).silence([PLACE])
        assert silence.seconds < 0.2
        assert not silence.trouble

    virtually(scenario())


def test_a_topic_that_is_forbidden_for_a_moment_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        silence = (await run_for(brokers, 11.9)).silence([PLACE])
        assert silence.seconds < 0.2
        assert not silence.trouble

    brokers = Brokers(monkeypatch, code=lambda now: TOPIC_FORBIDDEN if now % 4.0 < FORBIDDEN_S - 1.0 else 0)
    virtually(scenario())


def test_a_topic_that_stays_forbidden_ends_the_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with pytest.raises(Refused, match="in") as raised:
            await run_for(brokers, 10.0)
        assert raised.value.code == TOPIC_FORBIDDEN
        assert FORBIDDEN_S <= now() < FORBIDDEN_S + 1.0

    brokers = Brokers(monkeypatch, code=lambda now: TOPIC_FORBIDDEN)
    virtually(scenario())


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_are_read_whatever_others_have_compressed_them_with(codec: str) -> None:
    number = ["none", "gzip", "snappy", "lz4", "zstd"].index(codec)
    batch = DefaultRecordBatchBuilder(2, number, 0, -1, -1, -1, 1_000_000)
    values = [str(number).encode() * 1_000 for number in range(100)]
    for offset, value in enumerate(values):
        batch.append(offset, 1_700_000_000_000, b"key", value, [])
    portions = list(unpack(bytes(batch.build()), (), "in", 0, 0))
    assert [record.value for records, _ in portions for record in records] == values
