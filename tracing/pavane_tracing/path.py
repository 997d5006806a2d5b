"""The critical path: the chain of hops that determined when a saga ended. Whatever is not on it had time to spare."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pavane_tracing.conventions import SAGA_VERDICT
from pavane_tracing.naming import is_work, name_of
from pavane_tracing.sent import Key
from pavane_tracing.span import SpanRow


@dataclass(frozen=True, slots=True)
class Leg:
    """One hop of the path: ``row`` is the work.

    ``queued_ns``: from the end of the ``send``, or of the attempt before, to the start of the work; None where nobody knows
    what led to it. ``worked_ns``: from there until what the next leg waited for was sent; of the last leg, until the end.
    So the legs' times add up.
    """

    row: SpanRow
    queued_ns: int | None
    worked_ns: int

    def to_json(self) -> dict[str, object]:
        """The leg as JSON."""
        return {
            "hop": name_of(self.row),
            "traceId": self.row.trace_id,
            "spanId": self.row.span_id,
            "queuedNanos": self.queued_ns,
            "workedNanos": self.worked_ns,
        }


def critical_path(spans: Mapping[Key, SpanRow]) -> tuple[tuple[Leg, ...], frozenset[Key]]:
    """The legs in order of time, and all spans that are on the path; of a saga that is open, the path so far.

    It is followed back from the saga's end: a work began when its event came, a join when the last of its events did, a
    delayed attempt when the one before had waited long enough.
    """
    row = _last(spans.values())
    legs: list[Leg] = []
    on_path: set[Key] = set()
    until_ns = row.end_ns if row is not None else 0
    while row is not None and (row.trace_id, row.span_id) not in on_path:
        on_path.add((row.trace_id, row.span_id))
        before = _before(row, spans)
        if is_work(row):
            legs.append(Leg(row, row.start_ns - before.end_ns if before is not None else None, until_ns - row.start_ns))
            until_ns = before.end_ns if before is not None else until_ns
        row = before
    return tuple(reversed(legs)), frozenset(on_path)


def _last(rows: Iterable[SpanRow]) -> SpanRow | None:
    """The point that says the saga's verdict; where none does, the work that ended last."""
    found = [row for row in rows if is_work(row) or SAGA_VERDICT in row.attributes]
    return max(found, key=lambda row: (SAGA_VERDICT in row.attributes, row.end_ns), default=None)


def _before(row: SpanRow, spans: Mapping[Key, SpanRow]) -> SpanRow | None:
    """What led to a span: its parent; of a root, whichever span it is linked to ended last."""
    parent = spans.get((row.trace_id, row.parent_span_id or ""))
    if parent is not None:
        return parent
    linked = [found for link in row.links if (found := spans.get((link.trace_id, link.span_id))) is not None]
    return max(linked, key=lambda each: each.end_ns, default=None)
