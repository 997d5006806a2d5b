"""Hops: each record on its way from the ``send`` span of its sender to the ``process`` span of whoever works on it.

What a step has answered it has worked on: that much the log proves, and the spans must say the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pavane_tracing.conventions import EVENT_ID, OPERATOR_SERVICE, SAGA_ID, SAGA_STEP, SAGA_UNDO
from pavane_tracing.finding import Code, Finding, Tally
from pavane_tracing.naming import Record, is_linked, is_send, is_work, links_of, name_of, record_of, worker
from pavane_tracing.sent import Key, Sent
from pavane_tracing.span import SpanRow


def check_hops(saga: str, rows: Sequence[SpanRow], log: Iterable[Sent], tally: Tally, *, kept: bool) -> None:
    """Look at the hops of one saga. ``rows``: at least all spans of all its traces that are its own or next to these."""
    seen = SagaSeen(saga, rows, log)
    tally.sagas += 1
    tally.hops += len(seen.works)
    tally.unsampled += seen.unsampled
    tally.find(seen.unsent(tally))
    tally.find(seen.lost(tally))
    tally.find(seen.strays())
    tally.find(seen.unlinked())
    tally.find(seen.doubled(tally, kept=kept))


class SagaSeen:
    """One saga's spans, held against what the log proves of it. Immutable."""

    def __init__(self, saga: str, rows: Sequence[SpanRow], log: Iterable[Sent]) -> None:
        self.saga = saga
        self.log = list({(each.topic, each.id, each.send): each for each in log}.values())
        self.spans: Mapping[Key, SpanRow] = {(row.trace_id, row.span_id): row for row in rows}
        self._by_record: dict[Record, list[Sent]] = {}
        for sent in self.log:
            self._by_record.setdefault((sent.topic, sent.id), []).append(sent)
        mine = [row for row in self.spans.values() if row.text(SAGA_ID) == saga or self._names_a_record(row)]
        self.works = [row for row in mine if is_work(row)]
        self.sends = [row for row in mine if is_send(row)]
        self._worked: dict[Record, list[SpanRow]] = {}
        for row in self.works:
            self._worked.setdefault(record_of(row), []).append(row)
        self._sent_by = {each.send: (each.step, each.causes) for each in self.log if each.send is not None}
        self._orphaned_by = {(row.trace_id, row.parent_span_id or "") for row in self.spans.values()}

    @property
    def unsampled(self) -> bool:
        """Whether all its records say that no span was to be made."""
        return bool(self.log) and not any(each.sampled for each in self.log)

    # --- what is not there ---------------------------------------------------------------------------------------

    def unsent(self, tally: Tally) -> Iterator[Finding]:
        """Records without the span of whoever sent them."""
        for sent in self.log:
            who = f"{sent.step} -> {sent.type}" if sent.kind == "event" and sent.step else sent.type
            if sent.send is None:
                if sent.kind != "other":  # news of a circle of locks is in nobody's trace
                    yield self._finding("hop.untraced", who, "the record names no span that sent it")
                continue
            row = self.spans.get(sent.send)
            if row is None and sent.sampled and sent.send not in self._orphaned_by:
                tally.missing += 1
                yield self._finding("hop.unsent", who, f"the send span is missing ({sent.send[1]})", sent.send[0])
            elif row is not None and sent.kind == "event" and is_send(row) and row.text(EVENT_ID) != sent.id:
                wrong = f"the record carries the context of another's span, {name_of(row)}: its sender made none"
                yield self._finding("hop.untraced", who, wrong, row.trace_id)

    def lost(self, tally: Tally) -> Iterator[Finding]:
        """Work that was done, for it was answered, without its span."""
        for sent, step in self._proven():
            if not sent.sampled or any(worker(row) == step for row in self._worked.get((sent.topic, sent.id), ())):
                continue
            tally.hops += 1
            if not self._orphaned_output(step, sent):
                tally.missing += 1
            what = f"undo of {step}" if sent.kind == "undo" else step
            trace = sent.send[0] if sent.send is not None else None
            yield self._finding("hop.lost", f"{sent.type} -> {what}", "the process span is missing", trace)

    def _proven(self) -> Iterator[tuple[Sent, str]]:
        """Every record that a step has worked on, with the step."""
        events = {each.id: each for each in self.log if each.kind == "event"}
        pairs: dict[tuple[str, str], None] = {}
        answers: dict[tuple[str, tuple[str, ...], str], set[str]] = defaultdict(set)
        for sent in self.log:
            if not sent.step:
                continue
            if sent.kind in ("event", "answer", "requested"):
                pairs.update(dict.fromkeys((cause, sent.step) for cause in sent.causes))
            if sent.kind in ("event", "answer"):
                answers[sent.step, sent.causes, "grant"].add("" if sent.kind == "event" else sent.id)
            elif sent.kind == "undone":
                answers[sent.step, sent.causes, "undo"].add(sent.id)
        yield from ((events[cause], step) for cause, step in pairs if cause in events)
        for sent, count in self._commands():
            if len(answers[sent.step, sent.causes, sent.kind]) >= count:
                yield sent, sent.step

    def _commands(self) -> list[tuple[Sent, int]]:
        """Every command, with how many there were to that step on those causes: each but the last was answered before."""
        commands = [each for each in self.log if each.kind in ("grant", "undo")]
        counted: dict[tuple[str, tuple[str, ...], str], int] = defaultdict(int)
        for each in commands:
            counted[each.step, each.causes, each.kind] += 1
        return [(each, counted[each.step, each.causes, each.kind]) for each in commands]

    def _orphaned_output(self, step: str, sent: Sent) -> bool:
        """Whether the process span that is missing is the parent that an orphan misses: it is one loss, not two."""
        return any(
            row.text(SAGA_STEP) == step
            and row.parent_span_id is not None
            and (row.trace_id, row.parent_span_id) not in self.spans
            and self._sent_by.get((row.trace_id, row.span_id), ("", ()))[0] == step
            and (sent.kind in ("undo", "grant") or sent.id in self._sent_by[row.trace_id, row.span_id][1])
            for row in self.sends
        )

    # --- what is in the wrong place ------------------------------------------------------------------------------

    def strays(self) -> Iterator[Finding]:
        """Spans that are there, and hang elsewhere, say another service, or another saga."""
        for row in self.works:
            sends = [each.send for each in self._records(row)]
            if row.text(SAGA_ID) not in (self.saga, None):
                wrong = f"its saga.id is {row.text(SAGA_ID)}, and the record's {self.saga}"
                yield self._finding("hop.saga", name_of(row), wrong, row.trace_id)
            step = row.text(SAGA_STEP)
            if step is not None and step.partition("/")[0] != row.service:
                wrong = f"the process span is of service {row.service or 'without a name'}, not {step.partition('/')[0]}"
                yield self._finding("hop.service", name_of(row), wrong, row.trace_id)
            if None not in sends:
                yield from self._misplaced(row, {send for send in sends if send is not None})
        for row in self.sends:
            yield from self._misplaced_send(row)

    def _misplaced(self, row: SpanRow, sends: set[Key]) -> Iterator[Finding]:
        """``sends``: the spans that sent what this one processes; empty where the log does not know."""
        links = {(link.trace_id, link.span_id) for link in row.links}
        expected = sends or {link for link in links if self._is_send_of(link, row)}
        if row.parent_span_id is None:
            if sends and not sends & links and not self._says_it_itself(row, sends):
                wrong = "the process span begins a trace without a link to the send span"
                yield self._finding("hop.unlinked", name_of(row), wrong, row.trace_id)
            elif any(trace == row.trace_id for trace, _ in sends & links):
                wrong = "the process span is a root beside its send span"
                yield self._finding("hop.flattened", name_of(row), wrong, row.trace_id)
            return
        parent = row.trace_id, row.parent_span_id
        if expected and parent not in expected and not self._is_attempt_before(parent, row):
            wrong = f"the process span hangs under {self._called(parent)}, not under the send span"
            yield self._finding("hop.flattened", name_of(row), wrong, row.trace_id)
        elif parent not in links:
            yield self._finding("hop.unlinked", name_of(row), "the link to the send span is missing", row.trace_id)

    def _misplaced_send(self, row: SpanRow) -> Iterator[Finding]:
        parent = self.spans.get((row.trace_id, row.parent_span_id or ""))
        if parent is None:
            return
        step = row.text(SAGA_STEP)
        inside = is_work(parent) and parent.service == row.service and parent.text(SAGA_STEP) == step
        said, causes = self._sent_by.get((row.trace_id, row.span_id), ("", ()))
        if inside and step is not None and said == step and causes:
            inside = self._undoes(parent) or parent.text(EVENT_ID) in causes
        if row.service == OPERATOR_SERVICE and not is_send(parent):
            return  # somebody's decision that goes on in the trace of what it is about
        if not inside and (step is not None or is_work(parent) or is_send(parent)):
            wrong = f"the send span hangs under {name_of(parent)}, not under the work that sent it"
            yield self._finding("hop.flattened", name_of(row), wrong, row.trace_id)

    def unlinked(self) -> Iterator[Finding]:
        """Joins that are not linked to their other inputs, undos that are not linked to what they undo."""
        sends: dict[str, set[Key]] = defaultdict(set)
        types = {each.id: each.type for each in self.log if each.kind == "event"}
        for each in self.log:
            if each.kind == "event" and each.send is not None:
                sends[each.id].add(each.send)
        for sent in self.log:
            send = self.spans.get(sent.send) if sent.send is not None and sent.kind == "event" else None
            work = self.spans.get((send.trace_id, send.parent_span_id or "")) if send is not None else None
            if work is not None and is_work(work) and worker(work) == sent.step:
                for other in sent.causes:
                    if other in sends and other != work.text(EVENT_ID) and not is_linked(work, sends[other]):
                        wrong = f"the link of the join to {types[other]} is missing"
                        yield self._finding("hop.unlinked", name_of(work), wrong, work.trace_id)
            if sent.kind == "undo":
                for work in self._worked.get((sent.topic, sent.id), ()):
                    if any(not is_linked(work, {link}) for link in sent.links):
                        wrong = "the link to what the step had sent is missing"
                        yield self._finding("hop.unlinked", name_of(work), wrong, work.trace_id)

    # --- what is there too often ---------------------------------------------------------------------------------

    def doubled(self, tally: Tally, *, kept: bool) -> Iterator[Finding]:
        """Work on the same record by the same step in two spans, of which none is a later attempt and both committed."""
        groups: dict[tuple[Record, str, bool, frozenset[Key]], list[SpanRow]] = defaultdict(list)
        for row in self.works:
            if not any(each.again for each in self._records(row)):
                groups[record_of(row), worker(row), SAGA_UNDO in row.attributes, self._origins(row)].append(row)
        for works in groups.values():
            first, *others = sorted(works, key=lambda row: (row.parent_span_id is None, row.start_ns))
            if not others or self._is_step_less(first):
                continue
            known = {(row.trace_id, row.span_id) for row in works}
            again = [row for row in others if row.parent_span_id is not None or links_of(row) & known]
            for row in others:
                if row not in again and row.parent_span_id is None:
                    wrong = "an attempt begins a trace without a link to the attempt before it"
                    yield self._finding("hop.unlinked", name_of(row), wrong, row.trace_id)
            yield from self._twice([first, *again], known, tally, kept=kept)

    def _twice(self, works: Sequence[SpanRow], known: set[Key], tally: Tally, *, kept: bool) -> Iterator[Finding]:
        """Attempts are told apart by the attempts that they are linked to."""
        attempts: dict[frozenset[Key], list[SpanRow]] = defaultdict(list)
        for row in works:
            attempts[frozenset(links_of(row) & known)].append(row)
        for same in attempts.values():
            committed = len(same) if kept else sum(self._committed(row) for row in same)
            if committed > 1:
                where = ", ".join(row.span_id for row in same)
                wrong = f"{committed} spans did the same work, and all of them committed ({where})"
                yield self._finding("hop.doubled", name_of(same[0]), wrong, same[0].trace_id)
            else:
                tally.redelivered += len(same) - 1

    def _committed(self, work: SpanRow) -> bool:
        """Whether the log has what this span sent."""
        key = work.trace_id, work.span_id
        sends = (row for row in self.sends if (row.trace_id, row.parent_span_id) == key)
        return any((row.trace_id, row.span_id) in self._sent_by for row in sends)

    def _origins(self, row: SpanRow) -> frozenset[Key]:
        """The send that it came by: one record that was published twice is two."""
        sends = {each.send for each in self._records(row) if each.send is not None}
        if row.parent_span_id is not None and (row.trace_id, row.parent_span_id) in sends:
            return frozenset({(row.trace_id, row.parent_span_id)})
        found = sends & links_of(row) or {link for link in links_of(row) if self._is_send_of(link, row)}
        return frozenset(found) if found else frozenset({(row.trace_id, row.parent_span_id or "")})

    def _is_step_less(self, row: SpanRow) -> bool:
        """Work that neither is a step's nor known to the log, such as an admission: the same may come again and again."""
        return row.text(SAGA_STEP) is None and not self._records(row)

    # --- words ---------------------------------------------------------------------------------------------------

    def _names_a_record(self, row: SpanRow) -> bool:
        return is_work(row) and bool(self._records(row))

    def _records(self, row: SpanRow) -> Sequence[Sent]:
        return self._by_record.get(record_of(row), ())

    def _is_send_of(self, key: Key, row: SpanRow) -> bool:
        sent = self.spans.get(key)
        return sent is not None and is_send(sent) and record_of(sent) == record_of(row)

    def _says_it_itself(self, row: SpanRow, sends: set[Key]) -> bool:
        """A deadline: the span is of the fact that it states, and linked to the start of its saga."""
        return any(
            (sent := self.spans.get(send)) is not None and (sent.trace_id, sent.parent_span_id) == (row.trace_id, row.span_id)
            for send in sends
        )

    def _is_attempt_before(self, key: Key, row: SpanRow) -> bool:
        """Whether a span is an earlier attempt at the same work, whose sender had the trace go on."""
        before = self.spans.get(key)
        return before is not None and is_work(before) and (record_of(before), worker(before)) == (record_of(row), worker(row))

    def _undoes(self, row: SpanRow) -> bool:
        return SAGA_UNDO in row.attributes

    def _called(self, key: Key) -> str:
        row = self.spans.get(key)
        return name_of(row) if row is not None else f"a span that is not here ({key[1]})"

    def _finding(self, code: Code, hop: str, message: str, trace: str | None = None) -> Finding:
        return Finding(code, hop, message, trace, self.saga)
