"""Explore: every single fault, every pair of faults, then faults by lot, for as long as asked; no state is left twice."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from pavane.simulation.digest import State
from pavane.simulation.player import Job, Outcome
from pavane.simulation.points import FINER, Fault, Point
from pavane.simulation.verification import Verification

Branch = tuple[str, State, str, str, str]
"""A fault in a state: setting, state, what happens there, where, and what goes wrong with it."""


Tell = Callable[[str, int, int | None], None]
"""Is told the stage, how far it is, and how far it goes, where that is known."""


def silently(stage: str, count: int, total: int | None) -> None:
    """Tell nobody."""


_BLOCK: Final = 400
"""Histories in a row with the same number of lanes: a world has one, and is used for many."""


class Crew(Protocol):
    """Those who play. Outcomes come in any order."""

    def play(self, jobs: Iterable[Job]) -> Iterator[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to stop: after so many histories, or seconds, or at the first violation.

    ``exhaustive``: single faults and pairs are played out whatever the number of histories; what is left of it goes by lot.
    """

    histories: int | None = None
    seconds: float | None = None
    exhaustive: bool = False


@dataclass
class Survey:
    """What was looked at so far. ``planned``: of a stage, the histories that there are, the bounds aside. ``ends``: by
    scenario, how its sagas end where nothing goes wrong."""

    seed: int
    sagas: int = 0
    singles: int = 0
    pairs: int = 0
    by_lot: int = 0
    skipped: int = 0
    planned: dict[str, int] = field(default_factory=dict[str, int])
    ends: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    states: set[tuple[str, State]] = field(default_factory=set[tuple[str, State]])
    wrong: list[Outcome] = field(default_factory=list[Outcome])
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def histories(self) -> int:
        """How many were played."""
        return self.sagas + self.singles + self.pairs + self.by_lot

    @property
    def seconds(self) -> float:
        """How long it took so far."""
        return time.perf_counter() - self.began_s


@dataclass
class Explorer:
    """Explores a verification with a crew."""

    verification: Verification
    crew: Crew
    bounds: Bounds
    survey: Survey
    tell: Tell = silently
    lanes: int | None = None
    """Of each agent, and of the coordinator. None: one; by lot every third :data:`_BLOCK` of histories has two."""

    _seen: set[Branch] = field(default_factory=set[Branch])

    def run(self) -> Survey:
        """Until everything was looked at that the bounds allow, or something is wrong."""
        possible = self.verification.possible
        singles = self._branches(self._ending(self._stage("sagas", self._undisturbed())), possible.finely)
        pairs = self._branches(self._stage("singles", [_looking(job) for job in singles]), possible.at)
        for _ in self._stage("pairs", pairs):
            pass
        if not self.survey.wrong and not self._is_over():
            for _ in self.by_lot():
                pass
        return self.survey

    def _undisturbed(self) -> list[Job]:
        """Each scenario as it goes where nothing goes wrong; with several lanes in two of them: one owns the locks, say."""
        lanes = self.lanes or 1
        return [
            Job(name, look=True, lanes=lanes, first=first)
            for name in self.verification.scenarios
            for first in range(min(lanes, 2))
        ]

    def _ending(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """The same, and how each ends is noted."""
        for outcome in outcomes:
            self.survey.ends.setdefault(outcome.job.scenario, set()).update(outcome.verdicts)
            yield outcome

    def by_lot(self) -> Iterator[Outcome]:
        """Histories of one to three sagas with up to eight faults each, for as long as the bounds allow."""
        return self._stage("by_lot", None)

    def _branches(self, outcomes: Iterator[Outcome], possible: Callable[[Point], Sequence[str]]) -> list[Job]:
        """What may go wrong next after each of these histories' last fault, each state once; in an order by seed."""
        found: list[Job] = []
        for outcome in outcomes:
            job = outcome.job
            for point, state in outcome.ahead:
                self.survey.states.add((job.setting, state))
                for action in possible(point):
                    branch = (job.setting, state, point.what, point.where, action)
                    if branch in self._seen:
                        self.survey.skipped += 1
                    else:
                        self._seen.add(branch)
                        found.append(replace(job, faults=(*job.faults, Fault(point, action)), look=False))
        random.Random(self.survey.seed).shuffle(found)
        return found

    def _stage(self, name: str, jobs: Sequence[Job] | None) -> Iterator[Outcome]:
        """Play these, or without end by lot, within the bounds."""
        survey = self.survey
        bounds = self.bounds
        room = None if bounds.histories is None else max(0, bounds.histories - survey.histories)
        if bounds.exhaustive and jobs is not None:
            room = None
        if survey.wrong:
            return
        total = room if jobs is None else len(jobs) if room is None else min(room, len(jobs))
        todo = self._lots(room) if jobs is None else iter(jobs[:total])
        if jobs is not None:
            survey.planned[name] = len(jobs)
        for count, outcome in enumerate(self.crew.play(_until(todo, lambda: bool(survey.wrong) or self._is_late())), 1):
            setattr(survey, name, count)
            self.tell(name, count, total)
            if outcome.violations:
                survey.wrong.append(outcome)
            yield outcome

    def _lots(self, room: int | None) -> Iterator[Job]:
        names = list(self.verification.scenarios)
        number = 0
        while room is None or number < room:
            seed = f"{self.survey.seed}/{number}"
            lot = random.Random(seed)
            several = min(len(names), lot.choice((1, 1, 1, 2, 3)))
            lanes = self.lanes or (2 if number // _BLOCK % 3 == 2 else 1)
            yield Job(" + ".join(lot.sample(names, several)), seed=seed, lanes=lanes, first=lot.randrange(lanes))
            number += 1

    def _is_late(self) -> bool:
        return self.bounds.seconds is not None and self.survey.seconds > self.bounds.seconds

    def _is_over(self) -> bool:
        """Whether the lot is not to be drawn: it would be without end, or time is up."""
        no_bound = self.bounds.histories is None and self.bounds.seconds is None
        return no_bound or self._is_late()


def _looking(job: Job) -> Job:
    """What is tried alone is not looked beyond."""
    alone = any(fault.action in FINER.get(fault.point.what, ()) for fault in job.faults)
    return replace(job, look=not alone)


def _until(jobs: Iterable[Job], is_over: Callable[[], bool]) -> Iterator[Job]:
    for job in jobs:
        if is_over():
            return
        yield job
