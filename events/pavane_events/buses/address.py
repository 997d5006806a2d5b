"""From an address to a bus.

``memory://``, ``sqlite:///pavane.db``, ``sqlite:////var/lib/pavane.db`` (absolute), ``kafka://host:port,host:port``.
"""

import re
from urllib.parse import SplitResult, unquote, urlsplit

from pavane_events.bus import Bus
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.buses.sqlite_file import Synchronous
from pavane_events.errors import ConfigurationError, Problem

_KNOWN = (
    "use kafka://host:port,host:port, sqlite:///path/to/pavane.db (four slashes for an absolute path), "
    "or memory:// for a bus that is forgotten"
)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


async def open_bus(
    url: str,
    *,
    partitions: int | None = None,
    synchronous: Synchronous = "NORMAL",
    kafka: KafkaOptions | None = None,
) -> Bus:
    """Open the bus at an address. ``synchronous`` is for a file, ``kafka`` for brokers.

    ``partitions`` is for a bus that is new; one that exists has its own count, and asking for another raises
    ConfigurationError, as does an address that no adapter knows. Other errors are the adapter's own.
    """
    parts = _split(url)
    match parts.scheme:
        case "memory" if not parts.netloc and parts.path in ("", "/"):
            return MemoryBus() if partitions is None else MemoryBus(partitions)
        case "sqlite" if not parts.netloc and len(parts.path) > 1:
            return await SqliteBus.open(unquote(parts.path[1:]), partitions, synchronous=synchronous)
        case "kafka":
            return await _open_kafka(servers_of(url), partitions, kafka or KafkaOptions())
        case "sqlite" if parts.netloc:
            raise _wrong(url, f"{parts.netloc!r} stands where a host would; did you mean sqlite:///{url[9:]}?")
        case "sqlite":
            raise _wrong(url, "it names no file; " + _KNOWN)
        case "memory":
            raise _wrong(url, "a memory bus has no name and no path; " + _KNOWN)
        case "":
            raise _wrong(url, f"it has no scheme; did you mean sqlite:///{url}?")
        case _:
            raise _wrong(url, f"no adapter for {parts.scheme}://; " + _KNOWN)


async def _open_kafka(servers: str, partitions: int | None, options: KafkaOptions) -> Bus:
    from pavane_events.buses.kafka.client import check_version

    check_version()
    from pavane_events.buses.kafka.bus import KafkaBus

    return await KafkaBus.open(servers, partitions, options)


def servers_of(url: str) -> str:
    """The brokers that a Kafka address names, as ``host:port,host:port``. Raises ConfigurationError with what is wrong."""
    parts = _split(url)
    problems: list[Problem] = []
    if "@" in url:
        fix = "nobody's name or password: set PAVANE_KAFKA_USERNAME, and PAVANE_KAFKA_PASSWORD or PAVANE_KAFKA_PASSWORD_FILE"
        problems.append(Problem("bus", "bus.credentials", fix))
        parts = _split(_shown(url))
    if parts.path.strip("/"):
        fix = f"{parts.path!r} means nothing here: a deployment's own names are kept apart by PAVANE_KAFKA_PREFIX"
        problems.append(Problem("bus", "bus.address", fix))
    if parts.query or parts.fragment:
        problems.append(Problem("bus", "bus.address", "options are settings: see docs/reference/settings.md"))
    servers = parts.netloc.split(",")
    problems += [Problem("bus", "bus.address", message) for message in map(_wrong_server, servers) if message is not None]
    if problems:
        raise ConfigurationError(f"{_shown(url)!r} is no address of a bus", problems)
    return ",".join(servers)


def _wrong_server(server: str) -> str | None:
    found = _SERVER.fullmatch(server)
    if found is not None:
        return None if 0 < int(found["port"]) <= 65535 else f"{server!r}: a port is a number from 1 to 65535"
    if not server:
        return "it names no broker, or has one comma too many; use kafka://host:port,host:port"
    if server.count(":") > 1 and "[" not in server:
        return f"{server!r}: an IPv6 address stands in brackets, as in [::1]:9092"
    if ":" not in server or server.endswith("]"):
        return f"{server!r} has no port; did you mean {server}:9092?"
    return f"{server!r} is no host:port"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:  # a bracket that is not closed
        problem = Problem("bus", "bus.address", f"{error}; {_KNOWN}")
        raise ConfigurationError("that is no address of a bus", [problem]) from None


def _wrong(url: str, message: str) -> ConfigurationError:
    return ConfigurationError(f"{_shown(url)!r} is no address of a bus", [Problem("bus", "bus.address", message)])


def _shown(url: str) -> str:
    """The address without what stands before the last @: never a password, with a slash in it or not."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
