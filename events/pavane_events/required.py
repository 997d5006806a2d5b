"""Required: the topics that somebody needs are there, made where the bus is embedded, asked for where it is not."""

from collections.abc import Collection

from pavane_events.bus import Bus, TopicSpec
from pavane_events.errors import ConfigurationError, Problem


async def require_topics(bus: Bus, specs: Collection[TopicSpec]) -> None:
    """See that these topics exist. On an embedded bus those that do not are created.

    On brokers nothing is created behind anybody's back: raises :class:`ConfigurationError` with every topic that is missing.
    """
    if bus.embedded:
        await bus.create_topics(specs)
        return
    there = set(await bus.topics())
    missing = sorted({spec.name for spec in specs} - there)
    if missing:
        raise ConfigurationError(
            "topics are missing on the brokers: let `pavane topics apply TARGET...` create them",
            [Problem(name, "topic.missing", "it does not exist") for name in missing],
        )
