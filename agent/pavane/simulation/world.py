"""World: a whole deployment in one thread: bus, agents, coordinator, on virtual time. Histories are played in it, in turn."""

import asyncio
import math
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import cast

from pavane.agent import Agent
from pavane.kit import Limits
from pavane.plan import plan_of
from pavane.runner import Surroundings, run, run_agent
from pavane.simulation.calls import WHOSE, Call, Calls, Kind
from pavane.simulation.points import Fault, Point
from pavane.simulation.script import Choice, Script
from pavane.simulation.verification import Verification
from pavane.simulation.virtual_time import Restless, VirtualLoop
from pavane.simulation.watched import watched
from pavane_events.bus import TopicSpec
from pavane_events.buses.memory import MemoryBus
from pavane_events.envelope import Envelope, parse
from pavane_events.errors import PavaneError
from pavane_events.event import Event
from pavane_events.ids import idempotency_key
from pavane_events.partition import partition_of
from pavane_events.record import Message, Record
from pavane_saga.coordinator import topic_specs
from pavane_saga.engine import standing, stuck
from pavane_saga.facts import Decided, Fact, Happened, Settled, UndoFailed, Verb
from pavane_saga.history import History, Plan
from pavane_saga.intake import saga_id_of
from pavane_saga.saga import Saga, SagaEnded
from pavane_saga.wire import COORDINATOR, FACTS, fact_envelope, fact_message, is_control, read_fact
from pavane_tracing.routing import process_routes
from pavane_tracing.store import SPANS_TOPIC

EPOCH_S = 1_700_000_000.0
DEPLOYMENT = "simulation"
PARKED_AFTER_S = 5.0
"""A saga in which something has failed for good, and nothing has happened for so long, is parked."""

MOST_PARKED = 50
"""How often somebody asks again for what failed for good: its reason is gone, so it should not fail any more."""

LOOK_S = 0.5
"""When nothing happens for so long, everybody who waits looks once whether there is something: there a lane may be lost."""

STARTS_S = ENDS_S = 3600.0
"""How long everybody together may take to start, and to end when they are cancelled, in virtual seconds."""

Stuck = UndoFailed | Settled

_SOURCE = "/simulation"
_LIMITS = Limits(mark_window=8)


class UnfitVerification(PavaneError):
    """What a verification brings along raised by itself: no history can be played. Mend it."""

    code = "verification.unfit"

    @classmethod
    def raised(cls, what: str, error: BaseException) -> "UnfitVerification":
        """What raised, what it raised, and where."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        return cls(f"{what} raised {type(error).__name__}: {worded(error)} ({last.filename}:{last.lineno})")


@contextmanager
def _asked(what: str) -> Generator[None]:
    """The user's own part is called. What it raises is its own fault, whatever it is; a Ctrl-C goes on as one."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnfitVerification.raised(what, error) from error


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a history. ``sagas``: the start events by saga id. ``stuck``: why it did not come to its end.

    ``records``: all that was written meanwhile, in order. ``parked``: what failed for good, before somebody decided about it:
    undos, and steps after the pivot. ``given_up``: the sagas of which somebody left something as it was, or did a step by
    hand, each with the keys of the effects that are said to stand.
    """

    sagas: dict[str, Event]
    struck: Sequence[Fault]
    calls: Sequence[Call]
    records: Sequence[Record]
    verdicts: dict[str, list[str]]
    parked: Sequence[Stuck]
    stuck: str | None
    given_up: Mapping[str, frozenset[str]]


class World:
    """A deployment of so many lanes per agent, and for the coordinator. To be used within its :meth:`loop` only."""

    def __init__(self, verification: Verification, *, trace: bool, lanes: int = 1) -> None:
        self.verification = verification
        self.traced = trace
        self.lanes = lanes
        self.script = Script(upgrade=self._upgrade)
        self.loop = VirtualLoop()
        clock = self._clock
        self.bus = MemoryBus(partitions=lanes, clock=clock, faults=self.script)
        self.calls = Calls(self.script, verification.patience_s)
        self.worn_out = False
        """Whether no further history should be played in it: something of the last is left."""

        self.wrong = False
        """Whether something went wrong in it, and is told: that it does not end need not be told, too."""

        self._surroundings = Surroundings(
            deployment=DEPLOYMENT, limits=_LIMITS, trace=trace, clock=clock, chance=lambda: 0.5, look_s=math.inf
        )
        self._agents = {agent.name: watched(agent, lambda: self.calls) for agent in verification.agents}
        self._next = {agent.name: watched(agent, lambda: self.calls) for agent in verification.next_versions}
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._upgraded: set[str] = set()
        self._upgrading: set[asyncio.Task[None]] = set()
        self._began = self._first = 0
        self._asked: dict[str, int] = {}
        self._too_late: list[Message] = []
        self._given_up: set[str] = set()
        self._others = frozenset(process_routes().services())
        self.began_s = 0.0
        self.ordinals: dict[str, int] = {}
        """The sagas of the history that is played, by id, in order."""

    @asynccontextmanager
    async def alive(self) -> AsyncGenerator["World"]:
        """Everybody is started, and the intake is open."""
        verification = self.verification
        specs = [
            *topic_specs((*verification.sagas, *verification.next_sagas)),
            *(TopicSpec(saga.intake) for saga in verification.sagas),
        ]
        for agent in (*self._agents.values(), *self._next.values()):
            specs += plan_of(agent).topic_specs()
        await self.bus.create_topics(specs)
        async with AsyncExitStack() as stack:
            around = ExitStack()
            with _asked("around"):
                around.enter_context(verification.around())
            stack.callback(_leave, around)
            stack.push_async_callback(self._end)
            for agent in self._agents.values():
                self._start(agent)
            self._coordinate(verification.sagas)
            while (await self.loop.quiet() or math.inf) <= LOOK_S:  # the coordinator looks who is there still
                self._raise_failures()
                if self.loop.time() > STARTS_S:
                    intakes = ", ".join(sorted({saga.intake for saga in verification.sagas}))
                    raise UnfitVerification(
                        f"nothing can be played: {intakes} never opens, no agent of its saga may be missing"
                    )
                await self.loop.advance()
            yield self

    def abandon(self) -> None:
        """Close its loop. What never ended in it never said that its service is gone, to which other spans would go then."""
        self.loop.abandon()
        routes = process_routes()
        for service in routes.services():
            if service not in self._others:
                routes.remove(service)

    async def play(
        self,
        name: str,
        starts: Sequence[Event],
        choice: Choice,
        look: Callable[[Point], None] | None = None,
        *,
        first: int = 0,
    ) -> Played:
        """Play one history to its end. ``name`` names its sagas: the same name, the same ids. ``first``: the lane in which
        the first of them lives, the others in the next ones."""
        self.began_s = self.loop.time()
        self._first = first
        if self.verification.reset is not None:
            with _asked("reset"):
                self.verification.reset()
        self._began = self.bus.arrivals
        self.calls.begin()
        self.script.begin(choice, look)
        self._asked = dict.fromkeys([each.to.event_type for each in self.verification.answers], self._began)
        self._too_late = []
        self._given_up = set()
        sagas: dict[str, Event] = {}
        self.ordinals = {}
        for number, start in enumerate(starts):
            saga = self.verification.saga_of(start)
            event_id, saga_id = self._named(name, number)
            sagas[saga_id] = start
            self.ordinals[saga_id] = number
            envelope = Envelope(id=event_id, source=_SOURCE, type=start.event_type, data=start.to_json(), subject=name)
            message = envelope.to_message(saga.intake, key=saga_id, partition=self._beside(number))
            action = self.script.at("intake", saga.intake)
            await self.bus.publish([message] * (2 if action == "twice" else 1))
            if action == "twice-late":
                self._too_late.append(message)
                self.script.open.add(("intake", str(number)))
        parked: list[Stuck] = []
        why = await self._to_the_end(sagas, parked)
        self.bus.tell()  # who has nothing left to do and does not know that he lost his lane is of this history only
        records = self.written()
        given_up = {saga: self._standing(saga, sagas[saga]) for saga in sorted(self._given_up)}
        verdicts = _verdicts(sagas, records)
        return Played(sagas, list(self.script.struck), self.calls.made, records, verdicts, parked, why, given_up)

    def _named(self, name: str, number: int) -> tuple[str, str]:
        """An event's id, and the id of the saga that it starts, such that this lives in the lane where it is to."""
        event_id = f"{name}/{number}"
        while True:
            saga_id = saga_id_of(_SOURCE, event_id)
            if partition_of(saga_id.encode(), self.lanes) == (self._first + number) % self.lanes:
                return event_id, saga_id
            event_id += "'"

    def _beside(self, number: int) -> int:
        """Where what comes from outside to a saga is put: whoever sends it knows nothing of the saga's lane."""
        return (self._first + number + 1) % self.lanes

    def written(self) -> list[Record]:
        """Every record of this history so far, in order."""
        return self.bus.written_since(self._began)

    # --- what a history does to it --------------------------------------------------------------------------------

    def _upgrade(self, agent: str) -> None:
        """The next version joins; then the old one stops gracefully, as in a rolling upgrade."""
        if agent in self._upgraded:
            return
        self.worn_out = True
        self._upgraded.add(agent)
        old, stop = self._tasks[agent], self._stops[agent]
        if agent == COORDINATOR:
            self._coordinate(self.verification.sagas_then)
        else:
            del self._agents[agent]
            self._start(self._next[agent])

        async def retire() -> None:
            stop.set()
            await old

        self._upgrading.add(asyncio.get_running_loop().create_task(retire()))

    # --- from here to there ---------------------------------------------------------------------------------------

    async def _to_the_end(self, sagas: dict[str, Event], parked: list[Stuck]) -> str | None:
        """Let everything happen that can; then what was held back; then let time pass. Why it did not end, if so."""
        began_s = self.loop.time()
        past_s = min(self.verification.saga_of(start).deadline for start in sagas.values()).total_seconds() + 1
        looked: object = None
        judged = -1
        while True:
            wait_s = await self.loop.quiet() or 0.0
            died = self._failures()
            if died:
                self.worn_out = True
                return died
            then_s = self.loop.time() + wait_s - began_s
            if await self._answer(sagas) or self._release(due=then_s > past_s) or self.calls.wake_zombies():
                continue
            ended = self._ended(sagas)
            if self._too_late and (ended or then_s > self.verification.patience_s):
                await self.bus.publish([self._too_late.pop()])
                continue
            if ended and not any(call.how == "under way" for call in self.calls.made) and not any(self.bus.unsettled()):
                return None
            if self.loop.time() - began_s > 2 * self.verification.patience_s:
                self.worn_out = True
                return self._why(ended=ended)
            if wait_s > LOOK_S and looked != (looked := self._moment()):
                self.bus.look()
                continue
            if wait_s > PARKED_AFTER_S and not ended and judged != self.bus.arrivals:
                judged = self.bus.arrivals
                failed = self._park(sagas, parked)
                if len(parked) > MOST_PARKED:
                    self.worn_out = True
                    return f"{parked[-1].step} failed for good, and again however often it was asked for"
                if failed:
                    await asyncio.sleep(PARKED_AFTER_S)
                    await self._decide(failed)
                    continue
            await self.loop.advance()

    def _release(self, *, due: bool) -> bool:
        """Hand out what was held back until now; whether there was anything. ``due``: a saga's deadline has come by now."""
        if self.script.holds_past and not due:
            return False
        self.script.released()
        return self.bus.release()

    def _moment(self) -> object:
        """As long as it is the same, nothing has happened."""
        return self.bus.arrivals, self.calls.places, [*self.bus.readers()]

    async def _answer(self, sagas: Mapping[str, Event]) -> bool:
        """Somebody outside is asked, and answers; whether anybody was."""
        asked = False
        for answer in self.verification.answers:
            kind = answer.to
            records = self.bus.written_since(self._asked[kind.event_type], kind.event_type)
            self._asked[kind.event_type] = self.bus.arrivals
            for record in records:
                saga = (record.key or b"").decode()
                if saga not in sagas:
                    continue
                asked = True
                with _asked(f"the answer to {kind.event_type}"):
                    said = _event(answer.give(kind.from_json(record.value or b"")))
                action = self.script.at("answer", kind.event_type)
                belongs = self.verification.saga_of(sagas[saga])
                if action == "never" and belongs.overdue == "report":
                    action = "too-late"  # it would wait for ever, as it says
                if action in ("never", "too-late"):
                    self.script.open.add(("answer", action, kind.event_type, str(self.ordinals[saga])))
                for number in range(2 if action == "twice" else 1 if action != "never" else 0):
                    envelope = Envelope(
                        id=f"{saga}/{said.event_type}/{number}",
                        source=_SOURCE,
                        type=said.event_type,
                        data=said.to_json(),
                        saga=saga,
                    )
                    partition = self._beside(self.ordinals[saga])
                    message = envelope.to_message(belongs.intake, key=saga, partition=partition)
                    if action == "too-late":
                        self._too_late.append(message)
                    else:
                        await self.bus.publish([message])
        return asked

    def cut_off(self, error: Restless) -> Played:
        """What came of a history that would have gone on for ever."""
        self.worn_out = True
        why = f"{error}{self._under_way()}"
        return Played({}, list(self.script.struck), self.calls.made, self.written(), {}, [], why, {})

    def _under_way(self) -> str:
        """Who was called and has not ended."""
        found = sorted({f"{WHOSE[call.kind]}{call.step}" for call in self.calls.made if call.how == "under way"})
        return f"; {', '.join(found)} had not ended" if found else ""

    def _why(self, *, ended: bool) -> str:
        if not ended:
            return f"it did not come to its end{self._under_way()}"
        for group, topic in self.bus.unsettled():
            return f"its sagas ended, and {group} has not settled all of {topic}"
        return f"its sagas ended, and a call did not{self._under_way()}"

    def _ended(self, sagas: dict[str, Event]) -> bool:
        ended = {(record.key or b"").decode() for record in self.bus.written_since(self._began, SagaEnded.event_type)}
        return ended >= sagas.keys()

    def _park(self, sagas: Mapping[str, Event], parked: list[Stuck]) -> list[tuple[str, Stuck]]:
        """What failed for good and waits for a decision, with its saga."""
        found: list[tuple[str, Stuck]] = []
        for saga, start in sagas.items():
            found.extend((saga, each) for each in stuck(self._plan(self.verification.saga_of(start)), self._history(saga)))
        parked.extend(each for _, each in found)
        return found

    def _history(self, saga: str) -> History:
        told: list[Fact] = []
        key = saga.encode()
        for record in self.written():
            if record.key == key and record.topic != SPANS_TOPIC and not is_control(record.topic):
                envelope = parse(record)
                told.append(read_fact(envelope) if record.topic == FACTS else Happened.of(envelope, record.offset))
        return History().with_facts(told)

    def _standing(self, saga: str, start: Event) -> frozenset[str]:
        """The keys of the effects of which is said that they stand."""
        units = standing(self._plan(self.verification.saga_of(start)), self._history(saga))
        return frozenset(idempotency_key(DEPLOYMENT, saga, step, causes) for step, causes in units)

    def _plan(self, saga: Saga) -> Plan:
        """The saga as it is declared, by this version or the next."""
        kinds = [each for each in (saga, *self.verification.next_sagas) if each.name == saga.name]
        manifests = [plan_of(agent).manifest for agent in (*self._next.values(), *self._agents.values())]
        return Plan(
            saga=saga.name,
            starts=saga.starts.event_type,
            completes=saga.completes.event_type,
            fails=frozenset(each.event_type for kind in kinds for each in kind.fails),
            declared={f"{each.agent}/{each.version}": each.declared(()) for each in manifests},
        )

    async def _decide(self, failed: Sequence[tuple[str, Stuck]]) -> None:
        """What an operator does when the reason is gone: ask for these again; or what the history has him say instead."""
        self.calls.sticky.clear()
        abandoned: set[str] = set()
        for saga, fact in failed:
            if saga in abandoned:
                continue
            verb = cast("Verb", self.script.at("parked", fact.step) or "retry")
            kind: Kind = "undo" if isinstance(fact, UndoFailed) else "do"
            key = idempotency_key(DEPLOYMENT, saga, fact.step, fact.causes)
            if verb == "done" and not await self.calls.by_hand(kind, key):
                verb = "retry"
            at_ms = int(self._clock() * 1000)
            number = fact.retry + 1 if verb == "retry" else 1
            decided = Decided(verb, fact.step, fact.causes, number, "simulation", "its reason is gone", at_ms)
            if verb == "abandon":
                abandoned.add(saga)
                decided = replace(decided, step="", causes=())
            if verb in ("abandon", "skip") or (verb == "done" and isinstance(fact, Settled)):
                self._given_up.add(saga)
            envelope = fact_envelope(decided, saga=saga, source="/operators/simulation", time_s=self._clock())
            message: Message = fact_message(envelope, envelope.trace)
            await self.bus.publish([message])

    # --- who is there ---------------------------------------------------------------------------------------------

    def _clock(self) -> float:
        return EPOCH_S + self.loop.time()

    def _start(self, agent: Agent) -> None:
        self._stops[agent.name] = asyncio.Event()
        self._tasks[agent.name] = asyncio.get_running_loop().create_task(
            run_agent(agent, self.bus, self._stops[agent.name], self._surroundings)
        )

    def _coordinate(self, sagas: Sequence[Saga]) -> None:
        stop = self._stops[COORDINATOR] = asyncio.Event()
        self._tasks[COORDINATOR] = asyncio.get_running_loop().create_task(run([], sagas, self.bus, stop, self._surroundings))

    def _failures(self) -> str | None:
        for name, task in self._tasks.items():
            if task.done():
                error = task.exception() if not task.cancelled() else None
                return f"{name} died: {_said(error)}"
        if self.loop.exited is not None:
            return f"something that a step had left running ended: {_said(self.loop.exited)}"
        return None

    def _raise_failures(self) -> None:
        for name, task in self._tasks.items():
            error = task.exception() if task.done() else None
            if isinstance(error, SystemExit):
                raise UnfitVerification.raised(f"the start of {name}", error)
            if error is not None:
                raise error

    async def _end(self) -> None:
        tasks = [*self._tasks.values(), *self._upgrading]
        for task in tasks:
            task.cancel()
        await self.loop.quiet()
        self.calls.wake_zombies()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=ENDS_S)
            for task in done:
                if not task.cancelled():
                    task.exception()
        await self.bus.close()
        left = sorted(name for name, task in self._tasks.items() if not task.done())
        if left:
            raise UnfitVerification(f"{', '.join(left)} did not end when cancelled{self._under_way()}")


def _verdicts(sagas: dict[str, Event], records: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {saga: [] for saga in sagas}
    for record in records:
        if record.topic == SagaEnded.event_type:
            event = SagaEnded.from_json(record.value or b"")
            found.setdefault(event.saga, []).append(event.verdict)
    return found


def _said(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {worded(error) if error is not None else ''}"


def worded(error: BaseException) -> str:
    """What an error says, also where it cannot."""
    try:
        return str(error)
    except Exception as another:
        return f"(its words raise {type(another).__name__})"


def _event(given: object) -> Event:
    if not isinstance(given, Event):
        raise TypeError(f"it gave {type(given).__name__}, no event")
    return given


def _leave(around: ExitStack) -> None:
    with _asked("around"):
        around.close()
