"""Topics as a deployment wants them on its brokers, and how far what is there differs. No I/O.

Each topic has every setting that a guarantee rests on, so that a broker's own defaults cannot take it away.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pavane_events.bus import TopicSpec
from pavane_events.errors import ConfigurationError, Problem

Kind = Literal["log", "dead-letters", "table", "state"]

DAY_MS = 24 * 60 * 60 * 1000
DEFAULT_PARTITIONS = 4
"""Of a deployment that says nothing and has no topic yet."""

MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default, said aloud: a record of ``MAX_RECORD_BYTES`` in its frame fits."""

_LEGAL = re.compile(r"[A-Za-z0-9._-]{1,249}")
_DEAD_LETTERS = ".dead-letters"
_STATE = ".state"
_FOREVER = "-1"


@dataclass(frozen=True, slots=True)
class TopicRules:
    """What a deployment decides for all its topics. ``replication`` None: the brokers' default, its in-sync rule, too."""

    prefix: str = ""
    replication: int | None = None
    retention_days: float = 30.0


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should be: its name inside the deployment, what it is, and its settings in Kafka's words."""

    name: str
    kind: Kind
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the brokers have it. ``config``: those of its settings that were asked for, defaults resolved."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicDifferences:
    """What must be done (``missing``, ``config``), what no tool may do to topics with records, and what is merely there.

    ``partitions`` and ``replication``: by topic, what it has instead. ``config``: by topic and setting, is and should.
    """

    missing: tuple[WantedTopic, ...]
    partitions: Mapping[str, int]
    replication: Mapping[str, int]
    config: Mapping[str, Mapping[str, tuple[str | None, str]]]
    undeclared: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether something is not as wanted. Topics that nobody declares are no difference."""
        return bool(self.missing or self.partitions or self.replication or self.config)


def state_topic(group: str) -> str:
    """The changelog of a group's lane state."""
    return group + _STATE


def wanted_topics(specs: Iterable[TopicSpec], groups: Iterable[str], rules: TopicRules) -> list[WantedTopic]:
    """What is needed by groups that need these topics, by name; the groups' state topics come with it.

    Raises :class:`ConfigurationError` with every name that Kafka does not take and every one declared in two ways.
    """
    kinds: dict[str, Kind] = {}
    problems: list[Problem] = []
    needed: list[tuple[str, Kind]] = [(spec.name, kind_of(spec)) for spec in specs]
    needed.extend((state_topic(group), "state") for group in groups)
    for name, kind in needed:
        if kinds.setdefault(name, kind) != kind:
            problems.append(Problem(name, "topic.kind", f"it is declared as {kinds[name]} and as {kind}: rename one of them"))
    for name in kinds:
        if not _LEGAL.fullmatch(rules.prefix + name):
            fix = "with the prefix, Kafka takes 1 to 249 of A-Z a-z 0-9 . _ - as a topic's name"
            problems.append(Problem(name, "topic.name", fix))
    if problems:
        raise ConfigurationError("not all topics can be made", problems)
    return [WantedTopic(name, kind, config_of(kind, rules)) for name, kind in sorted(kinds.items())]


def kind_of(spec: TopicSpec) -> Kind:
    """What a declared topic is for."""
    if spec.name.endswith(_STATE) and spec.compacted:
        return "state"
    if spec.compacted:
        return "table"
    return "dead-letters" if spec.name.endswith(_DEAD_LETTERS) else "log"


def config_of(kind: Kind, rules: TopicRules) -> dict[str, str]:
    """The settings of a topic; ``docs/reference/topics.md`` gives the reasons."""
    config = {
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
    }
    if rules.replication is not None:
        config["min.insync.replicas"] = "2" if rules.replication >= 3 else "1"
    match kind:
        case "log":
            config |= _kept(str(round(rules.retention_days * DAY_MS)))
        case "dead-letters":
            config |= _kept(_FOREVER)
        case "table":
            config |= _compacted(segment_bytes=16 * 1024 * 1024, segment_ms=60 * 60 * 1000)
        case "state":
            config |= _compacted(segment_bytes=64 * 1024 * 1024, segment_ms=10 * 60 * 1000)
    return config


def _kept(retention_ms: str) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": retention_ms, "retention.bytes": _FOREVER}


def _compacted(segment_bytes: int, segment_ms: int) -> dict[str, str]:
    """Only closed segments are compacted, so small and short-lived ones bound what a restore reads."""
    return {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.2",
        "max.compaction.lag.ms": str(DAY_MS),
        "delete.retention.ms": str(DAY_MS),
        "segment.bytes": str(segment_bytes),
        "segment.ms": str(segment_ms),
    }


def usual_partitions(wanted: Collection[WantedTopic], found: Mapping[str, FoundTopic]) -> int | None:
    """The partition count that most of the wanted topics have that exist; None where none does."""
    counts = Counter(found[topic.name].partitions for topic in wanted if topic.name in found)
    return max(counts, key=lambda count: (counts[count], count)) if counts else None


def differences(
    wanted: Collection[WantedTopic], found: Mapping[str, FoundTopic], partitions: int, replication: int | None = None
) -> TopicDifferences:
    """How far what is found is from what is wanted, with that partition count and, unless None, replication."""
    there = [(topic, found[topic.name]) for topic in wanted if topic.name in found]
    names = {topic.name for topic in wanted}
    changes = {topic.name: _changes(topic.config, each.config) for topic, each in there}
    return TopicDifferences(
        missing=tuple(topic for topic in wanted if topic.name not in found),
        partitions={each.name: each.partitions for _, each in there if each.partitions != partitions},
        replication={each.name: each.replication for _, each in there if replication not in (None, each.replication)},
        config={name: change for name, change in changes.items() if change},
        undeclared=tuple(sorted(name for name in found if name not in names)),
    )


def _changes(wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str | None, str]]:
    return {key: (found.get(key), value) for key, value in wanted.items() if found.get(key) != value}


def wrong_partitions(counts: Mapping[str, int], partitions: int) -> ConfigurationError:
    """The error for topics with another partition count than the deployment's: it is never changed under records."""
    problems = [
        Problem(name, "topic.partitions", f"it has {_partitions(count)} and this deployment {partitions}")
        for name, count in sorted(counts.items())
    ]
    return ConfigurationError(
        f"topics have another partition count, which moves no record to its new place: {partitions_fix(partitions)}", problems
    )


def partitions_fix(partitions: int) -> str:
    """What to do about topics with another partition count than that."""
    return (
        f"where {partitions} is wrong, set PAVANE_PARTITIONS; else begin under another PAVANE_KAFKA_PREFIX, or, when all "
        "sagas have ended, stop every agent, delete the topics with Kafka's own tools and apply again"
    )


def _partitions(count: int) -> str:
    return f"{count} partition" if count == 1 else f"{count} partitions"
