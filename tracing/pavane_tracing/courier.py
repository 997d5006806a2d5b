"""Courier: sends requests from a thread of its own, so that who waits for an answer can do something else meanwhile."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic

from opentelemetry.context import attach, set_value

from pavane_tracing.endpoint import Answer, Endpoint

_LOOK_S = 0.25
"""How long the wait for an answer is, before something else is done."""


class Courier:
    """One request at a time. For one thread, which closes it; what is under way then ends by its time-out, or with all."""

    def __init__(self, endpoint: Endpoint, meanwhile: Callable[[], None]) -> None:
        """``meanwhile`` is called again and again, by whoever waits, while an answer takes its time."""
        self._connection = endpoint.connect()
        self._timeout_s = endpoint.timeout_s
        self._meanwhile = meanwhile
        self._bodies: SimpleQueue[bytes | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        threading.Thread(target=self._run, name="pavane-courier", daemon=True).start()

    def send(self, body: bytes) -> Answer:
        """As :meth:`Connection.send`, which is cut where it takes longer than the endpoint's time-out."""
        late = monotonic() + self._timeout_s + _LOOK_S
        self._bodies.put(body)
        while True:
            try:
                return self._answers.get(timeout=_LOOK_S)
            except Empty:
                self._meanwhile()
                if monotonic() >= late:
                    self._connection.cut()

    def close(self) -> None:
        """No more comes."""
        self._bodies.put(None)

    def _run(self) -> None:
        attach(set_value("suppress_instrumentation", True))  # our requests are no spans
        while (body := self._bodies.get()) is not None:
            self._answers.put(self._connection.send(body))
        self._connection.close()
