"""The tree of one saga: which span caused which, over all its traces, what waited, what worked, and what took longest."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pavane_tracing.conventions import SAGA_ID, SAGA_NAME, SAGA_STEP, SAGA_UNDO
from pavane_tracing.path import Leg, critical_path
from pavane_tracing.sent import Key
from pavane_tracing.span import SpanRow


@dataclass(frozen=True, slots=True)
class Node:
    """A span and what it caused, in order of start.

    ``queued_ns``: from the end of the producer's ``send`` to the start of this ``process``; below zero where two
    machines' clocks disagree.
    ``critical``: it is on the path that determined when the saga ended. ``undoes``: the step that this span undoes,
    ``undone`` its span where that is known.
    ``linked_from``: of a root, the spans that led to it. ``lost_parent``: its parent is not among the spans.
    """

    row: SpanRow
    children: tuple["Node", ...] = ()
    queued_ns: int | None = None
    undoes: str | None = None
    undone: SpanRow | None = None
    linked_from: tuple[SpanRow, ...] = ()
    lost_parent: bool = False
    critical: bool = False

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, depth first."""
        waiting: list[Node] = [self]
        while waiting:  # a chain may be deeper than calls can be
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def to_json(self) -> dict[str, object]:
        """The span as JSON, with its place in the tree."""
        made: dict[int, list[dict[str, object]]] = {}
        for node in reversed(list(self.walk())):
            made[id(node)] = [node._told([each for child in node.children for each in made.pop(id(child))])]
        return made[id(self)][0]

    def _told(self, children: Sequence[Mapping[str, object]]) -> dict[str, object]:
        return {
            **self.row.to_json(),
            "queuedNanos": self.queued_ns,
            "workedNanos": self.row.end_ns - self.row.start_ns,
            "critical": self.critical,
            "undoes": self.undoes,
            "undoneSpanId": self.undone.span_id if self.undone else None,
            "linkedFrom": [{"traceId": row.trace_id, "spanId": row.span_id} for row in self.linked_from],
            "lostParent": self.lost_parent,
            "children": children,
        }


@dataclass(frozen=True, slots=True)
class SagaTree:
    """A saga's traces: the one that it began with, then those that are linked to it, in order of start.

    ``path``: the hops that determined when it ended.
    """

    saga: str
    saga_name: str | None
    roots: tuple[Node, ...]
    path: tuple[Leg, ...] = ()

    def nodes(self) -> Iterator[Node]:
        """Every node, root by root, depth first."""
        for root in self.roots:
            yield from root.walk()

    @property
    def services(self) -> tuple[str, ...]:
        """The services that took part, by name."""
        return tuple(sorted({node.row.service for node in self.nodes()}))

    @property
    def duration_ns(self) -> int:
        """From the first start to the last end."""
        rows = [node.row for node in self.nodes()]
        return max(row.end_ns for row in rows) - min(row.start_ns for row in rows) if rows else 0

    def to_json(self) -> dict[str, object]:
        """The tree as JSON: a span's own fields by OTLP's names, its children nested."""
        return {
            "saga": self.saga,
            "sagaName": self.saga_name,
            "services": self.services,
            "spans": sum(1 for _ in self.nodes()),
            "durationNanos": self.duration_ns,
            "criticalPath": [leg.to_json() for leg in self.path],
            "roots": [root.to_json() for root in self.roots],
        }


def build_tree(rows: Sequence[SpanRow], saga: str) -> SagaTree:
    """The tree of a saga out of spans in any order. Other sagas' spans are left out."""
    known = _of_saga(rows, saga)
    below: dict[Key, list[SpanRow]] = defaultdict(list)
    tops: list[SpanRow] = []
    for row in sorted(known.values(), key=lambda row: (row.start_ns, row.end_ns)):
        parent = (row.trace_id, row.parent_span_id or "")
        if parent in known:
            below[parent].append(row)
        else:
            tops.append(row)
    name = next((found for row in known.values() if (found := row.text(SAGA_NAME))), None)
    path, critical = critical_path(known)
    return SagaTree(saga, name, _nodes(tops, known, below, critical), path)


def _of_saga(rows: Sequence[SpanRow], saga: str) -> dict[Key, SpanRow]:
    """The saga's spans, and what led to them before the saga had its id."""
    anybody = {(row.trace_id, row.span_id): row for row in rows if row.text(SAGA_ID) is None}
    known = {(row.trace_id, row.span_id): row for row in rows if row.text(SAGA_ID) == saga}
    for row in tuple(known.values()):
        before = anybody.pop((row.trace_id, row.parent_span_id or ""), None)
        while before is not None:
            known[before.trace_id, before.span_id] = before
            before = anybody.pop((before.trace_id, before.parent_span_id or ""), None)
    return known


def _nodes(
    tops: Sequence[SpanRow], known: Mapping[Key, SpanRow], below: Mapping[Key, Sequence[SpanRow]], critical: Collection[Key]
) -> tuple[Node, ...]:
    """The trees of the spans that have no parent here: each span comes after all that are below it."""
    order, waiting = list[SpanRow](), list(tops)
    while waiting:
        row = waiting.pop()
        order.append(row)
        waiting.extend(below.get(_key(row), ()))
    made: dict[Key, Node] = {}
    for row in reversed(order):
        children = tuple(made.pop(_key(child)) for child in below.get(_key(row), ()))
        made[_key(row)] = _node(row, children, known, critical)
    return tuple(made[_key(row)] for row in tops)


def _node(row: SpanRow, children: tuple[Node, ...], known: Mapping[Key, SpanRow], critical: Collection[Key]) -> Node:
    parent = known.get((row.trace_id, row.parent_span_id or ""))
    linked = tuple(found for link in row.links if (found := known.get((link.trace_id, link.span_id))))
    origin = next((one for one in (parent, *linked) if one is not None and one.kind == "PRODUCER"), None)
    undoes = row.text(SAGA_STEP) if row.attributes.get(SAGA_UNDO) is True and row.kind == "CONSUMER" else None
    return Node(
        row,
        children=children,
        queued_ns=row.start_ns - origin.end_ns if origin is not None and row.kind == "CONSUMER" else None,
        undoes=undoes,
        undone=_undone(row, undoes, known) if undoes is not None else None,
        linked_from=linked if parent is None else (),
        lost_parent=parent is None and row.parent_span_id is not None,
        critical=_key(row) in critical,
    )


def _key(row: SpanRow) -> Key:
    return row.trace_id, row.span_id


def _undone(undo: SpanRow, step: str, known: Mapping[Key, SpanRow]) -> SpanRow | None:
    """The span of the step itself: the one that sent what the undo is linked to, else the last of that name before."""
    for link in undo.links:
        sent = known.get((link.trace_id, link.span_id))
        for row in (sent, known.get((link.trace_id, sent.parent_span_id or "")) if sent else None):
            if row is not None and _is_step(row, step):
                return row
    earlier = [row for row in known.values() if _is_step(row, step) and row.start_ns <= undo.start_ns]
    return max(earlier, key=lambda row: row.start_ns, default=None)


def _is_step(row: SpanRow, step: str) -> bool:
    return row.kind == "CONSUMER" and row.text(SAGA_STEP) == step and SAGA_UNDO not in row.attributes
