"""A proxy between clients and a real broker, that cuts a connection in the middle of one request.

Whoever loses a connection cannot know whether what was asked for was done. Both ways can be played for every request
of the protocol: cut before the broker gets it, or when the broker has answered and before the client hears of it.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

When = Literal["before", "after"]

_FIRST = struct.Struct(">hhih")
"""API key, API version, correlation id, length of the client id."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which request: by API key, of clients whose id contains a text."""

    api: int
    client: str
    when: When


@dataclass(slots=True)
class Proxy:
    """Forwards to a broker. ``cut`` is what to do next; it is done once, and ``done`` counts how often."""

    broker_port: int
    cut: Cut | None = None
    done: int = 0
    _connections: "set[asyncio.StreamWriter]" = field(default_factory=lambda: set[asyncio.StreamWriter]())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.broker_port)
        marked: set[int] = set()
        self._connections |= {writer, up_writer}
        answers = asyncio.create_task(self._answers(up_reader, writer, marked))
        try:
            while True:
                frame = await _frame(reader)
                cut = self._hits(frame)
                if cut is not None and cut.when == "before":
                    break
                if cut is not None:
                    marked.add(_FIRST.unpack_from(frame)[2])
                up_writer.write(struct.pack(">i", len(frame)) + frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for each in (writer, up_writer):
                each.close()
                self._connections.discard(each)
            answers.cancel()
            with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await answers

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, marked: set[int]) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame = await _frame(reader)
                if struct.unpack_from(">i", frame)[0] in marked:
                    break
                writer.write(struct.pack(">i", len(frame)) + frame)
        writer.close()

    def _hits(self, frame: bytes) -> Cut | None:
        """The cut that this request is hit by, which is then used up."""
        api, _, _, length = _FIRST.unpack_from(frame)
        client = frame[_FIRST.size : _FIRST.size + max(0, length)].decode()
        cut = self.cut
        if cut is None or cut.api != api or cut.client not in client:
            return None
        self.cut = None
        self.done += 1
        return cut

    def close(self) -> None:
        """End every connection."""
        for each in self._connections:
            each.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


@asynccontextmanager
async def proxied(broker_port: int, port: int) -> AsyncGenerator[Proxy]:
    """A proxy that listens on a port of this host."""
    proxy = Proxy(broker_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    try:
        yield proxy
    finally:
        server.close()
        proxy.close()
        await server.wait_closed()
