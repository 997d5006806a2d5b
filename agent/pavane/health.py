"""Health: whether a process is alive and ready, over HTTP, for containers and their orchestrators.

``GET /live`` is 200 while the event loop turns. ``GET /ready`` is 200 while every group has been joined and every lane
that this process holds is polled, else 503; both answer with JSON that says how each lane does.
"""

import asyncio
import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pavane_events.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a process does. ``lanes``: one object per lane, with the fields that its bus gives."""

    ready: bool
    why: str
    lanes: Sequence[Mapping[str, object]]

    def to_json(self) -> bytes:
        """As it is served."""
        return json.dumps({"ready": self.ready, "why": self.why, "lanes": list(self.lanes)}).encode() + b"\n"


@runtime_checkable
class Telling(Protocol):
    """A bus that tells how its lanes do."""

    def health(self) -> "Sequence[DataclassInstance]":
        """How each lane does that this process holds; with fields ``polling`` and ``trouble``."""
        ...

    def unready(self) -> str:
        """Why not every group has its lanes yet; empty where all have."""
        ...


class Board:
    """What the process knows of itself. Written and read in its event loop."""

    def __init__(self) -> None:
        self._bus: Telling | None = None
        self._why = "starting"

    def waiting(self, why: str) -> None:
        """Not ready, for this reason."""
        self._why, self._bus = why, None

    def joined(self, bus: Telling | None) -> None:
        """Every group has been joined, on this bus; None where the bus has nothing to tell."""
        self._why, self._bus = "", bus

    def report(self) -> Report:
        """How it is now."""
        lanes = list(self._bus.health()) if self._bus is not None else []
        silent = [each for each in lanes if not getattr(each, "polling", True)]
        why = self._why or (self._bus.unready() if self._bus is not None else "")
        if silent and not why:
            troubles = sorted({trouble for each in silent if (trouble := getattr(each, "trouble", ""))})
            why = f"{len(silent)} lanes are not polled: {'; '.join(troubles) or 'no broker answers'}"
        return Report(not why, why, [asdict(each) for each in lanes])


@contextmanager
def serving(board: Board, port: int | None, host: str = "0.0.0.0") -> Generator[None]:
    """Serve a board on a port of this host until the block is left; nothing where there is no port.

    To be entered in the event loop that the board belongs to. Raises ConfigurationError where the port is taken.
    """
    if port is None:
        yield
        return
    try:
        server = ThreadingHTTPServer((host, port), _handler(board, asyncio.get_running_loop()))
    except OSError as error:
        problem = Problem("PAVANE_HEALTH_PORT", "health.port", f"port {port} cannot be opened: {error.strerror}")
        raise ConfigurationError("health cannot be served", [problem]) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(board: Board, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    async def look() -> Report:
        return board.report()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in ("/live", "/ready"):
                self._answer(404, b'{"why": "there is /live and /ready"}\n')
                return
            try:
                report = asyncio.run_coroutine_threadsafe(look(), loop).result(_ANSWER_S)
            except (TimeoutError, RuntimeError):
                self._answer(503, Report(ready=False, why="the event loop does not turn", lanes=()).to_json())
                return
            self._answer(200 if report.ready or self.path == "/live" else 503, report.to_json())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """A probe every few seconds is no news."""

    return Handler
