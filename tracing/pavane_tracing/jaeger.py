"""Reads traces back from a Jaeger: its search by tag, and whole traces as the rows that every other part understands.

Traces are read through version 3 of its API, which is OTLP's JSON; search by tag is version 1's, because version 3
passes over attributes. Tried with Jaeger 2.13.
"""

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from itertools import islice
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from pavane_tracing.conventions import SAGA_ID
from pavane_tracing.otlp_json import TracesUnavailable, as_object, as_objects, each_once, rows_of
from pavane_tracing.span import SpanRow

_TIMEOUT_S = 10.0
_MOST_TRACES = 1_000
_AT_ONCE = 4
_BEFORE_S = 86_400.0
"""How long before its start event a saga's first span may lie, and how far clocks may differ."""


class Jaeger:
    """The query side of a Jaeger, such as ``http://127.0.0.1:16686``. Its calls block, each for 10 seconds at most."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def link(self, trace_id: str) -> str:
        """Where a browser shows a trace."""
        return f"{self._url}/trace/{trace_id}"

    def search_link(self, saga: str, service: str) -> str:
        """Where a browser searches for a saga's traces, by a service that takes part in it."""
        return f"{self._url}/search?{urlencode({'service': service, 'tags': json.dumps({SAGA_ID: saga})})}"

    def find(self, saga: str, services: Iterable[str], since_s: float) -> list[str]:
        """The ids of the traces in which one of these services worked for a saga, sorted; ``since_s``: about its start.

        Jaeger searches one service at a time, so a trace that none of them took part in is not found.
        """
        found: set[str] = set()
        for service in services:
            query = {
                "service": service,
                "tags": json.dumps({SAGA_ID: saga}),
                "limit": _MOST_TRACES,
                "start": max(0, int((since_s - _BEFORE_S) * 1e6)),
                "end": int((time.time() + _BEFORE_S) * 1e6),
            }
            document = self._get(f"/api/traces?{urlencode(query)}")
            with self._understood():
                found |= {str(each["traceID"]).zfill(32) for each in as_objects(document["data"])}
        return sorted(found)

    def trace(self, trace_id: str) -> list[SpanRow]:
        """Every span of a trace, by start time; none where Jaeger does not (or no longer) have it."""
        try:
            document = self._get(f"/api/v3/traces/{quote(trace_id)}")
        except _NotFound:
            return []
        with self._understood():
            return sorted(each_once(rows_of(as_object(document["result"]))), key=lambda row: row.start_ns)

    def spans_of(self, saga: str, services: Iterable[str], since_s: float) -> list[SpanRow]:
        """Every span of every trace that :meth:`find` finds."""
        return [row for trace_id in self.find(saga, services, since_s) for row in self.trace(trace_id)]

    def spans_of_all(self, sagas: Iterable[str], services: Sequence[str], since_s: float) -> Iterator[SpanRow]:
        """The same for many sagas, some at once; of a trace that several share, the spans come with each of them."""
        each_of = partial(self.spans_of, services=services, since_s=since_s)
        ids = iter(sagas)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while portion := list(islice(ids, 8 * _AT_ONCE)):
                for rows in pool.map(each_of, portion):
                    yield from rows

    def _get(self, path: str) -> Mapping[str, object]:
        request = Request(self._url + path, headers={"Accept": "application/json"})
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as response:
                document: object = json.loads(response.read())
        except HTTPError as error:
            error.close()
            if error.code == 404:
                raise _NotFound(f"{self._url} has no {path}") from None
            raise TracesUnavailable(f"{self._url} answered with {error.code}") from None
        except (OSError, HTTPException) as error:
            raise TracesUnavailable(f"no Jaeger answers at {self._url}: {error}") from None
        except ValueError:  # its page answers every path that it does not know
            raise TracesUnavailable(f"what answers at {self._url} is not Jaeger's API: it did not send JSON") from None
        with self._understood():
            return as_object(document)

    @contextmanager
    def _understood(self) -> Generator[None]:
        try:
            yield
        except (LookupError, TypeError, ValueError) as error:
            raise TracesUnavailable(f"{self._url} did not answer as Jaeger's API does: {error!r}") from None


class _NotFound(TracesUnavailable):
    """Jaeger says that it does not have it."""
