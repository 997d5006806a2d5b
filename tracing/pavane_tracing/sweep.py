"""Sweep: the continuity check over every saga that there is, in memory that does not grow with them.

Spans and records come in any order; they are put in order on disk, in a private file that is gone with the sweep: about
half a kilobyte for each.
"""

import marshal
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, cast

from pavane_tracing.continuity import by_saga, check_trace, is_own
from pavane_tracing.conventions import EVENT_ID, EVENT_TYPE, MESSAGING, SAGA_ID, SAGA_STEP, SAGA_UNDO
from pavane_tracing.finding import ContinuityReport, Tally
from pavane_tracing.hops import check_hops
from pavane_tracing.otlp_json import each_once
from pavane_tracing.sent import Sent
from pavane_tracing.span import SpanLink, SpanRow

_READ = (SAGA_ID, SAGA_STEP, SAGA_UNDO, EVENT_ID, EVENT_TYPE, MESSAGING.destination)
_CACHE_KB = 32_000
_AT_ONCE = 2_000


class Sweep:
    """Takes spans and records, then :meth:`report` once. For one thread; ``with`` it, or the file stays until collected.

    ``kept``: see :func:`~pavane_tracing.continuity.check_continuity`. Where spans are not ``kept``, those that an exporter
    sent again count once, and traces that are not of the records taken are another deployment's: passed over.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._disk = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in (
            "pragma journal_mode = off",
            "pragma synchronous = off",
            f"pragma cache_size = -{_CACHE_KB}",
            "create table span (trace text, row blob)",
            "create table log (saga text, row blob)",
            "create table own (saga text, row blob)",
        ):
            self._disk.execute(statement)

    def __enter__(self) -> "Sweep":
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()

    def add_spans(self, rows: Iterable[SpanRow]) -> None:
        """Take spans, of any trace."""
        self._disk.executemany("insert into span values (?, ?)", ((row.trace_id, _packed(row)) for row in rows))

    def add_log(self, sent: Iterable[Sent]) -> None:
        """Take records, of any saga."""
        self._disk.executemany("insert into log values (?, ?)", ((each.saga, _packed_sent(each)) for each in sent))

    def sagas(self) -> Iterator[str]:
        """The sagas of the records taken so far."""
        with closing(self._disk.execute("select distinct saga from log order by 1")) as cursor:
            while rows := cursor.fetchmany(_AT_ONCE):
                yield from (saga for (saga,) in cast("list[tuple[str]]", rows))

    def report(self) -> ContinuityReport:
        """Look at every trace, then at every saga."""
        tally = Tally()
        self._disk.execute("create index log_saga on log (saga)")
        for trace_id, blobs in self._grouped("select trace, row from span order by trace"):
            rows = list(map(_unpacked, blobs))
            rows = rows if self._kept else each_once(rows)
            concerned = list(by_saga(rows))
            if not (self._kept or self._is_own(rows, {saga for saga, _ in concerned})):
                continue
            check_trace(trace_id, rows, tally)
            self._disk.executemany("insert into own values (?, ?)", ((saga, _packed(row)) for saga, row in concerned))
        for saga, spans, records in self._sagas():
            if records or self._kept:
                check_hops(saga, spans, records, tally, kept=self._kept)
        return tally.report()

    def _is_own(self, rows: list[SpanRow], sagas: Iterable[str]) -> bool:
        told: list[Sent] = []
        for saga in sagas:
            with closing(self._disk.execute("select saga, row from log where saga = ?", (saga,))) as cursor:
                told += [_unpacked_sent(blob) for _, blob in _fetched(cursor)]
        return bool(told) and is_own(rows, told)

    def _sagas(self) -> Iterator[tuple[str, list[SpanRow], list[Sent]]]:
        """Each saga with its spans and its records: both are in order, and are walked side by side."""
        owned = self._grouped("select saga, row from own order by saga")
        told = self._grouped("select saga, row from log order by saga")
        spans = ((saga, 0, blobs) for saga, blobs in owned)
        records = ((saga, 1, blobs) for saga, blobs in told)
        both = merge(spans, records, key=itemgetter(0))
        for saga, parts in groupby(both, key=itemgetter(0)):
            found = {which: blobs for _, which, blobs in parts}
            yield saga, list(map(_unpacked, found.get(0, ()))), list(map(_unpacked_sent, found.get(1, ())))

    def _grouped(self, query: str) -> Iterator[tuple[str, list[bytes]]]:
        with closing(self._disk.execute(query)) as cursor:
            for key, group in groupby(_fetched(cursor), key=itemgetter(0)):
                yield key, [blob for _, blob in group]


def _fetched(cursor: sqlite3.Cursor) -> Iterator[tuple[str, bytes]]:
    while rows := cursor.fetchmany(_AT_ONCE):
        yield from cast("list[tuple[str, bytes]]", rows)


_fields_of = attrgetter(*(each.name for each in fields(Sent)))


def _packed(row: SpanRow) -> bytes:
    """What the check reads of a span; of the others, only that they are there."""
    attributes = {key: value for key in _READ if (value := row.attributes.get(key)) is not None}
    links = [(link.trace_id, link.span_id) for link in row.links]
    packed = (row.trace_id, row.span_id, row.parent_span_id, row.name, row.kind, row.start_ns, row.end_ns, row.service)
    return marshal.dumps((packed, attributes, links))


def _unpacked(blob: bytes) -> SpanRow:
    head, attributes, links = cast("tuple[tuple[Any, ...], Any, list[tuple[str, str]]]", marshal.loads(blob))
    row = SpanRow(*head)
    row.attributes, row.links = attributes, tuple(SpanLink(*link) for link in links)
    return row


def _packed_sent(sent: Sent) -> bytes:
    return marshal.dumps(_fields_of(sent))


def _unpacked_sent(blob: bytes) -> Sent:
    return Sent(*cast("tuple[Any, ...]", marshal.loads(blob)))
