"""What a deployment wants of its brokers follows from what agents and sagas declare, and from nothing else."""

from collections.abc import Mapping

import pytest

from pavane_events.bus import MAX_RECORD_BYTES, TopicSpec
from pavane_events.errors import ConfigurationError
from pavane_events.topics import (
    DAY_MS,
    FoundTopic,
    TopicRules,
    WantedTopic,
    differences,
    usual_partitions,
    wanted_topics,
    wrong_partitions,
)

EVENTS = TopicSpec("shop.paid")
TABLE = TopicSpec("pavane.agents", compacted=True)
LETTERS = TopicSpec("payment.dead-letters")


def wanted(*specs: TopicSpec, groups: tuple[str, ...] = (), rules: TopicRules | None = None) -> dict[str, WantedTopic]:
    return {topic.name: topic for topic in wanted_topics(specs, groups, rules or TopicRules())}


def found(topic: WantedTopic, partitions: int = 4, replication: int = 1, **changed: str) -> FoundTopic:
    config = {**topic.config, **{key.replace("_", "."): value for key, value in changed.items()}}
    return FoundTopic(topic.name, partitions, replication, config)


def all_found(topics: Mapping[str, WantedTopic]) -> dict[str, FoundTopic]:
    return {name: found(topic) for name, topic in topics.items()}


def test_every_group_has_a_compacted_changelog_of_its_state() -> None:
    topics = wanted(EVENTS, groups=("payment", "pavane.coordinator"))
    assert set(topics) == {"shop.paid", "payment.state", "pavane.coordinator.state"}
    assert topics["payment.state"].kind == "state"
    assert topics["payment.state"].config["cleanup.policy"] == "compact"


def test_a_changelog_that_is_declared_as_a_topic_is_the_same_one() -> None:
    declared = wanted(TopicSpec("payment.state", compacted=True))
    assert declared == wanted(groups=("payment",))


def test_events_are_kept_as_long_as_the_deployment_says_and_dead_letters_for_ever() -> None:
    topics = wanted(EVENTS, LETTERS, rules=TopicRules(retention_days=2))
    assert topics["shop.paid"].config["retention.ms"] == str(2 * DAY_MS)
    assert topics["payment.dead-letters"].config["retention.ms"] == "-1"
    assert all(topic.config["retention.bytes"] == "-1" for topic in topics.values())


def test_the_clock_of_the_brokers_stamps_every_record_and_the_largest_record_fits() -> None:
    for topic in wanted(EVENTS, TABLE, LETTERS, groups=("payment",)).values():
        assert topic.config["message.timestamp.type"] == "LogAppendTime"
        assert int(topic.config["max.message.bytes"]) > MAX_RECORD_BYTES
        assert topic.config["unclean.leader.election.enable"] == "false"


@pytest.mark.parametrize(("replication", "in_sync"), [(None, None), (1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_with_three_copies_a_record_counts_when_two_have_it(replication: int | None, in_sync: str | None) -> None:
    topics = wanted(EVENTS, rules=TopicRules(replication=replication))
    assert topics["shop.paid"].config.get("min.insync.replicas") == in_sync


def test_names_that_kafka_would_refuse_are_all_reported() -> None:
    with pytest.raises(ConfigurationError) as raised:
        wanted(TopicSpec("no spaces"), TopicSpec("x" * 245), EVENTS, rules=TopicRules(prefix="prod."))
    assert [problem.where for problem in raised.value.problems] == ["no spaces", "x" * 245]


def test_a_name_declared_as_two_kinds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"declared as log and as table"):
        wanted(EVENTS, TopicSpec("shop.paid", compacted=True))


def test_no_difference_where_all_is_as_wanted() -> None:
    topics = wanted(EVENTS, TABLE, LETTERS, groups=("payment",))
    assert not differences(list(topics.values()), all_found(topics), 4)


def test_what_differs_is_told_apart() -> None:
    topics = wanted(EVENTS, TABLE, LETTERS, groups=("payment",))
    there = {
        "shop.paid": found(topics["shop.paid"], retention_ms="1000"),
        "pavane.agents": found(topics["pavane.agents"], partitions=3),
        "payment.state": found(topics["payment.state"], replication=3),
        "of.another.agent": FoundTopic("of.another.agent", 4, 1, {}),
    }
    seen = differences(list(topics.values()), there, 4, replication=1)
    assert [topic.name for topic in seen.missing] == ["payment.dead-letters"]
    assert seen.config == {"shop.paid": {"retention.ms": ("1000", str(30 * DAY_MS))}}
    assert seen.partitions == {"pavane.agents": 3}
    assert seen.replication == {"payment.state": 3}
    assert seen.undeclared == ("of.another.agent",)
    assert seen


def test_topics_of_others_are_no_difference() -> None:
    assert not differences([], {"of.another.agent": FoundTopic("of.another.agent", 9, 1, {})}, 4)


def test_a_deployment_that_names_no_partition_count_has_the_one_that_most_of_its_topics_have() -> None:
    topics = wanted(EVENTS, TABLE, LETTERS)
    there = {name: found(topic, partitions=6) for name, topic in topics.items()}
    there["shop.paid"] = found(topics["shop.paid"], partitions=12)
    there["of.another.deployment"] = FoundTopic("of.another.deployment", 50, 1, {})
    assert usual_partitions(list(topics.values()), there) == 6
    assert usual_partitions(list(topics.values()), {}) is None


def test_another_partition_count_is_an_error_that_names_the_topics_and_the_ways_out() -> None:
    error = wrong_partitions({"shop.paid": 3, "shop.shipped": 1}, 4)
    assert [str(problem) for problem in error.problems] == [
        "shop.paid: it has 3 partitions and this deployment 4",
        "shop.shipped: it has 1 partition and this deployment 4",
    ]
    assert "PAVANE_PARTITIONS" in str(error)
    assert "PAVANE_KAFKA_PREFIX" in str(error)
