"""Opening: a lane is read from its changelog, never older than its offsets, and told where it begins to read."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from pavane_events.bus import Start
from pavane_events.buses.kafka.changelog import TOPIC, Restored, restore
from pavane_events.buses.kafka.failures import Refused
from pavane_events.buses.kafka.fetching import EARLIEST, LATEST, list_offsets
from pavane_events.buses.kafka.group import Group
from pavane_events.buses.kafka.places import Places
from pavane_events.buses.kafka.signature import Signature
from pavane_events.buses.kafka.transactions import Producer
from pavane_events.errors import BusUnavailable

log = logging.getLogger("pavane.kafka")

_FENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Opening:
    """What one member needs to open lanes of its group. ``own`` is its transactional id."""

    places: Places
    name: str
    group: Group
    client: AIOKafkaClient
    own: str

    def changelog(self, partition: int) -> TopicPartition:
        """Where a lane's state lies."""
        return self.places.of(self.name + TOPIC, partition)

    async def read(self, partition: int, topics: Collection[str]) -> tuple[Restored, Mapping[str, int]]:
        """A lane as its last holder left it, and the offsets from which the group goes on, of those topics that have one.

        The order is what makes it safe: offsets first, read stably, so that no former holder can commit any more; then
        the changelog, up to where it ends after that. The lane's row counts before the group's offsets: those expire.
        """
        changelog = self.changelog(partition)
        places = {self.places.of(topic, partition): topic for topic in topics}
        await self._fence_the_dead(changelog)
        found = await self.group.offsets([changelog, *places], stable=True)
        restored = await restore(self.client, changelog, self.places.room)
        stamp = Signature.parse(found.get(changelog, (0, ""))[1]).stamp
        if stamp and _order(stamp) > _order(restored.row.stamp):
            restored.state.close()
            raise BusUnavailable(
                f"the changelog of lane {partition} ({restored.row.stamp}) is older than its offsets ({stamp})"
            )
        committed = {topic: found[place][0] for place, topic in places.items() if place in found}
        return restored, {**committed, **restored.row.offsets}

    async def starts(self, partition: int, topics: Collection[str], start: Start) -> Mapping[str, int]:
        """Where a lane begins topics of which nothing was committed yet."""
        missing = {self.places.of(topic, partition): topic for topic in topics}
        if not missing:
            return {}
        offsets = await list_offsets(self.client, missing, EARLIEST if start == "earliest" else LATEST)
        return {topic: offsets[place] for place, topic in missing.items()}

    async def signatures(self, partitions: Collection[int]) -> Mapping[int, Signature]:
        """Whose the last commits of lanes were; settled ones only."""
        places = {self.changelog(partition): partition for partition in partitions}
        found = await self.group.offsets(places, stable=True)
        return {partition: Signature.parse(found.get(place, (0, ""))[1]) for place, partition in places.items()}

    def producer(self, transactional_id: str) -> Producer:
        """A producer as this deployment's options want it."""
        options = self.places.options
        return Producer(
            self.client,
            transactional_id,
            timeout_ms=options.transaction_timeout_ms,
            request_ms=options.request_timeout_ms,
            backoff_ms=options.retry_backoff_ms,
        )

    async def _fence_the_dead(self, changelog: TopicPartition) -> None:
        """A former holder that is no member any more may have left a transaction open: end it now, not by its timeout.

        An accelerator only. What must not happen is kept from happening by generations and stable reads.
        """
        last = await self.group.offsets([changelog], stable=False)
        holders = {Signature.parse(metadata) for _, metadata in last.values()}
        holders = {each for each in holders if each.producer not in (self.own, "")}
        if not holders:
            return
        try:
            members = await self.group.members()
        except KafkaError as error:
            log.info("the members of %s cannot be asked for: %r", self.name, error)
            return
        for each in holders:
            if each.is_of_one(members):
                continue
            try:
                async with asyncio.timeout(_FENCE_S):
                    await self.producer(each.producer).initialise()
            except (KafkaError, Refused, TimeoutError) as error:
                log.info("what %s left open ends by its timeout: %r", each.producer, error)


def _order(stamp: str) -> tuple[int, ...]:
    return tuple(map(int, stamp.split(".")))
