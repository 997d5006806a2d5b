"""The wire of a request: the connection that it goes by, which another thread can cut where the answer takes too long.

The time-outs of a socket are of each read: an answer that dribbles never meets one.
"""

import socket
import threading
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

_HERE = threading.local()


class Wire:
    """The latest connection of one thread, which sends one request at a time."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self.is_cut = False

    def lay(self) -> None:
        """What this thread connects is on this wire, from now on."""
        _HERE.wire = self
        self.is_cut = False

    def hold(self, connection: HTTPConnection) -> None:
        """This thread connects it now."""
        self._connection = connection

    def cut(self) -> None:
        """Whoever reads from it, or writes, gets an error now. From any thread."""
        self.is_cut = True
        connection = self._connection
        sock: object = connection.sock if connection is not None else None
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # a TLS socket's own forgets its state, while it is read


class _Plain(HTTPConnection):
    def connect(self) -> None:
        _hold(self)
        super().connect()


class _Tls(HTTPSConnection):
    def connect(self) -> None:
        _hold(self)
        super().connect()


class HttpPool(HTTPConnectionPool):
    """To an address without TLS; errors tell its name."""

    ConnectionCls = _Plain  # pyright: ignore[reportAssignmentType] - urllib3's own does not meet its protocol


class HttpsPool(HTTPSConnectionPool):
    """To one with TLS."""

    ConnectionCls = _Tls  # pyright: ignore[reportAssignmentType]


_POOLS: dict[str, type[HTTPConnectionPool] | type[HTTPSConnectionPool]] = {"http": HttpPool, "https": HttpsPool}


class WiredAdapter(HTTPAdapter):
    """The adapter of a session whose connections are on wires; those by way of SOCKS are not."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Called by requests."""
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        """Called by requests."""
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager


def _hold(connection: HTTPConnection) -> None:
    wire: object = getattr(_HERE, "wire", None)
    if isinstance(wire, Wire):
        wire.hold(connection)
