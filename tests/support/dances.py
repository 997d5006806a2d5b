"""Dances: small choreographies, each with one of the situations in which sagas go wrong, ready to be verified."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from pydantic import Field

from pavane import Agent, Context, EffectUndone, Event, Rejected, Retry, Saga, SagaEnded, Step
from pavane.testing import Answer, HistoryPlayed, Verification

TWICE = Retry(attempts=2, first_s=0.01)
PATIENT = Retry(attempts=3, first_s=0.01)
DEADLINE = timedelta(minutes=1)


class Asked(Event, type="dance.asked"):
    refuse: str = ""


class Left(Event, type="dance.left"):
    refuse: str = ""


class Right(Event, type="dance.right"):
    refuse: str = ""


class Detour(Event, type="dance.detour"):
    refuse: str = ""


class Met(Event, type="dance.met"):
    refuse: str = ""


class Done(Event, type="dance.done"):
    refuse: str = ""


class Refused(Event, type="dance.refused"):
    by: str = ""


class CalledOff(Event, type="dance.called-off"):
    """What the next version says in place of a refusal."""


@dataclass
class Store:
    """Effects by key, each with its fence: what was undone stays so. ``heard``: what observers were told."""

    effects: dict[str, tuple[str, str, bool]] = field(default_factory=dict[str, tuple[str, str, bool]])
    heard: list[str] = field(default_factory=list[str])

    def do(self, ctx: Context, what: str) -> bool:
        """Whether it is done for the first time."""
        known = self.effects.get(ctx.idempotency_key)
        if known is not None and not known[2]:
            raise EffectUndone(ctx.idempotency_key)
        self.effects[ctx.idempotency_key] = (ctx.saga or "", what, True)
        return known is None

    def undo(self, ctx: Context, what: str) -> None:
        self.effects[ctx.idempotency_key] = (ctx.saga or "", what, False)

    def standing(self, saga: str) -> list[str]:
        return sorted(what for each, what, stands in self.effects.values() if stands and each == saga)

    def clear(self) -> None:
        self.effects.clear()
        self.heard.clear()


def all_or_none(store: Store, *effects: str) -> "Invariant":
    """A completed saga has these effects, once each; any other saga has none."""
    return Invariant(store, sorted(effects))


@dataclass(frozen=True)
class Invariant:
    """What :func:`all_or_none` says."""

    store: Store
    effects: Sequence[str]

    def __call__(self, history: HistoryPlayed) -> None:
        for saga in history.sagas:
            expected = list(self.effects) if saga.verdict == "completed" else list[str]()
            standing = self.store.standing(saga.id)
            assert standing == expected, f"{saga.verdict}, and {standing} stand where {expected} should"


DANCE = Saga("dance", starts=Asked, completes=Done, deadline=DEADLINE, intake="dance.intake")
MAY_BE_REFUSED = Saga("dance", starts=Asked, completes=Done, fails=Refused, deadline=DEADLINE, intake="dance.intake")


def _left_branch(store: Store) -> Agent:
    """One step that can be undone, and says no where it is asked to."""
    left = Agent("left")

    @left.step(retry=TWICE)
    async def go_left(asked: Asked, ctx: Context) -> Left:
        store.do(ctx, "left")
        if asked.refuse == "left":
            raise Rejected("not to the left")
        return Left(refuse=asked.refuse)

    @go_left.compensate(retry=PATIENT, within=timedelta(seconds=10))
    async def back_left(asked: Asked, done: Left | None, ctx: Context) -> None:
        store.undo(ctx, "left")

    return left


def _right_branch(store: Store, retry: Retry = TWICE) -> Agent:
    """The same to the right."""
    right = Agent("right")

    @right.step(retry=retry)
    async def go_right(asked: Asked, ctx: Context) -> Right:
        store.do(ctx, "right")
        if asked.refuse == "right":
            raise Rejected("not to the right")
        return Right(refuse=asked.refuse)

    @go_right.compensate(retry=PATIENT)
    async def back_right(asked: Asked, done: Right | None, ctx: Context) -> None:
        store.undo(ctx, "right")

    return right


def fork_and_join(store: Store | None = None, *, next_version: bool = False) -> Verification:
    """Two branches side by side, a join that needs both, an end that may be a refusal, an observer that hears of it.

    ``next_version``: the right branch's agent and the join's are upgraded in mid-saga, to such as have another step.
    """
    store = store or Store()
    left, right, join = _left_branch(store), _right_branch(store), Agent("join")

    @join.step(retry=TWICE, within=timedelta(seconds=20))
    async def meet(a: Left, b: Right, ctx: Context) -> Done | Refused:
        if a.refuse == "join":
            return Refused(by="join")
        store.do(ctx, "join")
        return Done()

    @meet.compensate(retry=PATIENT)
    async def part(a: Left, b: Right, done: Done | Refused | None, ctx: Context) -> None:
        store.undo(ctx, "join")

    @join.observe(retry=TWICE)
    async def mourn(refused: Refused, ctx: Context) -> None:
        store.heard.append(f"{ctx.saga} was refused")

    @join.observe(retry=TWICE)
    async def note(ended: SagaEnded) -> None:
        store.heard.append(f"{ended.saga} ended")

    starts = {"to the end": Asked(), "refused": Asked(refuse="join"), "no": Asked(refuse="right")}
    return Verification(
        agents=[left, right, join],
        sagas=[MAY_BE_REFUSED],
        starts=starts,
        invariant=_unless_added(store) if next_version else all_or_none(store, "join", "left", "right"),
        reset=store.clear,
        next_versions=[_next_right(store, right.steps["go_right"]), _next_join(store, meet)] if next_version else (),
    )


def one_goes_one_is_renamed() -> Verification:
    """Two branches and a side step. In the next version the side step retires and its agent has another one instead, and one
    branch has another name: what was begun under the old version is answered and undone by the new one."""
    store = Store()
    left, right, join = _left_branch(store), _right_branch(store), Agent("join")

    async def _glance(asked: Asked, ctx: Context) -> None:
        store.do(ctx, "also")

    async def _look_away(asked: Asked, done: None, ctx: Context) -> None:
        store.undo(ctx, "also")

    glance = right.step(name="glance", retry=TWICE)(_glance)
    glance.compensate(retry=PATIENT)(_look_away)

    @join.step(effects=False)
    async def meet(a: Left, b: Right) -> Done:
        if a.refuse:
            raise Rejected("no")
        return Done()

    next_left, next_right = Agent("left"), Agent("right")

    @next_left.step(formerly="go_left", retry=TWICE)
    async def turn_left(asked: Asked, ctx: Context) -> Left:
        store.do(ctx, "left")
        return Left(refuse=asked.refuse)

    @turn_left.compensate(retry=PATIENT)
    async def turn_back(asked: Asked, done: Left | None, ctx: Context) -> None:
        store.undo(ctx, "left")

    next_right.steps["go_right"] = right.steps["go_right"]
    retired = next_right.step(name="glance", retry=TWICE, retiring=True)(_glance)
    retired.compensate(retry=PATIENT)(_look_away)

    @next_right.step(retry=TWICE)
    async def peer(left: Left, ctx: Context) -> None:
        store.do(ctx, "also")

    @peer.compensate(retry=PATIENT)
    async def look_up(left: Left, done: None, ctx: Context) -> None:
        store.undo(ctx, "also")

    return Verification(
        agents=[left, right, join],
        sagas=[DANCE],
        starts={"to the end": Asked(), "no": Asked(refuse="join")},
        invariant=_WithAdded(store, ["left", "right"]),
        reset=store.clear,
        next_versions=[next_left, next_right],
    )


def ends_change() -> Verification:
    """Two branches and a join that may refuse. In the next version it calls the dance off instead, and the saga has that
    end beside the old one: whichever is upgraded first, and when, all that was done is undone."""
    store = Store()
    left, right, join, next_join = _left_branch(store), _right_branch(store), Agent("join"), Agent("join")

    @join.step(effects=False, retry=TWICE)
    async def meet(a: Left, b: Right) -> Done | Refused:
        return Refused(by="join") if a.refuse else Done()

    @next_join.step(name="meet", effects=False, retry=TWICE)
    async def meet_or_not(a: Left, b: Right) -> Done | Refused | CalledOff:
        return CalledOff() if a.refuse else Done()

    return Verification(
        agents=[left, right, join],
        sagas=[MAY_BE_REFUSED],
        starts={"to the end": Asked(), "no": Asked(refuse="join")},
        invariant=all_or_none(store, "left", "right"),
        reset=store.clear,
        next_versions=[next_join],
        next_sagas=[
            Saga("dance", starts=Asked, completes=Done, fails=(Refused, CalledOff), deadline=DEADLINE, intake="dance.intake")
        ],
    )


def _next_join(store: Store, step: Step[..., object]) -> Agent:
    """The agent of that join as it will be: without its observers, with a step beside it that goes one way only."""
    upgraded = Agent("join")
    upgraded.steps["meet"] = step

    @upgraded.step(retry=TWICE)
    async def glance(right: Right, ctx: Context) -> None:
        store.do(ctx, "also")

    @glance.compensate(retry=PATIENT)
    async def look_away(right: Right, done: None, ctx: Context) -> None:
        store.undo(ctx, "also")

    return upgraded


def _next_right(store: Store, step: Step[..., object]) -> Agent:
    """The agent of that step as it will be: with a second step beside it."""
    upgraded = Agent("right")
    upgraded.steps["go_right"] = step

    @upgraded.step(retry=TWICE)
    async def also(asked: Asked, ctx: Context) -> None:
        store.do(ctx, "also")

    @also.compensate(retry=PATIENT)
    async def not_also(asked: Asked, done: None, ctx: Context) -> None:
        store.undo(ctx, "also")

    return upgraded


def _unless_added(store: Store) -> Invariant:
    return _WithAdded(store, ["join", "left", "right"])


class _WithAdded(Invariant):
    """The step that the upgrade adds stands where it was called, in a completed saga only."""

    def __call__(self, history: HistoryPlayed) -> None:
        for saga in history.sagas:
            expected = set(self.effects) if saga.verdict == "completed" else set[str]()
            standing = self.store.standing(saga.id)
            allowed = {"also"} if expected else set[str]()
            assert expected <= set(standing) <= expected | allowed, f"{saga.verdict}, and {standing} stand"
            assert all(standing.count(each) == 1 for each in expected), f"{standing} stand"


def alternative_branch() -> Verification:
    """A step takes one of two ways; on the detour the join beside it is left with one arm, and the saga completes."""
    store = Store()
    fork, way, join = Agent("fork"), Agent("way"), Agent("join")

    @fork.step(retry=TWICE)
    async def choose(asked: Asked, ctx: Context) -> Right | Detour:
        store.do(ctx, "choose")
        return Detour() if asked.refuse == "detour" else Right()

    @choose.compensate(retry=PATIENT)
    async def unchoose(asked: Asked, done: Right | Detour | None, ctx: Context) -> None:
        store.undo(ctx, "choose")

    @way.step(retry=TWICE)
    async def walk(asked: Asked, ctx: Context) -> Left:
        store.do(ctx, "walk")
        return Left()

    @walk.compensate(retry=PATIENT)
    async def walk_back(asked: Asked, done: Left | None, ctx: Context) -> None:
        store.undo(ctx, "walk")

    @join.step(retry=TWICE)
    async def meet(a: Left, b: Right, ctx: Context) -> Done:
        return Done()

    @meet.compensate(retry=PATIENT)
    async def part(a: Left, b: Right, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "meet")

    @join.step(retry=TWICE, effects=False)
    async def arrive(detour: Detour) -> Done:
        return Done()

    return Verification(
        agents=[fork, way, join],
        sagas=[DANCE],
        starts={"straight": Asked(), "detour": Asked(refuse="detour")},
        invariant=all_or_none(store, "choose", "walk"),
        reset=store.clear,
    )


def crossed_joins() -> Verification:
    """Two joins, each of which waits for what the other gives: only the saga's deadline ends it."""
    store = Store()
    one, other = Agent("one"), Agent("other")

    @one.step(retry=TWICE)
    async def begin(asked: Asked, ctx: Context) -> Met:
        store.do(ctx, "begin")
        return Met()

    @begin.compensate(retry=PATIENT)
    async def unbegin(asked: Asked, done: Met | None, ctx: Context) -> None:
        store.undo(ctx, "begin")

    @one.step(retry=TWICE)
    async def after_right(met: Met, right: Right, ctx: Context) -> Left:
        store.do(ctx, "left")
        return Left()

    @after_right.compensate(retry=PATIENT)
    async def not_left(met: Met, right: Right, done: Left | None, ctx: Context) -> None:
        store.undo(ctx, "left")

    @other.step(retry=TWICE)
    async def after_left(met: Met, left: Left, ctx: Context) -> tuple[Right, Done]:
        store.do(ctx, "right")
        return Right(), Done()

    @after_left.compensate(retry=PATIENT)
    async def not_right(met: Met, left: Left, done: tuple[Right, Done] | None, ctx: Context) -> None:
        store.undo(ctx, "right")

    return Verification(
        agents=[one, other],
        sagas=[DANCE],
        starts={"waits for ever": Asked()},
        invariant=all_or_none(store),
        reset=store.clear,
    )


def slow_and_late(overdue: Literal["fail", "report"] = "fail") -> Verification:
    """Steps without a deadline of their own: where one hangs, the coordinator's timer fires, and its answer comes late."""
    store = Store()
    first, last = Agent("first"), Agent("last")

    @first.step(retry=TWICE)
    async def begin(asked: Asked, ctx: Context) -> Met:
        store.do(ctx, "begin")
        return Met()

    @begin.compensate(retry=PATIENT)
    async def unbegin(asked: Asked, done: Met | None, ctx: Context) -> None:
        store.undo(ctx, "begin")

    @last.step(retry=TWICE)
    async def finish(met: Met, ctx: Context) -> Done:
        store.do(ctx, "finish")
        return Done()

    @finish.compensate(retry=PATIENT)
    async def unfinish(met: Met, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "finish")

    return Verification(
        agents=[first, last],
        sagas=[Saga("dance", starts=Asked, completes=Done, deadline=DEADLINE, overdue=overdue, intake="dance.intake")],
        starts={"to the end": Asked()},
        invariant=all_or_none(store, "begin", "finish"),
        reset=store.clear,
    )


def long_pauses() -> Verification:
    """A step that waits long between its attempts, beside one that may refuse; its agent may be upgraded meanwhile."""
    store = Store()
    seldom = Retry(attempts=2, first_s=10, jitter=0)
    left, right, join = _left_branch(store), _right_branch(store, seldom), Agent("join")

    @join.step(effects=False)
    async def meet(a: Left, b: Right) -> Done:
        return Done()

    return Verification(
        agents=[left, right, join],
        sagas=[DANCE],
        starts={"to the end": Asked()},
        invariant=_WithAdded(store, ["left", "right"]),
        reset=store.clear,
        next_versions=[_next_right(store, right.steps["go_right"])],
    )


def point_of_no_return() -> Verification:
    """A branch that can be undone beside a payment that is the pivot, and an end that can only be brought about."""
    store = Store()
    left, right, join = _left_branch(store), _paying(store, pivot=True), Agent("join")

    @join.step(retriable=True, retry=TWICE)
    async def finish(a: Left, b: Right, ctx: Context) -> Done:
        store.do(ctx, "finished")
        return Done()

    @join.step(retriable=True, retry=TWICE, within=timedelta(seconds=20))
    async def thank(b: Right, ctx: Context) -> None:
        store.do(ctx, "thanked")

    return Verification(
        agents=[left, right, join],
        sagas=[MAY_BE_REFUSED],
        starts={"to the end": Asked(), "no": Asked(refuse="left"), "not paid": Asked(refuse="pay")},
        invariant=all_or_none(store, "finished", "left", "paid", "thanked"),
        reset=store.clear,
    )


def becomes_a_pivot() -> Verification:
    """A step becomes the point of no return in mid-saga. What follows it can be undone either way."""
    store = Store()
    join = Agent("join")

    @join.step(retry=TWICE)
    async def finish(a: Left, b: Right, ctx: Context) -> Done:
        store.do(ctx, "finished")
        return Done()

    @finish.compensate(retry=PATIENT)
    async def begin_again(a: Left, b: Right, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "finished")

    return Verification(
        agents=[_left_branch(store), _paying(store, pivot=False), join],
        next_versions=[_paying(store, pivot=True)],
        sagas=[MAY_BE_REFUSED],
        starts={"to the end": Asked(), "no": Asked(refuse="left"), "not paid": Asked(refuse="pay")},
        invariant=all_or_none(store, "finished", "left", "paid"),
        reset=store.clear,
    )


def _paying(store: Store, *, pivot: bool) -> Agent:
    right = Agent("right")

    @right.step(pivot=pivot, retry=TWICE, within=timedelta(seconds=40))
    async def pay(asked: Asked, ctx: Context) -> Right | Refused:
        if asked.refuse == "pay":
            return Refused(by="right")
        store.do(ctx, "paid")
        return Right()

    @pay.compensate(retry=PATIENT)
    async def repay(asked: Asked, done: Right | Refused | None, ctx: Context) -> None:
        store.undo(ctx, "paid")

    return right


class Wanted(Event, type="dance.wanted"):
    first: str
    second: str
    refuse: bool = False


class One(Event, type="dance.one"):
    second: str
    refuse: bool = False


class Other(Event, type="dance.other"):
    """Said by the step that holds both."""


@dataclass
class Room:
    """Something that only one saga may be in at a time, by name. ``crowded``: where two were at once."""

    store: Store
    inside: dict[str, str] = field(default_factory=dict[str, str])
    crowded: list[str] = field(default_factory=list[str])

    def enter(self, ctx: Context, name: str) -> None:
        if not self.store.do(ctx, f"in {name}"):
            return  # it is there, or was: nobody enters twice by one key
        found = self.inside.setdefault(name, ctx.saga or "")
        if found != ctx.saga:
            self.crowded.append(f"{found} and {ctx.saga} are in {name}")
            self.inside[name] = ctx.saga or ""

    def leave(self, ctx: Context, name: str) -> None:
        self.store.undo(ctx, f"in {name}")
        if self.inside.get(name) == ctx.saga:
            del self.inside[name]

    def clear(self) -> None:
        self.store.clear()
        self.inside.clear()
        self.crowded.clear()


def one_at_a_time(policy: Literal["wait", "refuse"] = "wait") -> Verification:
    """Two rooms, each for one saga at a time; each saga needs both, in an order of its own: they may wait in a circle."""
    room = Room(Store())

    def first_room(wanted: Wanted) -> str | None:
        return wanted.first or None

    def second_room(one: One) -> str | None:
        return one.second or None

    first, second, last = Agent("first"), Agent("second"), Agent("last")

    @first.step(lock=first_room, lock_taken=policy, retry=TWICE)
    async def enter(wanted: Wanted, ctx: Context) -> One:
        room.enter(ctx, wanted.first)
        return One(second=wanted.second, refuse=wanted.refuse)

    @enter.compensate(retry=PATIENT)
    async def leave(wanted: Wanted, done: One | None, ctx: Context) -> None:
        room.leave(ctx, wanted.first)

    @second.step(lock=second_room, lock_taken=policy, retry=TWICE)
    async def enter_other(one: One, ctx: Context) -> Other:
        room.enter(ctx, one.second)
        if one.refuse:
            raise Rejected("not here")
        return Other()

    @enter_other.compensate(retry=PATIENT)
    async def leave_other(one: One, done: Other | None, ctx: Context) -> None:
        room.leave(ctx, one.second)

    @last.step(effects=False, retry=TWICE)
    async def finish(other: Other, ctx: Context) -> Done:
        for name in [name for name, saga in room.inside.items() if saga == ctx.saga]:
            del room.inside[name]  # what it did there is done with: the next may enter when it has ended
        return Done()

    def never_two(history: HistoryPlayed) -> None:
        assert not room.crowded, room.crowded
        for saga in history.sagas:
            expected = 2 if saga.verdict == "completed" else 0
            assert len(room.store.standing(saga.id)) == expected, f"{saga.verdict}: {room.store.standing(saga.id)}"

    one_way, other_way = Wanted(first="a", second="b"), Wanted(first="b", second="a")
    return Verification(
        agents=[first, second, last],
        sagas=[Saga("dance", starts=Wanted, completes=Done, deadline=timedelta(minutes=5), intake="dance.intake")],
        starts={
            "one": one_way,
            "no": Wanted(first="a", second="b", refuse=True),
            "none": Wanted(first="", second="b"),
            "two the same way": [one_way, one_way],
            "two in a circle": [one_way, other_way],
        },
        invariant=never_two,
        reset=room.clear,
    )


class Reviewed(Event, type="dance.reviewed"):
    ok: bool


def _judging(store: Store, within: timedelta) -> Agent:
    """An agent whose one step takes an event of its saga and a person's answer to it."""
    right = Agent("right")

    @right.step(external=True, within=within, retry=TWICE)
    async def judge(left: Left, answer: Reviewed, ctx: Context) -> Right:
        store.do(ctx, "judged")
        if not answer.ok:
            raise Rejected("a person said no")
        return Right()

    @judge.compensate(retry=PATIENT)
    async def unjudge(left: Left, answer: Reviewed, done: Right | None, ctx: Context) -> None:
        store.undo(ctx, "judged")

    return right


def asks_a_person(overdue: Literal["fail", "report"] = "fail") -> Verification:
    """A step that takes an event of its saga and a person's answer to it, beside a branch that goes its way."""
    store = Store()
    left, right, join = _left_branch(store), _judging(store, timedelta(seconds=20)), Agent("join")

    @join.step(pivot=True, retry=TWICE)
    async def pay(right: Right, ctx: Context) -> Done:
        store.do(ctx, "paid")
        return Done()

    @pay.compensate(retry=PATIENT)
    async def repay(right: Right, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "paid")

    dance = Saga(
        "dance",
        starts=Asked,
        completes=Done,
        answers=Reviewed,
        deadline=timedelta(minutes=5) if overdue == "fail" else DEADLINE,
        overdue=overdue,
        intake="dance.intake",
    )
    return Verification(
        agents=[left, right, join],
        sagas=[dance],
        starts={"yes": Asked(), "no": Asked(refuse="review")},
        answers=[Answer(Left, lambda left: Reviewed(ok=not left.refuse))],
        invariant=all_or_none(store, "judged", "left", "paid"),
        reset=store.clear,
    )


def asks_a_person_beside() -> Verification:
    """A step that takes an event of its saga and a person's answer to it, while another branch may fail at any time."""
    store = Store()
    left, right, far, join = _left_branch(store), _judging(store, timedelta(minutes=2)), Agent("far"), Agent("join")

    @far.step(retry=TWICE)
    async def go_far(asked: Asked, ctx: Context) -> Detour:
        store.do(ctx, "far")
        return Detour()

    @go_far.compensate(retry=PATIENT)
    async def come_back(asked: Asked, done: Detour | None, ctx: Context) -> None:
        store.undo(ctx, "far")

    @join.step(retry=TWICE)
    async def finish(right: Right, far: Detour, ctx: Context) -> Done:
        store.do(ctx, "finished")
        return Done()

    @finish.compensate(retry=PATIENT)
    async def unfinish(right: Right, far: Detour, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "finished")

    dance = Saga("dance", starts=Asked, completes=Done, answers=Reviewed, deadline=timedelta(minutes=5), intake="dance.intake")
    return Verification(
        agents=[left, right, far, join],
        sagas=[dance],
        starts={"yes": Asked()},
        answers=[Answer(Left, lambda left: Reviewed(ok=True))],
        invariant=all_or_none(store, "judged", "left", "far", "finished"),
        reset=store.clear,
    )


class Charged(Event, type="dance.charged"):
    receipt: str


@dataclass
class Bank:
    """Somebody else's books, by idempotency key. ``wrong``: what a refund was told and was not so."""

    receipts: dict[str, str] = field(default_factory=dict[str, str])
    fenced: set[str] = field(default_factory=set[str])
    wrong: list[str] = field(default_factory=list[str])

    def charge(self, ctx: Context) -> str:
        if ctx.idempotency_key in self.fenced:
            raise EffectUndone(ctx.idempotency_key)
        return self.receipts.setdefault(ctx.idempotency_key, f"receipt for {ctx.saga}")

    def refund(self, ctx: Context, receipt: str | None) -> None:
        there = self.receipts.pop(ctx.idempotency_key, None)
        is_first = ctx.idempotency_key not in self.fenced
        expected: list[str | None] = [None] if ctx.outcome == "not-done" else [there]
        if (receipt is None) != (ctx.outcome != "done") or (is_first and there not in expected):
            self.wrong.append(f"told {ctx.outcome} and {receipt}, there was {there}")
        if is_first and receipt not in (there, None):
            self.wrong.append(f"told of {receipt}, there was {there}")
        self.fenced.add(ctx.idempotency_key)

    def clear(self) -> None:
        self.receipts.clear()
        self.fenced.clear()
        self.wrong.clear()


def asked_whether() -> Verification:
    """A charge at somebody else's, who can be asked whether it happened, beside a step that may refuse."""
    bank = Bank()
    payment, other = Agent("payment"), Agent("other")

    @payment.step(retry=TWICE)
    async def charge(asked: Asked, ctx: Context) -> Charged:
        return Charged(receipt=bank.charge(ctx))

    @charge.reconcile(retry=TWICE, within=timedelta(seconds=5))
    async def was_charged(asked: Asked, ctx: Context) -> Charged | bool:
        receipt = bank.receipts.get(ctx.idempotency_key)
        return Charged(receipt=receipt) if receipt is not None else False

    @charge.compensate(retry=PATIENT)
    async def refund(asked: Asked, done: Charged | None, ctx: Context) -> None:
        bank.refund(ctx, done.receipt if done is not None else None)

    @other.step(effects=False, retry=TWICE)
    async def agree(asked: Asked) -> Left:
        if asked.refuse:
            raise Rejected("no")
        return Left()

    @other.step(effects=False)
    async def meet(left: Left, charged: Charged) -> Done:
        return Done()

    def books_agree(history: HistoryPlayed) -> None:
        assert not bank.wrong, bank.wrong
        for saga in history.sagas:
            paid = sum(receipt == f"receipt for {saga.id}" for receipt in bank.receipts.values())
            assert paid == (saga.verdict == "completed"), f"{saga.verdict}: {bank.receipts}"

    return Verification(
        agents=[payment, other],
        sagas=[DANCE],
        starts={"to the end": Asked(), "no": Asked(refuse="other")},
        invariant=books_agree,
        reset=bank.clear,
    )


Takes = Literal["an event", "a join", "a join with a lock", "a pivot"]


class Narrow(Asked):
    """As the next version takes it: never."""

    refuse: str = Field(default="", pattern="^never$")


def takes_less(takes: Takes) -> Verification:
    """A side step, and one of whose input the next version takes less: it refuses all there is. What the old version may have
    begun on it counts as begun, and waits for somebody to undo it: the undo refuses it, too."""
    store = Store()
    side, before, after, other = Agent("side"), Agent("taker"), Agent("taker"), Agent("other")

    @side.step(retry=TWICE)
    async def begin(asked: Asked, ctx: Context) -> None:
        store.do(ctx, "side")

    @begin.compensate(retry=PATIENT)
    async def unbegin(asked: Asked, done: None, ctx: Context) -> None:
        store.undo(ctx, "side")

    @other.step(effects=False)
    async def turn(asked: Asked) -> Right:
        return Right()

    for agent, view in ((before, Asked), (after, Narrow)):
        if takes == "an event":
            _take_alone(agent, view, store)
        else:
            _take_both(agent, view, store, takes)
    return Verification(
        agents=[side, before, other],
        sagas=[DANCE],
        starts={"to the end": Asked()},
        invariant=all_or_none(store, "side", "take"),
        reset=store.clear,
        next_versions=[after],
    )


def _take_alone(agent: Agent, view: type[Asked], store: Store) -> None:
    async def take(asked: Asked, ctx: Context) -> Done:
        store.do(ctx, "take")
        return Done()

    async def give_back(asked: Asked, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "take")

    take.__annotations__["asked"] = give_back.__annotations__["asked"] = view
    agent.step(retry=TWICE)(take).compensate(retry=PATIENT)(give_back)


def _take_both(agent: Agent, view: type[Asked], store: Store, takes: Takes) -> None:
    async def take(asked: Asked, right: Right, ctx: Context) -> Done:
        store.do(ctx, "take")
        return Done()

    async def give_back(asked: Asked, right: Right, done: Done | None, ctx: Context) -> None:
        store.undo(ctx, "take")

    def there_is_one(asked: Asked, right: Right) -> str:
        return "one"

    take.__annotations__["asked"] = give_back.__annotations__["asked"] = view
    lock = there_is_one if takes == "a join with a lock" else None
    made = agent.step(retry=TWICE, lock=lock, pivot=takes == "a pivot")(take)
    made.compensate(retry=PATIENT)(give_back)


Waits = Literal["nothing", "a lock", "a lock after all", "a grant", "a grant, and takes less", "an input more"]


def waits_now(waits: Waits, refuse: str = "other", *, twice: bool = False) -> Verification:
    """A step that one version begins at once, and the next one only when something more is there; beside it, or after it, one
    that refuses. ``twice``: two sagas that want the same lock."""
    store = Store()
    before, after, other, last = Agent("taker"), Agent("taker"), Agent("other"), Agent("last")

    @other.step(effects=False, retry=TWICE)
    async def turn(asked: Asked) -> Right:
        if asked.refuse == "other":
            raise Rejected("no")
        return Right()

    @last.step(effects=False, retry=TWICE)
    async def finish(met: Met) -> Done:
        if met.refuse == "last":
            raise Rejected("no")
        return Done()

    _take_at_once(before, store, Waiting(lock=(lambda asked: None) if waits == "a lock after all" else None))
    if waits == "an input more":
        _take_with_right(after, store)
    elif waits.startswith("a grant"):
        _take_at_once(after, store, Waiting(pivot=True, view=Narrow if waits.endswith("less") else Asked))
    elif waits.startswith("a lock"):
        _take_at_once(after, store, Waiting(lock=lambda asked: "one", refuse=twice))
    else:
        _take_at_once(after, store, Waiting())

        @after.step(effects=False)
        async def look_on(asked: Asked) -> None: ...

    asked = Asked(refuse=refuse)
    return Verification(
        agents=[before, other, last],
        sagas=[DANCE],
        starts={"no": (asked, asked) if twice else asked},
        reset=store.clear,
        next_versions=[after],
    )


@dataclass(frozen=True)
class Waiting:
    """What a step waits for beside its input. ``refuse``: for its lock it does not."""

    lock: Callable[[Asked], str | None] | None = None
    refuse: bool = False
    pivot: bool = False
    view: type[Asked] = Asked


def _take_at_once(agent: Agent, store: Store, waiting: Waiting) -> None:
    async def take(asked: Asked, ctx: Context) -> Met:
        store.do(ctx, "take")
        return Met(refuse=asked.refuse)

    async def give_back(asked: Asked, done: Met | None, ctx: Context) -> None:
        store.undo(ctx, "take")

    take.__annotations__["asked"] = give_back.__annotations__["asked"] = waiting.view
    policy: Literal["wait", "refuse"] = "refuse" if waiting.refuse else "wait"
    made = agent.step(retry=TWICE, lock=waiting.lock, lock_taken=policy, pivot=waiting.pivot)(take)
    made.compensate(retry=PATIENT)(give_back)


def _take_with_right(agent: Agent, store: Store) -> None:
    @agent.step(retry=TWICE)
    async def take(asked: Asked, right: Right, ctx: Context) -> Met:
        store.do(ctx, "take")
        return Met(refuse=asked.refuse)

    @take.compensate(retry=PATIENT)
    async def give_back(asked: Asked, right: Right, done: Met | None, ctx: Context) -> None:
        store.undo(ctx, "take")


def has_no_effect_any_more(*, retriable: bool = False) -> Verification:
    """A step that changes something, and one that may refuse what comes of it. In the next version the first changes nothing
    any more (or is only ever finished): what the old version did is owed all the same, and waits for somebody to undo it."""
    store = Store()
    before, after, last = Agent("first"), Agent("first"), Agent("last")

    async def act(asked: Asked, ctx: Context) -> Met:
        store.do(ctx, "act")
        return Met(refuse=asked.refuse)

    async def undo_it(asked: Asked, done: Met | None, ctx: Context) -> None:
        store.undo(ctx, "act")

    async def pass_on(asked: Asked) -> Met:
        return Met(refuse=asked.refuse)

    before.step(retry=TWICE)(act).compensate(retry=PATIENT)(undo_it)
    if retriable:
        after.step(retriable=True, retry=TWICE)(act)
    else:
        after.step(name="act", effects=False, retry=TWICE)(pass_on)

    @last.step(effects=False, retry=TWICE)
    async def finish(met: Met) -> Done:
        if met.refuse:
            raise Rejected("no")
        return Done()

    return Verification(
        agents=[before, last],
        sagas=[DANCE],
        starts={"no": Asked(refuse="last")},
        reset=store.clear,
        next_versions=[after],
    )
