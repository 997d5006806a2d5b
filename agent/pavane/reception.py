"""Reception: what a lane receives becomes units of work, an end, an undo, or a dead letter."""

from collections.abc import Sequence
from dataclasses import dataclass

from pavane.answers import Answers
from pavane.arms import arms_of_saga, decode_arms, encode_tombstone, may_have_begun, tombstone_key
from pavane.attempts import ENDED_IN_DOUBT, ENDED_WAITING
from pavane.commits import Commits
from pavane.kit import Kit
from pavane.marks import Marks
from pavane.overlay import Overlay
from pavane.progress import Progress
from pavane.step import AnyStep
from pavane.tiers import Delayed, from_tier
from pavane.units import CONTROL_UNIT, UNDO_UNIT, Done, UndoUnit, Unit
from pavane.waiting import Index, Waiting, place_of
from pavane.workers import Workers
from pavane_events.bus import MAX_RECORD_BYTES
from pavane_events.envelope import Envelope, parse, unread
from pavane_events.errors import Problem, UndecodableRecord
from pavane_events.record import Message, Record
from pavane_saga.facts import Settled, UndoFailed
from pavane_saga.wire import ENDS, GRANT, UNDO, GrantRead, asked_for, has_failed, misplaced, read_grant, read_undo_request
from pavane_tracing.work import Work


@dataclass(frozen=True, slots=True)
class Reception:
    """Sorts a lane's records. Nothing here waits: control records do not queue behind events of their key."""

    kit: Kit
    state: Overlay
    index: Index
    progress: Progress
    marks: Marks
    commits: Commits
    workers: Workers[Unit | UndoUnit]
    answers: Answers

    def take(self, record: Record) -> None:
        """Sort one record. It is admitted to progress here, and settled by whoever works on it."""
        if record.value is not None and len(record.value) > MAX_RECORD_BYTES:
            problem = Problem("value", "value.too-large", f"more than {MAX_RECORD_BYTES} bytes")
            self._refuse(record, [problem])
            return
        try:
            envelope = parse(record)
        except UndecodableRecord as error:
            self._refuse(record, error.problems)
            return
        problems = misplaced(record, envelope, self.kit.partitions)
        if problems:
            self._refuse(record, problems)
        elif record.topic == ENDS:
            self._end(record, envelope)
        elif record.topic == self.kit.plan.commands:
            self._command(record, envelope)
        elif envelope.type != record.topic:
            mismatch = f"an event of type {envelope.type} does not belong on topic {record.topic}"
            self._refuse(record, [Problem("ce_type", "topic.mismatch", mismatch)])
        else:
            self._event(record, envelope)

    def take_delayed(self, record: Record) -> Unit | UndoUnit | None:
        """What a record of a delay tier asks for now that it is due, admitted to progress; None where it is settled."""
        try:
            delayed = from_tier(record)
            if self._was_finished(record, delayed.step):
                return None
            envelope = parse(delayed.original)
            problems = misplaced(delayed.original, envelope, self.kit.partitions)
            if problems:
                raise UndecodableRecord("no input of this lane", problems)
            if delayed.step == UNDO_UNIT:
                undo = self._undo_unit(delayed.original, envelope, delayed)
                self.progress.admit(record.topic, record.offset, 1, len(record.value or b""))
                return undo
        except UndecodableRecord as error:
            self._refuse(record, error.problems)
            return None
        place = place_of(delayed.original, envelope, delayed.step)
        waiting = self.index.get(place) if place is not None else None
        if place is not None and waiting is None:  # the end of its saga settled it
            self.progress.admit(record.topic, record.offset, 0)
            self.commits.nudge()
            return None
        self.progress.admit(record.topic, record.offset, 1, len(record.value or b""))
        if delayed.original.topic == self.kit.plan.commands:
            try:
                return self._grant_unit(delayed.original, envelope, delayed)
            except UndecodableRecord:
                step = None
        else:
            step = self.kit.plan.by_wire_name.get(delayed.step)
        if step is not None and step in self.kit.plan.listeners.get(delayed.original.topic, ()):
            return self._unit(delayed.original, envelope, step, may_have_begun=True, delayed=delayed)
        self.commits.settle(record, delayed.step, self._gone(delayed, envelope, place, waiting))
        return None

    def _gone(self, delayed: Delayed, envelope: Envelope, place: bytes | None, waiting: Waiting | None) -> Done:
        """This version of the agent no longer has that step for that event: it fails, to the dead letters as well."""
        code, reason = "step.gone", "the agent has no such step for that event any more"
        work = self._begin(delayed.original, envelope)
        messages: list[Message] = []
        if waiting is not None and envelope.saga is not None:
            messages.append(
                self.answers.settled(waiting.step, envelope.saga, waiting.causes, work, how="failed", code=code, reason=reason)
            )
        problems = [Problem("", code, reason)]
        dead = self.answers.dead(delayed.original, delayed.step, code, attempt=delayed.attempts, problems=problems, work=work)
        messages.append(dead)
        work.end()
        done = Done(messages, {place: None} if place is not None else {})
        return self.answers.with_spans(done, work, envelope.saga, delayed.original.partition)

    def _event(self, record: Record, envelope: Envelope) -> None:
        steps = self.kit.plan.listeners[record.topic]
        if self.marks.until:
            steps = tuple(step for step in steps if self.marks.takes(step.wire_name, record))
        newer: Sequence[AnyStep] = ()
        if self.progress.remembers:
            finished = self.progress.finished_before
            steps = tuple(step for step in steps if not finished(record.topic, record.offset, step.wire_name))
            newer = self._newer(record, envelope, steps)
            steps = tuple(step for step in steps if step not in newer)
        self.progress.admit(record.topic, record.offset, len(steps) + len(newer), len(record.value or b""))
        if not steps and not newer:
            self.commits.nudge()
        for step in newer:
            self.commits.settle(record, step.wire_name, self._passed_over(record, envelope, step))
        maybe = self.marks.may_have_begun(record)
        for step in steps:
            self.workers.submit(self._unit(record, envelope, step, may_have_begun=maybe))

    def _newer(self, record: Record, envelope: Envelope, steps: Sequence[AnyStep]) -> Sequence[AnyStep]:
        """The steps that are of a later version than one that has finished the input: that one owed the answers to it, and
        the saga may have ended with them."""
        under = self.progress.finished_under(record.topic, record.offset) if envelope.saga is not None else None
        if under is None:
            return ()
        return [
            step
            for step in steps
            if not step.options.observer and self.marks.answers_since(step.wire_name, record.topic) > under
        ]

    def _passed_over(self, record: Record, envelope: Envelope, step: AnyStep) -> Done:
        """It is skipped, for by the lane's declaration it owes an answer."""
        work = self._begin(record, envelope)
        message = self.answers.settled(
            step.wire_name,
            envelope.saga or "",
            [envelope.id],
            work,
            how="skipped",
            began=False,
            code="step.newer",
            reason="an earlier version had finished its input, which knew no such step",
        )
        work.end()
        return self.answers.with_spans(Done([message]), work, envelope.saga, record.partition)

    def _unit(
        self,
        record: Record,
        envelope: Envelope,
        step: AnyStep,
        *,
        may_have_begun: bool,
        granted: GrantRead | None = None,
        delayed: Delayed | None = None,
    ) -> Unit:
        if not self.marks.may_have_begun_otherwise(record):
            return Unit(record, envelope, step, may_have_begun, granted=granted, delayed=delayed)
        name = step.wire_name
        under = self._owed_under(name)
        return Unit(
            record,
            envelope,
            step,
            may_have_begun=True,
            otherwise=True,
            begun_on=self.marks.begun_on_otherwise(name) if step.owes_undo or under is not None else (),
            under=under,
            granted=granted,
            delayed=delayed,
        )

    def _owed_under(self, name: str) -> str | None:
        """The version under which what was begun of a step is answered, where this one owes no undo of it any more."""
        step = self.kit.plan.by_wire_name.get(name)
        return self.marks.owed_under(name) if step is None or not step.owes_undo else None

    def _command(self, record: Record, envelope: Envelope) -> None:
        try:
            unit = self._grant_unit(record, envelope) if envelope.type == GRANT else self._undo_unit(record, envelope)
            if self._was_finished(record, unit.name):
                return
        except UndecodableRecord as error:
            self._refuse(record, error.problems, self._command_failed(record, envelope))
            return
        self.progress.admit(record.topic, record.offset, 1, len(record.value or b""))
        self.workers.submit(unit)

    def _undo_unit(self, record: Record, envelope: Envelope, delayed: Delayed | None = None) -> UndoUnit:
        if envelope.type != UNDO or envelope.saga is None:
            unknown = Problem("ce_type", "command.unknown", f"the commands are {UNDO} and {GRANT}, for a saga")
            raise UndecodableRecord("no command", [unknown])
        return UndoUnit(record, envelope, read_undo_request(envelope), delayed=delayed)

    def _grant_unit(self, record: Record, envelope: Envelope, delayed: Delayed | None = None) -> Unit:
        granted = read_grant(envelope)
        step = self.kit.plan.by_wire_name.get(granted.step)
        if step is None:
            gone = Problem("data", "step.gone", "the agent has no such step (any more)")
            raise UndecodableRecord("no grant", [gone])
        last = max(granted.inputs, key=lambda each: (each.depth, each.id))
        if envelope.saga is not None:
            last = last.of_saga(envelope.saga)
        completing = last.with_trace(envelope.trace)
        return self._unit(record, completing, step, may_have_begun=True, granted=granted, delayed=delayed)

    def _command_failed(self, record: Record, envelope: Envelope) -> list[Message]:
        """That the undo, or the step, failed for good, where the command at least says which: else its saga would wait
        for ever."""
        asked = asked_for(envelope)
        if asked is None or envelope.saga is None or envelope.type not in (UNDO, GRANT):
            return []
        work = self._begin(record, envelope)
        reason = "the command cannot be followed: see the agent's dead letters"
        step, causes, retry = asked
        failed: UndoFailed | Settled = UndoFailed(step, causes, "undo.undecodable", reason, retry)
        if envelope.type == GRANT:
            failed = Settled(step, causes, "failed", False, "grant.undecodable", reason, retry=retry)
        message = self.answers.fact(failed, envelope.saga, work)
        work.end()
        done = self.answers.with_spans(Done([message]), work, envelope.saga, record.partition)
        return list(done.messages)

    def _end(self, record: Record, envelope: Envelope) -> None:
        """Raise the tombstone, let go of held arms (skipped; failed where an earlier holder may have begun on them), hurry
        what pauses, give up what waits in a tier (failed)."""
        if self._was_finished(record, CONTROL_UNIT):
            return
        self.progress.admit(record.topic, record.offset, 1, len(record.value or b""))
        saga = envelope.saga
        if saga is not None and has_failed(envelope):
            self.kit.tracing.failed(saga)
        if saga is None or self.state.get(tombstone_key(saga)) is not None:
            self.commits.settle(record, CONTROL_UNIT, Done())
            return
        running = self.workers.running((saga, None))
        joining = running.name if running is not None else None
        if running is not None:
            running.interrupt("ended")
        let_go: dict[str, dict[str, str]] = {}
        begun: set[str] = set()
        changes: dict[bytes, bytes | None] = {}
        for step, key, row in arms_of_saga(self.state, saga):
            if step != joining and not self._is_observer(step):
                changes[key] = None
                arms = decode_arms(row)
                if arms:
                    let_go[step] = {name: held.id for name, held in arms.items()}
                if may_have_begun(row):
                    begun.add(step)
        changes[tombstone_key(saga)] = encode_tombstone(let_go, self.kit.clock())
        work = self._begin(record, envelope)
        waiting = [each for each in self.index.of_saga(saga) if self._is_let_go(*each, running)]
        work.split(len(let_go) + len(waiting))
        messages: list[Message] = [
            self.answers.settled(
                step,
                saga,
                list(arms.values()),
                work,
                how="failed" if step in begun else "skipped",
                began=step in begun,
                code=ENDED_IN_DOUBT.code,
                reason=ENDED_IN_DOUBT.reason if step in begun else "",
                under=self._owed_under(step) if step in begun else None,
            )
            for step, arms in let_go.items()
        ]
        for place, each in waiting:
            changes[place] = None
            messages.append(self._given_up(each, saga, work))
        work.end()
        done = self.answers.with_spans(Done(messages, changes), work, saga, record.partition)
        self.commits.settle(record, CONTROL_UNIT, done)

    def _given_up(self, waiting: Waiting, saga: str, work: Work) -> Message:
        """A step was called, and waits to be tried again: it fails, so that whatever it did is undone."""
        code, reason = ENDED_WAITING.code, ENDED_WAITING.reason
        return self.answers.settled(waiting.step, saga, waiting.causes, work, how="failed", code=code, reason=reason)

    def _is_let_go(self, place: bytes, waiting: Waiting, running: Unit | UndoUnit | None) -> bool:
        """Whether what waits for its next attempt is given up at the end of its saga: all but what is just being tried."""
        return not self._is_observer(waiting.step) and (running is None or place != _place_of(running))

    def _is_observer(self, name: str) -> bool:
        """Whether that step is outside the saga's bookkeeping: then its arms are, too, and wait on."""
        step = self.kit.plan.by_wire_name.get(name)
        return step is not None and step.options.observer

    def _begin(self, record: Record, envelope: Envelope) -> Work:
        return self.kit.tracing.process(
            envelope,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            group=self.kit.plan.agent.name,
        )

    def _refuse(self, record: Record, problems: Sequence[Problem], said: Sequence[Message] = ()) -> None:
        """A record that is no event of ours: to the dead letters, and on."""
        if self._was_finished(record, CONTROL_UNIT):
            return
        self.progress.admit(record.topic, record.offset, 1, len(record.value or b""))
        code = problems[0].code if len(problems) == 1 else UndecodableRecord.code
        envelope = unread(record)
        work = self._begin(record, envelope)
        work.fail(code, "; ".join(f"{each.where} {each.code}" for each in problems))
        work.end()
        done = Done([*said, self.answers.dead(record, "", code, problems=problems, work=work)])
        self.commits.settle(record, CONTROL_UNIT, self.answers.with_spans(done, work, envelope.saga, record.partition))

    def _was_finished(self, record: Record, name: str) -> bool:
        """Whether an earlier holder of the lane finished that unit, behind one that it did not; then it is passed over."""
        if not self.progress.finished_before(record.topic, record.offset, name):
            return False
        self.progress.admit(record.topic, record.offset, 0)
        self.commits.nudge()
        return True


def _place_of(unit: Unit | UndoUnit) -> bytes | None:
    return unit.place if isinstance(unit, Unit) else None
