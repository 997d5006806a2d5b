"""Provision: a deployment's topics held against its brokers', and brought into being there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pavane_events.buses.kafka.admin import Admin
from pavane_events.buses.kafka.connecting import connected
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.topics import (
    DEFAULT_PARTITIONS,
    TopicDifferences,
    WantedTopic,
    differences,
    usual_partitions,
    wrong_partitions,
)


@dataclass(frozen=True, slots=True)
class Compared:
    """How far the brokers' topics differ from this deployment's, and the partition count they were held against."""

    partitions: int
    differences: TopicDifferences


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, or would be: topics made by this call, settings changed by topic; and what remains different."""

    partitions: int
    created: tuple[str, ...]
    altered: Mapping[str, Mapping[str, tuple[str | None, str]]]
    remaining: TopicDifferences


async def compare(servers: str, options: KafkaOptions, wanted: Collection[WantedTopic], partitions: int | None) -> Compared:
    """Look, and change nothing. ``partitions`` None: as most of the topics that exist have, else 4.

    Raises :class:`BusUnavailable`, and :class:`ConfigurationError` where the brokers refuse.
    """
    async with connected(servers, options, client_id=options.physical("topics")) as client:
        return await _compare(Admin(client, options), options, wanted, partitions)


async def apply(
    servers: str, options: KafkaOptions, wanted: Collection[WantedTopic], partitions: int | None, *, dry_run: bool = False
) -> Applied:
    """Create what is missing and set what is set otherwise; deletes nothing, and changes no partition count.

    Ends when every broker knows every topic and its leaders. Idempotent; several at once come to the same. ``dry_run``:
    the brokers check all of it and do nothing. Raises :class:`ConfigurationError` for topics with another partition
    count, or that the brokers refuse, before anything is done (but for what others do at this moment), and
    :class:`BusUnavailable`, in the middle, too: apply again.
    """
    async with connected(servers, options, client_id=options.physical("topics")) as client:
        admin = Admin(client, options)
        before = await _compare(admin, options, wanted, partitions)
        count = before.partitions
        _check(before)
        created = await admin.create(before.differences.missing, count, validate_only=True)
        others = [topic.name for topic in before.differences.missing if topic.name not in created]
        if others:  # made a moment ago; the broker that was asked had not heard of them
            await admin.wait_for_leaders(others)
            before = await _compare(admin, options, wanted, count)
            _check(before)
        left = before.differences
        if not dry_run:
            created = await admin.create(before.differences.missing, count)
            await admin.wait_for_leaders([topic.name for topic in wanted])
            after = await _compare(admin, options, wanted, count)
            _check(after)  # somebody else was faster, and thinks otherwise
            left = after.differences
        changes = {name: {key: should for key, (_, should) in each.items()} for name, each in left.config.items()}
        await admin.alter_configs(changes, validate_only=dry_run)
        return Applied(count, tuple(sorted(created)), left.config, left)


def _check(compared: Compared) -> None:
    if compared.differences.partitions:
        raise wrong_partitions(compared.differences.partitions, compared.partitions)


async def _compare(admin: Admin, options: KafkaOptions, wanted: Collection[WantedTopic], partitions: int | None) -> Compared:
    found = await admin.describe({topic.name: topic.config for topic in wanted})
    count = partitions or usual_partitions(wanted, found) or DEFAULT_PARTITIONS
    return Compared(count, differences(wanted, found, count, options.replication))
