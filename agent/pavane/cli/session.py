"""Session: one command with one bus, opened as the settings say and closed whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pavane.cli.logs import set_up_logs
from pavane.cli.options import settings_for
from pavane.settings import Settings
from pavane_events.bus import Bus
from pavane_events.errors import BusUnavailable, ConfigurationError, Problem

T = TypeVar("T")


async def open_by(settings: Settings) -> Bus:
    """The bus that the settings name; a file that does not exist is made."""
    from pavane_events.buses.address import open_bus

    kafka = settings.kafka_options()
    return await open_bus(settings.bus, partitions=settings.partitions, synchronous=settings.synchronous, kafka=kafka)


def brokers(settings: Settings) -> str:
    """The brokers that the settings name, for a command that speaks to them without a bus.

    Raises :class:`ConfigurationError` where the address is wrong or the Kafka client is missing.
    """
    from pavane_events.buses.address import servers_of
    from pavane_events.buses.kafka.client import check_version

    set_up_logs(settings.log)
    servers = servers_of(settings.bus)
    check_version()
    return servers


def with_bus(url: str | None, work: Callable[[Bus], Awaitable[T]], *, create: bool = False, dry_run: bool = False) -> T:
    """Do some work with the bus, and close it. Without ``create`` a bus file must be there: a typo makes no new one.

    ``dry_run``: a file that would be made is not made; an empty bus that is forgotten stands in for it.
    """
    settings = settings_for(url)
    set_up_logs(settings.log)
    if not create:
        _check_exists(settings.bus)
    elif dry_run and _missing(settings.bus) is not None:
        settings = settings.model_copy(update={"bus": "memory://"})

    async def do() -> T:
        async with await open_by(settings) as bus:
            return await work(bus)

    return asyncio.run(do())


async def check_deployed(bus: Bus) -> None:
    """Raise :class:`ConfigurationError` where nothing of Pavane is on the brokers: the prefix may be missing, or wrong."""
    from pavane_saga.wire import FACTS

    if not bus.embedded and FACTS not in await bus.topics():
        message = (
            f"there is no topic {FACTS}: name the deployment by PAVANE_KAFKA_PREFIX, or make its topics: pavane topics apply"
        )
        raise ConfigurationError(
            "no deployment of Pavane is to be seen there", [Problem("bus", "deployment.missing", message)]
        )


def _check_exists(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "memory":
        problem = Problem("bus", "bus.private", "a memory bus lives in one process only; name a file: sqlite:///pavane.db")
        raise ConfigurationError(f"{url!r} cannot be looked at from here", [problem])
    path = _missing(url)
    if path is not None:
        raise BusUnavailable(
            f"there is no bus file {path}; name another with --bus or PAVANE_BUS, or let `pavane run` make it"
        )


def _missing(url: str) -> Path | None:
    """The bus file that an address names, if there is none."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path[1:]))
    return path if parts.scheme == "sqlite" and parts.path[1:] and not path.exists() else None
