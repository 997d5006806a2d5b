"""The saga engine against random choreographies in a small honest world, and against facts that nobody honest would say.

The world is plain ``random``, seeded: a failure names the seed that shows it again (``live(seed)``). Hypothesis picks
the seeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pavane_saga.commands import Command, End, Halt, Undo
from pavane_saga.engine import decide, due, failure, open_debts, standing, status, unseen
from pavane_saga.facts import (
    Decided,
    Declared,
    Ended,
    Fact,
    Fired,
    Happened,
    How,
    Settled,
    StepPlan,
    UndoFailed,
    Undone,
    Verb,
    Verdict,
    fact_from_json,
)
from pavane_saga.history import History, Plan, Unit

HISTORIES = 10_000
_AT_A_TIME = 50
_SEEDS = st.integers(0, 2**48)


# --- choreographies --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """A step, with the answers it may give (each a tuple of event types), and how likely it goes wrong."""

    plan: StepPlan
    answers: tuple[tuple[str, ...], ...]
    trouble: float


def choreography(rng: Random) -> tuple[Plan, list[Role]]:
    """Two to seven steps after one start: joins, alternatives, several outputs, no output, observers, side branches."""
    types = ["start"]
    roles: list[Role] = []
    trouble = rng.choice((0.0, 0.0, 0.05, 0.15, 0.3))
    for number in range(rng.randint(2, 7)):
        consumes = _consumes(rng, types)
        used = {name for role in roles for types_ in role.plan.consumes for name in types_}.union(*consumes)
        answers, produced = _answers(rng, number, [name for name in types if name not in used])
        name = f"agent{number}/step"
        plan = StepPlan(name, consumes, produced, effects=rng.random() < 0.7, observer=rng.random() < 0.08)
        roles.append(Role(plan, ((),) if plan.observer else answers, trouble))
        if not plan.observer:
            types.extend(each for each in produced if each not in types and each != "no")
    completes = rng.choice(types[-3:])
    declared = Declared("agents", "agents@1", tuple(role.plan for role in roles), ())
    return Plan("saga", "start", completes, frozenset({"no"}), {"agents": declared}), roles


def _consumes(rng: Random, types: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    names = list(types)
    rng.shuffle(names)
    if rng.random() < 0.6:
        names.sort(key=lambda name: name == "start")
    parameters: list[tuple[str, ...]] = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if names:
            width = 2 if len(names) > 1 and rng.random() < 0.2 else 1
            parameters.append(tuple(names.pop() for _ in range(width)))
    return tuple(parameters)


def _answers(rng: Random, number: int, types: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    shared = [name for name in types if name != "start"]
    main = rng.choice(shared) if shared and rng.random() < 0.08 else f"t{number}"
    kind = rng.random()
    if kind < 0.5:
        answers: tuple[tuple[str, ...], ...] = ((main,),)
    elif kind < 0.65:
        answers = ((main,), (f"u{number}",))
    elif kind < 0.8:
        answers = ((main, f"u{number}"),)
    elif kind < 0.9:
        answers = ((main,), (main,), ("no",))
    else:
        answers = ((),)
    return answers, tuple(sorted({name for answer in answers for name in answer}))


# --- an honest world -------------------------------------------------------------------------------------------------


@dataclass
class Actor:
    """One step at work: what waits to be read, the arms it holds, the tombstone, the arms that it let go."""

    role: Role
    inbox: list[Happened] = field(default_factory=list[Happened])
    undos: list[Undo] = field(default_factory=list[Undo])
    held: dict[int, Happened] = field(default_factory=dict[int, Happened])
    was_called: bool = False
    let_go: dict[int, Happened] = field(default_factory=dict[int, Happened])
    end_is_near: bool = False
    tombstone: bool = False

    @property
    def name(self) -> str:
        return self.role.plan.name

    def arm(self, event: Happened) -> int:
        """The parameter that an event fills."""
        return next(index for index, types in enumerate(self.role.plan.consumes) if event.type in types)


class World:
    """Steps that answer, a coordinator that decides, and a bus between them that is slow, unfair and says things twice.

    Where ``in_order``, facts that are no events are heard in the order they were said, as on one partition of their
    topic; only then a tombstone may answer for one arm twice, with two sets.
    ``said`` is all that anybody ever said, ``heard`` what the coordinator decided on, in its order, up to its verdict.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.plan, roles = choreography(rng)
        self.actors = {role.plan.name: Actor(role) for role in roles if not role.plan.observer}
        self.history = History()
        self.said: list[Fact] = []
        self.heard: list[Fact] = []
        self.first: list[Fact] = []
        self.issued: list[Command] = []
        self.confirmed: set[Unit] = set()
        self.before: dict[Unit, frozenset[Unit]] = {}
        self.transit: list[Fact] = []
        self.refusing = rng.random() < 0.3
        self.stubborn = rng.choice((0.0, 0.0, 0.3))
        self.lost_start = rng.random() < 0.03
        self.impatient = rng.random() < 0.1 and not self.lost_start
        self.greedy = rng.choice((1, 1, 3, 8))
        self.in_order = rng.random() < 0.2
        self.end: End | None = None
        start = Happened("start-0", "start", None, (), 1, 1, 0, None, 0, b"")
        self.publish([start])
        if self.lost_start:
            self.transit.clear()
            self.said.clear()

    # --- the bus

    def say(self, fact: Fact) -> None:
        self.said.append(fact)
        self.transit.append(fact)

    def publish(self, events: Sequence[Happened]) -> None:
        for event in events:
            self.say(event)
            for actor in self.actors.values():
                if any(event.type in types for types in actor.role.plan.consumes):
                    actor.inbox.append(event)

    # --- the coordinator

    def hear(self, facts: Sequence[Fact]) -> None:
        """Decide on some facts, and carry out what comes of it."""
        if self.end is not None:
            return
        if self.rng.random() < 0.05:
            stored = [fact.to_json() for fact in self.history.facts]
            self.rng.shuffle(stored)
            self.history = History().with_facts(fact_from_json(each) for each in stored)
        self.heard.extend(facts)
        self.history, commands = decide(self.plan, self.history, facts)
        self.issued.extend(commands)
        for command in commands:
            if isinstance(command, Undo):
                self.before[command.step, command.causes] = frozenset(self.confirmed)
                self.actors[command.step].undos.append(command)
            elif isinstance(command, Halt) or (isinstance(command, End) and command.let_go):
                for actor in self.actors.values():
                    actor.end_is_near = True
            if isinstance(command, End):
                self.end = command
                self.history = self.history.with_facts([Ended(command.verdict, 1)])

    # --- the steps

    def settle(
        self, actor: Actor, events: Sequence[Happened], how: How, *, began: bool = True, code: str = "", early: bool = False
    ) -> None:
        causes = tuple(sorted(event.id for event in events))
        fact = Settled(actor.name, causes, how, began=began, code=code, declaration="agents@1")
        self.say(fact)
        if early:
            self.first.append(fact)

    def raise_tombstone(self, actor: Actor) -> None:
        actor.tombstone, actor.let_go, actor.held = True, actor.held, {}
        if actor.let_go:
            self.settle(actor, list(actor.let_go.values()), "skipped", began=False)

    def read(self, actor: Actor) -> None:
        """One input: refused, held, or the one that completes the call."""
        event = actor.inbox.pop(self.rng.randrange(len(actor.inbox)))
        arm = actor.arm(event)
        size = len(actor.role.plan.consumes)
        if actor.tombstone:
            self.at_tombstone(actor, event, arm)
        elif size > 1 and (actor.was_called or arm in actor.held):
            both = [event, actor.held[arm]] if arm in actor.held and self.rng.random() < 0.5 else [event]
            self.settle(actor, both, "failed", began=False, code="arm-filled", early=len(actor.held) < size)
        elif self.refusing and self.rng.random() < 0.1:
            self.settle(actor, [event], "failed", began=False, code="contract", early=size > 1)
        else:
            actor.held[arm] = event
            if len(actor.held) == size:
                inputs, actor.held = list(actor.held.values()), {}
                actor.was_called = True
                self.call(actor, inputs)

    def at_tombstone(self, actor: Actor, event: Happened, arm: int) -> None:
        """Skipped where it provably never began, else failed, with the whole set that it may have begun on."""
        if arm in actor.let_go and not self.in_order:
            self.settle(actor, [event], "skipped", began=False)
            return
        actor.let_go[arm] = event
        fills = len(actor.let_go) == len(actor.role.plan.consumes)
        if fills and not actor.was_called and actor.role.plan.effects and self.rng.random() < 0.5:
            self.settle(actor, list(actor.let_go.values()), "failed", code="saga-ended")
        else:
            self.settle(actor, [event], "skipped", began=False)

    def call(self, actor: Actor, inputs: Sequence[Happened]) -> None:
        if self.rng.random() < actor.role.trouble:
            self.settle(actor, inputs, "failed", code=self.rng.choice(("no", "down")))
            return
        answer = self.rng.choice(actor.role.answers)
        if not answer:
            self.settle(actor, inputs, "done")
            return
        causes = tuple(sorted(event.id for event in inputs))
        depth = 1 + max(event.depth for event in inputs)
        self.publish(
            [
                Happened(
                    f"{actor.name}({','.join(causes)}){part}",
                    name,
                    actor.name,
                    causes,
                    part,
                    len(answer),
                    0,
                    "agents@1",
                    depth,
                    b"",
                )
                for part, name in enumerate(answer, 1)
            ]
        )

    def undo(self, actor: Actor) -> None:
        command = actor.undos.pop()
        unit = (command.step, command.causes)
        if self.rng.random() < self.stubborn:
            self.say(UndoFailed(*unit, code="stuck"))
            if self.rng.random() < 0.5:
                return
        self.confirmed.add(unit)
        self.say(Undone(*unit))

    # --- time

    def moves(self) -> Iterator[str]:
        """What may happen next."""
        if self.transit:
            yield "hear"
        for actor in self.actors.values():
            if actor.inbox:
                yield f"read {actor.name}"
            if actor.undos:
                yield f"undo {actor.name}"
            if actor.end_is_near and not actor.tombstone:
                yield f"bury {actor.name}"

    def live(self) -> None:
        """Until nothing moves. Then, if the saga still runs, its deadline fires, and it goes on to its end."""
        while True:
            moves = list(self.moves())
            if not moves:
                if self.end is not None or self.history.fired:
                    return
                if status(self.plan, self.history) != "running" and not self.lost_start:
                    return
                waits = self.lost_start or self.plan.completes not in self.history.types
                assert waits, "completes was seen, nothing moves, and it does not complete"
                self.fire("unknown" if self.lost_start else "deadline")
                continue
            if self.impatient and self.rng.random() < 0.02:
                self.impatient = False
                self.fire("deadline")
            verb, _, name = self.rng.choice(moves).partition(" ")
            if verb == "hear":
                self.deliver()
            elif verb == "read":
                self.read(self.actors[name])
            elif verb == "undo":
                self.undo(self.actors[name])
            else:
                self.raise_tombstone(self.actors[name])

    def fire(self, rule: str) -> None:
        if self.end is None:
            fact = Fired("unknown" if rule == "unknown" else "deadline", 1)
            self.first.append(fact)
            self.hear([fact])

    def deliver(self) -> None:
        rng = self.rng
        batch = [self.next_heard() for _ in range(min(len(self.transit), rng.randint(1, self.greedy)))]
        if rng.random() < 0.1:
            batch.append(rng.choice(batch))
        if self.heard and rng.random() < 0.1:
            batch.append(rng.choice(self.heard))
        self.hear(batch)

    def next_heard(self) -> Fact:
        place = self.rng.randrange(len(self.transit))
        if self.in_order and not isinstance(self.transit[place], Happened):
            place = next(number for number, fact in enumerate(self.transit) if not isinstance(fact, Happened))
        return self.transit.pop(place)


# --- what must hold --------------------------------------------------------------------------------------------------


def live(seed: int) -> World:
    """A world's whole life."""
    world = World(Random(seed))
    world.live()
    return world


def units_owing(world: World) -> set[Unit]:
    """Every unit whose effect anybody's words leave standing, read off the words by plain means."""
    done = {(fact.step, fact.causes) for fact in world.said if isinstance(fact, Happened) and fact.step is not None}
    facts = [fact for fact in world.said if isinstance(fact, Settled)]
    failed = {(fact.step, fact.causes) for fact in facts if fact.how == "failed" and fact.began}
    owing = done | failed | {(fact.step, fact.causes) for fact in facts if fact.how == "done"}
    return {unit for unit in owing if world.plan.steps[unit[0]].effects}


def users_of_each(world: World) -> dict[Unit, set[Unit]]:
    """For each unit, all that used an output of it, directly or not."""
    maker = {fact.id: (fact.step, fact.causes) for fact in world.said if isinstance(fact, Happened) and fact.step is not None}
    users: dict[Unit, set[Unit]] = {}

    def above(unit: Unit, seen: set[Unit]) -> set[Unit]:
        for cause in unit[1]:
            if cause in maker and maker[cause] not in seen:
                seen.add(maker[cause])
                above(maker[cause], seen)
        return seen

    for fact in world.said:
        if isinstance(fact, Settled) or (isinstance(fact, Happened) and fact.step is not None):
            unit = (fact.step or "", fact.causes)
            for each in above(unit, set()):
                users.setdefault(each, set()).add(unit)
    return users


def check_verdict(world: World) -> str:
    """Every saga ends, and its verdict is true. The verdict, or the state it stays in."""
    now = status(world.plan, world.history)
    failures = [
        fact
        for fact in world.said
        if (isinstance(fact, Settled) and fact.how == "failed") or (isinstance(fact, Happened) and fact.type == "no")
    ]
    if now == "completed":
        assert not world.history.fired
        assert not world.before, "completed, and something was told to undo"
        assert world.end is not None
        let_go = set(world.end.let_go)
        late = [fact for fact in failures if not (isinstance(fact, Settled) and (fact.causes[0], fact.step) in let_go)]
        assert late == [], "completed, and something had failed that was no arm let go"
        assert all(actor.was_called is False or not actor.held for actor in world.actors.values())
    elif now == "compensated":
        assert units_owing(world) <= world.confirmed, "compensated, and an owed undo is not confirmed"
    else:
        assert now == "parked", f"ends {now}: {unseen(world.plan, world.history)}, {open_debts(world.plan, world.history)}"
        assert world.history.undo_failed.keys() - world.history.undone
    assert (now == "compensated") <= bool(failures or world.history.fired)
    return now


def check_commands(world: World) -> None:
    """Each command once; each undo for what owes one, and after all that was built on it is undone."""
    assert len(world.issued) == len(set(world.issued)), "a command was issued twice"
    owing = units_owing(world)
    users = users_of_each(world) if world.before else {}
    for unit, before in world.before.items():
        assert unit in owing, f"{unit} owes no undo"
        waiting = (users.get(unit, set()) & owing) - before
        assert not waiting, f"{unit} was told to undo before {waiting}"


def check_any_order(world: World) -> None:
    """The same facts in another order, in other batches, some twice: the same state, the same commands, each once.

    What comes from nowhere keeps its place. A deadline, and the refusal of an arm that would have waited in vain, race
    with completion, and the verdict says who won: they go first. That a start event never came is said only when all
    there was has been read: what was heard before that stays before it.
    """
    rng = world.rng
    facts = list(world.heard)
    rng.shuffle(facts)
    first = {fact.identity for fact in world.first}
    if world.lost_start:
        unknown = next((number for number, fact in enumerate(world.heard) if isinstance(fact, Fired)), 0)
        first = {fact.identity for fact in world.heard[:unknown]}
    facts.sort(key=lambda fact: (fact.identity not in first, world.lost_start and not isinstance(fact, Fired)))
    history = History()
    issued: list[Command] = []
    while facts:
        size = rng.randint(1, world.greedy)
        history, commands = decide(world.plan, history, facts[:size])
        issued.extend(commands)
        facts = facts[size:]
    assert len(issued) == len(set(issued)), "a command was issued twice in another order"
    assert set(issued) == set(world.issued), "another order, other commands"
    straight = History().with_facts(world.heard)
    for read in (due, status, failure, unseen, open_debts, standing):
        assert repr(read(world.plan, history)) == repr(read(world.plan, straight)), read.__name__


def check(seed: int) -> None:
    """Everything, of one random saga."""
    try:
        world = live(seed)
        check_verdict(world)
        check_commands(world)
        if not world.in_order:
            check_any_order(world)
    except AssertionError as error:
        raise AssertionError(f"live({seed}): {error}") from error


@settings(max_examples=HISTORIES // _AT_A_TIME, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
@given(_SEEDS)
def test_random_sagas_in_an_honest_world(base: int) -> None:
    for seed in range(base, base + _AT_A_TIME):
        check(seed)


def test_the_worlds_differ_enough_to_mean_something() -> None:
    verdicts = [check_verdict(live(seed)) for seed in range(300)]
    for verdict in ("completed", "compensated", "parked"):
        assert verdicts.count(verdict) >= 10, f"{verdict}: {verdicts.count(verdict)} of 300"


# --- nobody honest ---------------------------------------------------------------------------------------------------


_HOWS: tuple[How, ...] = ("done", "failed", "skipped")
_VERBS: tuple[Verb, ...] = ("retry", "retry", "done", "skip", "abandon")
_VERDICTS: tuple[Verdict, ...] = ("completed", "compensated", "abandoned")


def junk(rng: Random, plan: Plan) -> Fact:
    """A fact that has the right types, and nothing else to be said for it."""
    ids = "abcdef"
    step = rng.choice([*plan.steps, "nobody/nothing", ""])
    causes = tuple(sorted(rng.choices(ids, k=rng.choice((0, 1, 1, 2, 3)))))
    declaration = rng.choice((None, "agents@1", "agents@2"))
    kind = rng.randrange(13)
    if kind < 5:
        name = rng.choice((plan.starts, plan.completes, "no", "t1", "t2", "u3", "?"))
        by = rng.choice((step, step, None))
        part, parts = rng.choice(((1, 1), (1, 1), (1, 2), (2, 2), (0, 0), (-1, 3), (7, 2), (1, 10**9)))
        return Happened(
            rng.choice(ids), name, by, causes, part, parts, rng.randint(-1, 3), declaration, rng.randint(-2, 9), b""
        )
    if kind < 8:
        how = rng.choice(_HOWS)
        return Settled(step, causes, how, rng.random() < 0.5, rng.choice(("", "x")), declaration=declaration)
    if kind < 10:
        return rng.choice((Undone(step, causes), UndoFailed(step, causes, rng.choice("xy"), "", rng.choice((0, 0, 1, 2)))))
    if kind == 12:
        return Decided(rng.choice(_VERBS), step, causes, rng.randint(0, 3), "somebody", "", 0)
    if kind < 11:
        others: list[Fact] = [Fired("deadline", 0), Fired("unknown", 0), Fired("overdue", 0), *plan.declared.values()]
        return rng.choice(others)
    return Ended(rng.choice(_VERDICTS), 0) if rng.random() < 0.2 else Undone(step, causes)


@settings(max_examples=100, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
@given(_SEEDS)
def test_no_fact_whatever_makes_the_engine_raise_and_its_state_is_that_of_the_set(base: int) -> None:
    for seed in range(base, base + 10):
        rng = Random(seed)
        plan, _ = choreography(rng)
        unlike: dict[str, Fact] = {}
        for _ in range(rng.randint(1, 25)):
            fact = junk(rng, plan)
            unlike.setdefault(fact.identity, fact)
        facts = list(unlike.values())
        states: list[list[str]] = []
        for _ in range(2):
            history = History()
            for fact in facts:
                history, _ = decide(plan, history, [fact])
                assert decide(plan, history, [fact]) == (history, ())
            states.append([repr(read(plan, history)) for read in (due, status, failure, unseen, open_debts, standing)])
            rng.shuffle(facts)
        assert states[0] == states[1], f"seed {seed}"
