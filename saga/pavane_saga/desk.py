"""The desk: where one lane's records become facts, facts become decisions, and decisions become messages. No I/O."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

from pavane_events.bus import Lane
from pavane_events.dead_letter import Reason, dead_letter
from pavane_events.envelope import NO_TRACE, Envelope, Trace, parse, parse_structured, unread
from pavane_events.errors import ContractViolation, Problem, ProblemsError, UndecodableRecord
from pavane_events.forgetting import Forgetting
from pavane_events.ids import uuid7
from pavane_events.partition import partition_of
from pavane_events.record import Record
from pavane_saga.backlog import Backlog
from pavane_saga.batch import Batch, Decision, News
from pavane_saga.clerk import Clerk
from pavane_saga.commands import Command, Halt, Park
from pavane_saga.deadlines import Deadlines
from pavane_saga.dossier import Cabinet, Dossier, Dossiers, Head, ended_ms
from pavane_saga.engine import awaited_outside, decide, failure, nothing_to_decide, open_debts
from pavane_saga.facts import Answered, Blocked, Declared, Ended, Fact, Fired, Happened, Locked
from pavane_saga.history import History, Plan
from pavane_saga.intake import Admission, admit
from pavane_saga.kinds import Kinds
from pavane_saga.locks import LockBook, LockOrder, order_message, read_order, told
from pavane_saga.pivot import point_of
from pavane_saga.plans import Plans
from pavane_saga.saga import Saga
from pavane_saga.wire import (
    ADMISSIONS,
    COORDINATOR,
    FACTS,
    LOCKS,
    fact_envelope,
    fact_message,
    misplaced,
    read_fact,
)
from pavane_tracing.metrics import count_overdue
from pavane_tracing.store import encode
from pavane_tracing.work import Tracing, Work

log: Final = logging.getLogger("pavane.coordinator")

UNKNOWN_AFTER_S: Final = 30.0
"""How long events of a saga may come before its start event: topics have no order between them."""

ADMITTED_WITHIN_S: Final = 600.0
"""How old what another lane took in may be, where only another coordinator knows what it is: an upgrade may take so long."""


class Desk:
    """One lane of the coordinator, without its I/O: :meth:`take`, :meth:`fire`, :meth:`decide`, commit, :meth:`committed`."""

    def __init__(
        self,
        lane: Lane,
        sagas: Mapping[str, Saga],
        tracing: Tracing,
        clock: Callable[[], float],
        partitions: int,
        keeps_s: float | None = None,
        cabinet: Cabinet | None = None,
    ) -> None:
        """``keeps_s``: how long topics keep records; None: for ever."""
        self._lane = lane
        self._sagas = sagas
        self._kinds = Kinds(sagas)
        self._intakes = {saga.intake: saga for saga in sagas.values()}
        self._outside = {ADMISSIONS, *self._intakes}
        self._tracing = tracing
        self._clock = clock
        self._partitions = partitions
        self._plans = Plans(lane.state, sagas)
        self._dossiers = Dossiers(lane.state, cabinet or Cabinet(), self._plans.ends)
        self._forgetting = Forgetting(lane.state, {b"x/": ended_ms}, keeps_s, clock)
        self._batch = Batch()
        self._backlog = Backlog(lane.state, self._outside)
        self._taken: dict[str, int] = {}
        self._locks = LockBook(self._lock_row, self._keep_lock_row)
        self.deadlines = Deadlines(clock, self._outside)
        self._let_in: set[str] = set()
        """Sagas whose answers from outside were taken in and not covered by the high watermarks that were asked for last."""

        for saga, head in self._dossiers.all_open():
            if head.name is None or head.name in sagas:
                looked_at = head.name is None or head.kept  # an earlier coordinator may not have known what began
                self._set_timer(saga, head.name, 0 if looked_at else self._due_ms(head))
            if head.name is not None:
                self._dossiers.open.begin(head.name)

    def close(self) -> None:
        """The lane is left: its sagas are no longer this process's to count."""
        self._dossiers.close()

    @property
    def declared(self) -> set[str]:
        """The agents that have declared this lane."""
        return self._plans.declared

    @property
    def versions(self) -> Set[str]:
        """Every version of an agent that was ever declared in this lane."""
        return self._plans.versions

    def patience_s(self, most_s: float) -> float:
        """How long the lane may wait for records, and at most that long."""
        if self._backlog:
            return min(0.05, most_s)
        if self._backlog.waits:
            most_s = min(1.0, most_s)
        return self.deadlines.patience_s(most_s)

    # --- records -------------------------------------------------------------------------------------------------

    def take(self, records: Sequence[Record], *, is_open: bool) -> None:
        """Sort a batch. While the lane is not open, what would start a saga is held back, and its offset with it; where there
        is much of that its topics are paused."""
        backlog = self._backlog
        if backlog.waits:
            for record in backlog.given_up(int((self._clock() - ADMITTED_WITHIN_S) * 1000)):
                self._take_admission(record, is_open=is_open)
        if is_open and backlog:
            for record in backlog.release():
                self._take_admission(record, is_open=True)
            self._lane.resume(self._outside)
        for record in records:
            if record.topic in self._outside:
                if backlog.is_new(record):
                    self._take_admission(record, is_open=is_open)
                continue
            if record.offset < self._taken.get(record.topic, 0):
                continue  # delivered twice to this holder
            if record.topic == LOCKS:
                self._take_lock(record)
            else:
                self._take_news(record)
            self._batch.done[record.topic] = self._taken[record.topic] = record.offset + 1
        self._batch.done.update(backlog.offsets())
        self._batch.state.update(backlog.rows())
        if backlog.is_full:
            self._lane.pause(self._outside)

    def _take_news(self, record: Record) -> None:
        try:
            envelope = parse(record)
            problems = misplaced(record, envelope, self._partitions)
            if problems:
                raise UndecodableRecord("misplaced", problems)
            if record.topic == FACTS:
                fact: Fact = read_fact(envelope)
            elif envelope.type != record.topic:
                mismatch = f"an event of type {envelope.type} does not belong on topic {record.topic}"
                raise UndecodableRecord("on the wrong topic", [Problem("ce_type", "topic.mismatch", mismatch)])
            else:
                fact = Happened.of(envelope, record.offset)
        except UndecodableRecord as error:
            self._dead(record, error)
            return
        if isinstance(fact, Declared):
            self._declare(fact, News(fact, envelope, record))
        elif isinstance(fact, Blocked):
            self._batch.blocked.append(News(fact, envelope, record))
        elif envelope.saga is not None:
            self._batch.news.setdefault(envelope.saga, []).append(News(fact, envelope, record))

    def _declare(self, fact: Declared, news: News) -> None:
        """A lane of an agent answers by this manifest from now on. What that makes due for open sagas is issued, too."""
        before = self._plans.declare(fact)
        now_waited_for = self._plans.waited_for_since(before)
        found = self._dossiers.turning()
        if now_waited_for:
            found |= self._dossiers.with_events(now_waited_for)
        for saga_id in found:
            dossier = self._dossiers.find(saga_id)
            if dossier is not None and (dossier.kept or self._kinds.is_unknown(dossier, self._plans.said)):
                self._dossiers.decide_anew(dossier)
            elif dossier is not None and dossier.name is not None:
                plan = self._plans[dossier.name]
                issued_under = self._plans.with_ends(before[plan.saga], dossier.ends) or before[plan.saga]
                _, commands = decide(plan, dossier.history, (), issued_under)
                self._decided(dossier, plan)
                if now_waited_for:
                    self._await(dossier, plan, dossier.history.types, int(self._clock() * 1000))
                if commands:
                    declared = replace(news, envelope=news.envelope.with_trace(_began_under(dossier.history)))
                    self._issue(dossier, commands, declared, root="declaration" in self._tracing.new_linked)

    def _dead(self, record: Record, error: ProblemsError) -> None:
        code = error.problems[0].code if len(error.problems) == 1 else error.code
        envelope = unread(record)
        work = self._process(envelope, record, envelope.saga, "")
        work.fail(code, "; ".join(f"{each.where} {each.code}" for each in error.problems))
        traceparent = work.trace.traceparent
        reason = Reason(code=code, step=COORDINATOR, problems=error.problems, traceparent=traceparent)
        self._batch.outputs.append(dead_letter(record, COORDINATOR, reason))
        self._close(work, envelope.saga)

    # --- admissions ----------------------------------------------------------------------------------------------

    def _take_admission(self, record: Record, *, is_open: bool) -> None:
        try:
            if record.topic == ADMISSIONS:
                event = parse(record)
                if not self._is_known(event) and self._waits_for_another(record, event):
                    return
                admission = self._admission(event)
            else:
                saga = self._intakes[record.topic]
                admission = admit(record, saga, self._partitions, self._clock())
            if not is_open and self._waits_for_the_lane(admission):
                self._backlog.hold(record, admission.event.saga or "")
                return
            self._admit(record, admission)
        except (UndecodableRecord, ContractViolation) as error:
            self._dead(record, error)
        self._backlog.done(record)

    def _waits_for_the_lane(self, admission: Admission) -> bool:
        """Whether it starts a saga, or answers one whose start may wait itself."""
        saga_id = admission.event.saga or ""
        if not admission.is_answer or self._backlog.holds(saga_id):
            return True
        return self._is_here(saga_id) and not self._dossiers.admitted(saga_id)

    def _is_here(self, saga_id: str) -> bool:
        return partition_of(saga_id.encode(), self._partitions) == self._lane.partition

    def _is_known(self, event: Envelope) -> bool:
        """Whether what another lane took in is of a saga that this coordinator knows."""
        dossier = self._dossiers.find(event.saga or "")
        takes_in = event.type in self._kinds.answers or event.type in self._kinds.starts
        return takes_in and not (dossier is not None and self._kinds.is_unknown(dossier, self._plans.said))

    def _waits_for_another(self, record: Record, event: Envelope) -> bool:
        """Hold it back, while it is not old: its offset stays, and who holds the lane next may know it."""
        is_old = record.timestamp_ms <= (self._clock() - ADMITTED_WITHIN_S) * 1000
        return event.saga is not None and not is_old and self._backlog.wait(record, event.saga)

    def _admission(self, event: Envelope) -> Admission:
        """What another lane took in, and this one owns."""
        is_answer = event.type in self._kinds.answers
        if event.saga is None or not self._is_known(event):
            unknown = Problem("ce_type", "admission.unknown", f"no saga of this coordinator takes in {event.type}")
            raise UndecodableRecord("no admission", [unknown])
        return Admission(event, event, named=True, is_answer=is_answer)

    def _admit(self, record: Record, admission: Admission) -> None:
        event = admission.event
        saga_id = event.saga or ""
        is_here = self._is_here(saga_id)
        before = is_here and admission.named and self._was_admitted(admission)
        name = self._kinds.starts[event.type] if not admission.is_answer else ""
        work = self._process(admission.origin, record, saga_id, name)
        if not is_here:
            trace = work.send(ADMISSIONS, event.id, event.type, size=len(event.data), edge="admission")
            self._batch.outputs.append(event.with_trace(trace).to_message(ADMISSIONS))
        elif before:
            work.event("admitted before")
        else:
            if not admission.is_answer:
                if admission.named or self._kinds.answers:
                    self._dossiers.admit(saga_id)
                work.point(f"saga {name} start")
            trace = work.send(event.type, event.id, event.type, size=len(event.data))
            self._batch.outputs.append(event.with_trace(trace).to_message())
        self._close(work, saga_id)

    def _was_admitted(self, admission: Admission) -> bool:
        """Whether that very event came before. An answer to no running saga, or a second one, is refused."""
        event = admission.event
        saga_id = event.saga or ""
        if not admission.is_answer:
            return self._dossiers.admitted(saga_id)
        dossier = self._dossiers.find(saga_id)
        known = dossier.history.answered.get(event.type) if dossier is not None else None
        if known == event.id:
            return True
        name = dossier.name if dossier is not None else None
        plan = self._plans.get(name)
        turned_back = dossier is not None and plan is not None and failure(plan, dossier.history) is not None
        if turned_back or self._dossiers.ended(saga_id) or not self._dossiers.admitted(saga_id):
            why = "turns back" if turned_back else "is over" if self._dossiers.ended(saga_id) else "is not known"
            late = f"the saga {why}: {event.type} is too late, or was never asked for"
            raise UndecodableRecord("nobody waits for it", [Problem("ce_sagaid", "answer.not-waited-for", late)])
        if name is not None and (plan is None or event.type not in self._kinds.answers_to(name)):
            wrong = f"{name} does not wait for {event.type}"
            raise UndecodableRecord("nobody waits for it", [Problem("ce_type", "answer.unknown", wrong)])
        if known is not None:
            given = f"the saga has its {event.type} already: the first one counts"
            raise UndecodableRecord("answered before", [Problem("ce_type", "answer.given", given)])
        if dossier is None:  # its start event was admitted, and is on its way here
            dossier = self._dossiers.begin(saga_id, None, int(self._clock() * 1000))
            self._time(saga_id, None, dossier.started_ms)
        answered = Answered(event.type, event.id)
        self._let_in.add(saga_id)
        self._dossiers.add(dossier, [answered])
        dossier.history = dossier.history.with_facts([answered])
        return False

    # --- locks ---------------------------------------------------------------------------------------------------

    def _take_lock(self, record: Record) -> None:
        """An order to this lane as the owner of a key: its queue changes, and sagas are told."""
        try:
            envelope = parse(record)
            order = read_order(envelope)
            if partition_of(order.key.encode(), self._partitions) != self._lane.partition:
                lost = "the record is not where murmur2 of its key puts it"
                raise UndecodableRecord("misplaced", [Problem("partition", "partition.misplaced", lost)])
        except UndecodableRecord as error:
            self._dead(record, error)
            return
        work = self._process(envelope, record, order.saga, "")
        for saga, fact in self._locks.follow(order, envelope.trace):
            if isinstance(fact, Blocked):
                self._state(saga, fact, self._clock())
                continue
            stated = fact_envelope(fact, saga=saga, source=f"/{COORDINATOR}", time_s=self._clock())
            if saga != order.saga:  # it goes on in its own trace, where it asked
                trace = self._locks.trace_of(order.key, saga)
            else:
                trace = work.send(FACTS, stated.id, stated.type, saga=saga, size=len(stated.data), edge="answer")
            self._batch.outputs.append(fact_message(stated, trace))
        self._close(work, order.saga)

    def _lock_row(self, key: bytes) -> bytes | None:
        return self._batch.state[key] if key in self._batch.state else self._lane.state.get(key)

    def _keep_lock_row(self, key: bytes, row: bytes | None) -> None:
        self._batch.state[key] = row

    def _look_for_circles(self) -> None:
        """Sagas that hold a lock for which others wait: where they wait for a lock, too, its owner is asked who has that."""
        for news in self._batch.blocked:
            fact, saga = news.fact, news.envelope.saga or ""
            if isinstance(fact, Blocked) and saga in {each for each, _ in fact.path}:
                self._give_way(saga, fact)
            elif isinstance(fact, Blocked):
                paths = ((*fact.path, (saga, lock)) for lock in self._awaited_locks(saga))
                self._order(news, saga, [LockOrder("probe", path[-1][1], saga, path=path) for path in paths])

    def _give_way(self, saga: str, circle: Blocked) -> None:
        """Sagas wait for each other's locks, and this one is to fail. Where its pivot is asked, or taken, it cannot: then the
        next one in the circle is to."""
        dossier = self._dossiers.find(saga)
        if dossier is None or not self._awaited_locks(saga):
            return
        now_s = self._clock()
        if point_of(self._plans[dossier.name or ""], dossier.history) in ("before", "refused"):
            self._let_fire(dossier, Fired("deadlock", int(now_s * 1000), told(circle.path)))
            return
        others = [each for each, _ in circle.path if each < saga]
        if others:
            self._state(max(others), circle, now_s)
        else:
            log.warning("nobody in a circle of locks can give way, for all are past their pivots: %s", told(circle.path))

    def _state(self, saga: str, blocked: Blocked, now_s: float) -> None:
        """Tell a saga who waits for it. The same may be told again; it is nobody's trace."""
        stated = fact_envelope(blocked, saga=saga, source=f"/{COORDINATOR}", time_s=now_s)
        self._batch.outputs.append(fact_message(replace(stated, id=uuid7()), NO_TRACE))

    def _awaited_locks(self, saga: str) -> list[str]:
        """The locks that a saga waits for; none where it is turned back."""
        dossier = self._dossiers.find(saga)
        plan = self._plans.get(dossier.name) if dossier is not None else None
        if dossier is None or plan is None or failure(plan, dossier.history) is not None:
            return []
        return dossier.history.awaited_locks()

    def _order(self, news: News, saga: str, orders: Sequence[LockOrder]) -> None:
        if not orders:
            return
        work = self._process(news.envelope, news.record, saga, "")
        work.split(len(orders))
        self._batch.outputs.extend(order_message(order, work, self._clock()) for order in orders)
        self._close(work, saga)

    # --- decisions -----------------------------------------------------------------------------------------------

    def fire(self, sagas: Iterable[str]) -> None:
        """The time of these sagas has come, and everything that was there before was read."""
        for saga_id in sagas:
            dossier = self._dossiers.find(saga_id)
            if dossier is None or self._catches_up(dossier) or self._kinds.is_unknown(dossier, self._plans.said):
                continue
            self._still_awaited(dossier)
            if self._due_ms(dossier) > self._clock() * 1000:
                self._set_timer(saga_id, dossier.name, self._due_ms(dossier))
                continue
            if dossier.history.fired or dossier.history.overdue is not None:
                continue
            if self._backlog.waits_for(saga_id):  # an answer, perhaps
                self._set_timer(saga_id, dossier.name, int(self._clock() * 1000) + 1000)
                continue
            if saga_id in self._batch.news or saga_id in self._let_in:
                self._set_timer(saga_id, dossier.name, self._due_ms(dossier))  # first what was just heard, then the clock
                continue
            self._let_fire(dossier, self._fired(dossier))

    def _catches_up(self, dossier: Dossier) -> bool:
        """Where its saga has other ends than when it was decided last, or a coordinator kept its facts that did not know it,
        what follows from that comes before the clock. Whether it is over with that."""
        base = dossier.acted_upon if not self._learns_name(dossier, ()) else History()
        plan = self._plans.get(dossier.name)
        issued_under = self._plans.with_ends(plan, dossier.ends) if plan is not None else None
        if plan is None or (issued_under is None and base is dossier.history):
            return False
        kept = [fact for fact in dossier.history.facts if not base.knows(fact.identity)]
        now_ms = int(self._clock() * 1000)
        told = self._told(dossier, Fired("overdue", now_ms, ""))
        dossier.history, commands = decide(plan, base, kept, issued_under or plan)
        self._decided(dossier, plan)
        self._await(dossier, plan, [fact.type for fact in kept if isinstance(fact, Happened)], now_ms)
        if commands:
            self._issue(dossier, commands, told)
        if kept and self._awaited_locks(dossier.saga):
            self._order(told, dossier.saga, [LockOrder("check", each, dossier.saga) for each in sorted(dossier.history.locks)])
        return self._dossiers.find(dossier.saga) is None

    def _learns_name(self, dossier: Dossier, news: Sequence[News]) -> bool:
        """Whether it becomes known now with which event it began."""
        if dossier.name is not None:
            return False
        began = self._kinds.start_among([*(each.fact for each in news), *dossier.history.facts])
        if began is None:
            return False
        times = [each.record.timestamp_ms for each in news if each.fact is began]
        name = self._kinds.starts[began.type]
        self._dossiers.name(dossier, name, times[0] if times else dossier.started_ms)
        self._time(dossier.saga, name, dossier.started_ms)
        return True

    def _told(self, dossier: Dossier, fact: Fired) -> News:
        """What the clock says, under the trace in which its saga began."""
        envelope = fact_envelope(fact, saga=dossier.saga, source=f"/{COORDINATOR}", time_s=self._clock())
        record = Record(FACTS, self._lane.partition, 0, dossier.saga.encode(), None, (), 0)
        return News(fact, envelope.with_trace(_began_under(dossier.history)), record)

    def _let_fire(self, dossier: Dossier, fact: Fired) -> None:
        news = self._told(dossier, fact)
        base = dossier.history
        if dossier.name is None:
            self._dossiers.name(dossier, self._kinds.likely(dossier.history), dossier.started_ms)
            base = History()
        self._decide(dossier, [news], base, timer=True)

    def _still_awaited(self, dossier: Dossier) -> None:
        """Forget what has come since, or never will."""
        if dossier.awaited and dossier.name is not None:
            waiting = {debt.step for debt in open_debts(self._plans[dossier.name], dossier.history) if debt.waiting}
            self._dossiers.wait(dossier, {step: due for step, due in dossier.awaited.items() if step in waiting})

    def _decided(self, dossier: Dossier, plan: Plan) -> None:
        """All that is due for it by now was looked for; something may be due later."""
        self._dossiers.decided(dossier)
        if not nothing_to_decide(plan, dossier.history):
            self._dossiers.turn(dossier)

    def _await(self, dossier: Dossier, plan: Plan, heard: Iterable[str], last_ms: int) -> None:
        """Of steps that wait since then for nothing any more but an event from outside: by when it is to be there. ``heard``:
        the types of what has come, the last of it at ``last_ms``."""
        if plan.externals.isdisjoint(heard):
            return
        found = dict(dossier.awaited)
        for name in awaited_outside(plan, dossier.history, self._kinds.answers_to(plan.saga)):
            step = plan.steps[name]
            if step.external and step.within_s is not None and name not in found:
                found[name] = last_ms + int(step.within_s * 1000)
        self._dossiers.wait(dossier, found)
        self._set_timer(dossier.saga, dossier.name, self._due_ms(dossier))

    def _fired(self, dossier: Dossier) -> Fired:
        now_ms = int(self._clock() * 1000)
        if dossier.name is None:
            return Fired("unknown", now_ms, "its start event never came")
        count_overdue(dossier.name)
        if dossier.started_ms + self._allowed_ms(dossier.name) > now_ms:
            step = min(dossier.awaited, key=lambda each: (dossier.awaited[each], each))
            passed = f"nobody outside answered {step} in time"
        else:
            step, passed = None, "the saga's deadline passed"
        may_fail = self._sagas[dossier.name].overdue == "fail"
        if may_fail and point_of(self._plans[dossier.name], dossier.history) in ("before", "refused"):
            return Fired("deadline", now_ms, passed)
        plan = self._plans[dossier.name]
        owed = [debt for debt in open_debts(plan, dossier.history) if not debt.waiting]
        missing = sorted(f"{' or '.join(plan.steps[each.step].produces) or 'done'} of {each.step}" for each in owed)
        for name, kinds in awaited_outside(plan, dossier.history, self._kinds.answers_to(plan.saga)).items():
            if step in (None, name):
                missing.append(f"{' or '.join(kinds)} from outside, for {name}")
        detail = f"{passed}, it runs on; missing: {', '.join(missing) or 'nothing'}"
        log.warning("saga %s %s: %s", dossier.name, dossier.saga, detail)
        return Fired("overdue", now_ms, detail)

    def decide(self) -> Decision | None:
        """Everything taken and fired since the last commit, decided; None where there is nothing to commit."""
        for saga_id, news in self._batch.news.items():
            self._hear(saga_id, news)
            for each in news:
                if isinstance(each.fact, Locked) and self._awaited_locks(saga_id):
                    self._order(each, saga_id, [LockOrder("check", each.fact.lock, saga_id)])
        self._look_for_circles()
        batch = self._batch
        batch.state.update(self._dossiers.changes)
        if not (batch.done or batch.outputs or batch.state):
            return None
        batch.state = {**self._forgetting.due(), **self._plans.changes, **batch.state}
        return Decision(batch.done, batch.outputs, batch.state)

    def committed(self) -> None:
        """The decision is durable."""
        self._batch = Batch()
        if not self.deadlines.waits:
            self._let_in.clear()
        self._plans.committed()
        self._dossiers.committed()

    def _hear(self, saga_id: str, news: list[News]) -> None:
        dossier = self._dossiers.find(saga_id)
        if dossier is None:
            if self._dossiers.ended(saga_id):
                return
            dossier = self._dossiers.begin(saga_id, None, int(self._clock() * 1000))
            self._time(saga_id, None, dossier.started_ms)
        is_new = self._learns_name(dossier, news)
        facts = [each.fact for each in news]
        if dossier.name is None:
            self._dossiers.add(dossier, facts)
            dossier.history = dossier.history.with_facts(facts)
        elif self._kinds.is_unknown(dossier, self._plans.said):
            self._dossiers.keep(dossier, facts)
        elif not (dossier.kept and self._catches_up(dossier)):
            self._decide(dossier, news, History() if is_new else dossier.history)

    def _decide(self, dossier: Dossier, news: Sequence[News], base: History, *, timer: bool = False) -> None:
        """Decide with new facts. ``base`` is the history whose commands were issued: empty where none could be yet."""
        name = dossier.name or ""
        plan = self._plans[name]
        facts = [each.fact for each in news]
        self._dossiers.add(dossier, facts)
        known = dossier.history.facts if base is not dossier.history else ()
        dossier.history, commands = decide(plan, base, [*known, *facts], self._plans.with_ends(plan, dossier.ends))
        self._decided(dossier, plan)
        if plan.externals:
            heard = [fact.type for fact in (*known, *facts) if isinstance(fact, Happened)]
            self._await(dossier, plan, heard, max([each.record.timestamp_ms for each in news]))
        unheard = [each for each in news if isinstance(each.fact, Happened) and not plan.steps_for(each.fact.type)]
        if not commands and not unheard and not timer:
            return
        last = (unheard or news)[-1] if not commands else news[-1]
        self._issue(dossier, commands, last, root=timer and "timer" in self._tracing.new_linked, stated=not timer)

    def _issue(
        self, dossier: Dossier, commands: Sequence[Command], last: News, *, root: bool = False, stated: bool = True
    ) -> None:
        """Write commands, under the trace of the news that led to them; ``root``: under a new one, linked to it.

        ``stated``: that news was heard, and nobody needs to be told of it again; else it is our timer's, and goes out first.
        """
        name = dossier.name or ""
        if any(isinstance(each, Halt | Park) for each in commands):
            self._tracing.failed(dossier.saga)
        work = self._process(last.envelope, last.record, dossier.saga, name, root=root)
        started_s = dossier.started_ms / 1000
        clerk = Clerk(self._sagas[name], dossier.saga, dossier.history, work, self._clock(), started_s)
        written = clerk.write(commands, beside=int(not stated))
        if not stated:
            trace = work.send(FACTS, last.envelope.id, last.envelope.type, saga=dossier.saga, edge="answer")
            self._batch.outputs.append(fact_message(last.envelope, trace))
        self._batch.outputs.extend(written)
        if clerk.stated:
            self._dossiers.add(dossier, clerk.stated)
            dossier.history = dossier.history.with_facts(clerk.stated)
        if clerk.verdict is not None:
            at_ms = int(self._clock() * 1000)
            self._dossiers.end(dossier, clerk.verdict, at_ms)
            dossier.history = dossier.history.with_facts([Ended(clerk.verdict, at_ms)])
            self.deadlines.forget(dossier.saga)
        self._close(work, dossier.saga)

    # --- time and trace ------------------------------------------------------------------------------------------

    def _time(self, saga: str, name: str | None, started_ms: int) -> None:
        self._set_timer(saga, name, started_ms + self._allowed_ms(name))

    def _set_timer(self, saga: str, name: str | None, due_ms: int) -> None:
        self.deadlines.set(saga, due_ms, answered=bool(self._kinds.answers_to(name)))

    def _due_ms(self, saga: Dossier | Head) -> int:
        return min([saga.started_ms + self._allowed_ms(saga.name), *saga.awaited.values()])

    def _allowed_ms(self, name: str | None) -> int:
        saga = self._sagas.get(name) if name is not None else None
        return int((saga.deadline.total_seconds() if saga is not None else UNKNOWN_AFTER_S) * 1000)

    def _process(self, envelope: Envelope, record: Record, saga: str | None, name: str, *, root: bool = False) -> Work:
        if saga is not None and envelope.saga != saga:
            envelope = envelope.of_saga(saga)
        return self._tracing.process(
            envelope,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=COORDINATOR,
            saga_name=name or None,
            root=root,
        )

    def _close(self, work: Work, saga: str | None) -> None:
        work.end()
        spans = work.spans
        if spans:
            self._batch.outputs.append(encode(spans, saga, partition=self._lane.partition))


def _began_under(history: History) -> Trace:
    """The trace of a saga's start event; where that never came, of some event of it: what nobody sent is linked to it."""
    events = sorted(history.events.values(), key=lambda each: bool(each.causes))
    return parse_structured(events[0].event).trace if events else NO_TRACE
