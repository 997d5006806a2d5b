"""Needs: the topics that targets need on the bus that the settings name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pavane.cli.options import settings_for
from pavane.cli.targets import Targets, load_targets
from pavane.plan import plan_of
from pavane.settings import Settings
from pavane_events.bus import TopicSpec
from pavane_events.errors import ConfigurationError, Problem
from pavane_events.topics import WantedTopic, wanted_topics
from pavane_saga.coordinator import topic_specs
from pavane_saga.wire import COORDINATOR

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed, and where. On brokers the changelogs of lane state are among the topics; a file needs none."""

    settings: Settings
    specs: Sequence[TopicSpec]
    wanted: Sequence[WantedTopic]

    @property
    def on_kafka(self) -> bool:
        """Whether brokers are asked, and not a file."""
        return _on_kafka(self.settings)


def needs_of(names: Sequence[str], bus: str | None) -> Needs:
    """What the targets need.

    Raises :class:`ConfigurationError` where a target or setting is wrong, Kafka takes no topic of such a name, or a saga
    may outlive what its topics keep, and :class:`DeclarationError` where an agent cannot start.
    """
    settings = settings_for(bus)
    found = load_targets(names)
    specs = [spec for agent in found.agents for spec in plan_of(agent).topic_specs()]
    groups = [agent.name for agent in found.agents]
    if found.sagas:
        specs += topic_specs(found.sagas)
        groups.append(COORDINATOR)
    if not _on_kafka(settings):
        return Needs(settings, specs, wanted_topics(specs, (), settings.kafka_options().topic_rules))
    outlived = list(_outlived(found, settings.kafka_retention_days))
    if outlived:
        raise ConfigurationError("sagas may outlive what their topics keep", outlived)
    return Needs(settings, specs, wanted_topics(specs, groups, settings.kafka_options().topic_rules))


def _outlived(found: Targets, retention_days: float) -> Iterator[Problem]:
    for saga in found.sagas:
        days = saga.deadline.total_seconds() / _DAY_S
        if days > retention_days:
            fix = (
                f"its deadline is {days:g} days and records are kept for {retention_days:g}: raise PAVANE_KAFKA_RETENTION_DAYS"
            )
            yield Problem(f"saga {saga.name}", "topic.retention", fix)


def _on_kafka(settings: Settings) -> bool:
    return urlsplit(settings.bus).scheme == "kafka"
