"""Player: plays histories one after another, each judged, in worlds that are made anew now and then."""

import gc
import logging
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import structlog

from pavane.simulation.digest import Digest, State
from pavane.simulation.judge import Violation, judge
from pavane.simulation.points import Fault, Faults, Point, Possible, write_faults
from pavane.simulation.script import Choice, as_written, nothing
from pavane.simulation.story import Teller
from pavane.simulation.verification import Verification, names_of
from pavane.simulation.virtual_time import Restless
from pavane.simulation.world import Played, World
from pavane_events.event import Event

WORLD_LASTS = 400
"""Histories played in one world, one after another: a new one costs as much as ten."""

TRACED_LASTS = 100
"""The same of a world that is traced."""

Look = Callable[[Point], None] | None
"""What is to be called at each point of a history."""

MOST_BEFORE = 12
"""Histories that are played before a wrong one to find it again: by then a lane's marks have lain everywhere once."""

_MOST_LEFT = 10
"""Worlds that lie about until they are collected."""

_SHARES = (0.01, 0.02, 0.05, 0.1)
_MOST_AT_LOT = 8


@dataclass(frozen=True, slots=True)
class Job:
    """A history to be played: one scenario with these faults, or, with ``seed``, what the lot says of it.

    ``look``: the points after its last fault are wanted, with the state at each. ``after``: so many histories in which
    nothing goes wrong come before it in its world: a lane's marks lie elsewhere then. ``lanes``: of each agent, and of the
    coordinator; its first saga lives in ``first`` of these.
    """

    scenario: str
    faults: Faults = ()
    seed: str | None = None
    look: bool = False
    after: int = 0
    lanes: int = 1
    first: int = 0

    @property
    def setting(self) -> str:
        """What two histories have in common that may come to the same state."""
        return ";".join(filter(None, (self.scenario, self._lanes)))

    def __str__(self) -> str:
        said = f"lot {self.seed}" if self.seed is not None else write_faults(self.faults)
        after = f"after {self.after}" if self.after else ""
        return ";".join(filter(None, (self.scenario, said, self._lanes, after)))

    @property
    def _lanes(self) -> str:
        if self.lanes == 1:
            return ""
        return f"lanes {self.lanes} from {self.first}" if self.first else f"lanes {self.lanes}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. ``verdicts``: how its sagas ended. ``ahead``: the points after its last fault, with the state
    there, where they were wanted."""

    job: Job
    violations: tuple[Violation, ...] = ()
    verdicts: tuple[str, ...] = ()
    struck: Faults = ()
    ahead: tuple[tuple[Point, State], ...] = ()


Tracing = Literal["all", "some", "none"]
"""Of which histories the traces are checked, too. ``some``: of those that are looked around in, with no fault or one, and of
every fifth of the others: it takes half as long again."""


@dataclass
class Player:
    """Plays. A world is of histories that are traced, or of such that are not."""

    verification: Verification
    tracing: Tracing = "some"
    _world: World | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _played: int = 0
    _worlds: int = 0
    _left: int = 0
    _expected: dict[str, str] = field(default_factory=dict[str, str])

    def play(self, job: Job) -> Outcome:
        """Play a history and judge it."""
        with alone():
            expected = self._expected_of(job.scenario) if job.scenario in self.verification.scenarios else None
            world = self._aged(job) if job.after else self._fresh(job.lanes, look=job.look)
            ahead: list[tuple[Point, State]] = []
            choice = self._choice(job)
            look = _Look(world, job.faults, ahead) if job.look else None
            played = self._play(world, job, choice, look)
            violations = judge(self.verification, played, expected, trace=world.traced)
            if violations:
                world.worn_out = world.wrong = True
            verdicts = tuple(each for found in played.verdicts.values() for each in found)
            return Outcome(job, tuple(violations), verdicts, tuple(played.struck), tuple(ahead))

    def tell(self, job: Job, faults: Faults) -> list[str]:
        """The story of a history, line by line."""
        self.close()
        with alone():
            world = self._aged(job) if job.after else self._fresh(job.lanes)
            teller = Teller(world, faults)
            self._play(world, job, self._choice(job), teller)
            teller.catch_up()
            world.worn_out = world.wrong = True
            return teller.lines

    def close(self) -> None:
        """Take the world down."""
        world, self._world = self._world, None
        if world is not None:
            with alone():
                try:
                    world.loop.complete(self._stack.aclose())
                    world.loop.complete(world.loop.shutdown_asyncgens())
                except Exception:
                    if not world.wrong:
                        raise
                finally:
                    world.abandon()

    def _play(self, world: World, job: Job, choice: Choice = nothing, look: Look = None, name: str = "") -> Played:
        """``name``: where it is another than the job's."""
        self._played += 1
        starts = self._starts(job.scenario)
        try:
            played = world.loop.complete(world.play(name or str(job), starts, choice, look, first=job.first))
        except Restless as error:
            played = world.cut_off(error)
        except BaseException:
            world.wrong = True
            raise
        if played.stuck is not None:
            world.wrong = True
        return played

    def _fresh(self, lanes: int, *, look: bool = False) -> World:
        """A world in which one may play; a traced one where one is to look around."""
        must_trace = look and self.tracing == "some"
        if self._world is not None and (self._world.lanes != lanes or self._is_over(self._world, must_trace=must_trace)):
            self.close()
        if self._world is None:
            self._left += 1
            if self._played >= TRACED_LASTS or self._left >= _MOST_LEFT:
                gc.collect()  # a world is one large circle, and the collector is off; whoever named one would keep it
                gc.freeze()  # what is there now, such as histories that are still to be played, is not looked through again
                self._left = 0
            trace = self.tracing == "all" or must_trace or (self.tracing == "some" and self._worlds % 2 == 0)
            self._worlds += 1
            self._played = 0
            self._stack = AsyncExitStack()
            self._world = World(self.verification, trace=trace, lanes=lanes)
            self._world.loop.complete(self._stack.enter_async_context(self._world.alive()))
        return self._world

    def _is_over(self, world: World, *, must_trace: bool) -> bool:
        lasts = TRACED_LASTS if world.traced and not must_trace else WORLD_LASTS
        return world.worn_out or self._played >= lasts or (must_trace and not world.traced)

    def _aged(self, job: Job) -> World:
        """A world in which as many histories were played as the job says, and nothing went wrong in them."""
        self.close()
        world = self._fresh(job.lanes)
        before = replace(job, scenario=names_of(job.scenario)[0])
        for number in range(job.after):
            self._play(world, before, name=f"{before.scenario};before {number}")
        return world

    def _expected_of(self, scenario: str) -> str | None:
        """How the saga of a scenario ends where nothing goes wrong. Of several side by side nobody knows: they may compete."""
        if len(self._starts(scenario)) != 1:
            return None
        if scenario not in self._expected:
            played = self._play(self._fresh(1), Job(scenario), name=f"{scenario};expected {self._worlds}")
            verdicts = [each for found in played.verdicts.values() for each in found]
            self._expected[scenario] = verdicts[0] if verdicts else "open"
            self.close()  # so that a history that is played alone is alone in its world
        return self._expected[scenario]

    def _starts(self, scenario: str) -> list[Event]:
        scenarios = self.verification.scenarios
        return [event for name in names_of(scenario) for event in scenarios[name]]

    def _choice(self, job: Job) -> Choice:
        return as_written(job.faults) if job.seed is None else by_lot(job.seed, self.verification.possible)


@dataclass
class _Look:
    """Notes the points after the last fault, with the state at each."""

    world: World
    faults: Faults
    ahead: list[tuple[Point, State]]

    def __post_init__(self) -> None:
        self._digest = Digest(self.world)

    def __call__(self, point: Point) -> None:
        if len(self.world.script.struck) == len(self.faults):
            self.ahead.append((point, self._digest.take()))


def by_lot(seed: str, possible: Possible) -> Choice:
    """Faults by seed: few or many, at most eight, each anywhere."""
    lot = random.Random(seed)
    share = lot.choice(_SHARES)
    left = lot.randint(1, _MOST_AT_LOT)

    def choose(point: Point) -> str | None:
        nonlocal left
        if left == 0 or lot.random() >= share:
            return None
        left -= 1
        return lot.choice(possible.finely(point))

    return choose


@contextmanager
def alone() -> Generator[None]:
    """A process does nothing but play. What goes wrong is meant to: nothing of it is logged. The collector is off: a history
    makes few circles, and looking for them took a tenth of the time. Within another it changes nothing."""
    disabled = logging.root.manager.disable
    if disabled >= logging.CRITICAL and not gc.isenabled():
        yield
        return
    collects, frozen = gc.isenabled(), gc.get_freeze_count()
    configured = structlog.get_config()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.disable()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if collects:
            gc.enable()
        logging.disable(disabled)
        structlog.configure(wrapper_class=cast("type[structlog.typing.BindableLogger]", configured["wrapper_class"]))


def shrunk(player: Player, outcome: Outcome) -> Outcome:
    """The shortest history found that is wrong in the same way: faults are left out for as long as it stays so."""
    code = outcome.violations[0].code
    ages = range(MOST_BEFORE + 1)
    struck = replace(outcome.job, faults=outcome.struck, seed=None, look=False)
    again = (_played_alone(player, replace(struck, after=after)) for after in ages)
    reproduced = next((each for each in again if any(one.code == code for one in each.violations)), None)
    if reproduced is None:
        return outcome
    outcome = reproduced
    found = True
    while found:
        found = False
        faults: Sequence[Fault] = outcome.job.faults
        for place in range(len(faults)):
            job = replace(outcome.job, faults=(*faults[:place], *faults[place + 1 :]))
            shorter = _played_alone(player, job)
            if any(each.code == code for each in shorter.violations):
                outcome, found = shorter, True
                break
    return outcome


def _played_alone(player: Player, job: Job) -> Outcome:
    """In a world of its own, as somebody plays it who replays it."""
    player.close()
    return player.play(job)
