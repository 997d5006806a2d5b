"""From an address to a bus: ``memory://``, ``sqlite:///pavane.db``, ``sqlite:////var/lib/pavane.db`` (absolute)."""

from urllib.parse import unquote, urlsplit

from pavane_events.bus import Bus
from pavane_events.buses.memory import MemoryBus
from pavane_events.buses.sqlite import SqliteBus
from pavane_events.buses.sqlite_file import Synchronous
from pavane_events.errors import ConfigurationError, Problem

_KNOWN = "use sqlite:///path/to/pavane.db (four slashes for an absolute path), or memory:// for a bus that is forgotten"


async def open_bus(url: str, *, partitions: int | None = None, synchronous: Synchronous = "NORMAL") -> Bus:
    """Open the bus at an address.

    ``partitions`` is for a bus that is new; one that exists has its own count, and asking for another raises
    ConfigurationError, as does an address that no adapter knows. Other errors are the adapter's own.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "memory" if not parts.netloc and parts.path in ("", "/"):
            return MemoryBus() if partitions is None else MemoryBus(partitions)
        case "sqlite" if not parts.netloc and len(parts.path) > 1:
            return await SqliteBus.open(unquote(parts.path[1:]), partitions, synchronous=synchronous)
        case "kafka":
            raise _wrong(url, "the Kafka adapter is not part of this version; " + _KNOWN)
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


def _wrong(url: str, message: str) -> ConfigurationError:
    shown = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()  # never a password
    return ConfigurationError(f"{shown!r} is no address of a bus", [Problem("bus", "bus.address", message)])
