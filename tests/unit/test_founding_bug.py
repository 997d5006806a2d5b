"""The founding bug: 750 was written, and half a second later 680 was read, because a shared cache was invalidated late.

Both variants are the same flow, on the same virtual clock, with the same lags, and the real ``assess`` step rates in
both. Only one thing differs: whether risk is told *that* there is a score and looks it up, or is told the score.
"""

import asyncio
import heapq
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from pydantic import ValidationError

from pavane import Context
from pavane_credit import points, risk
from pavane_credit.applications import read_applications
from pavane_credit.events import ConfidentScore, IncomeVerified, Rating, ScoreComputed
from pavane_events.envelope import Envelope, parse
from pavane_events.record import Message, Record

FLOWS = 1000
EARLIER, LATER = 680, 750
READ_AFTER_S = 0.5
ONE_IN_FIVE_IS_LATER_THAN_THAT_S = READ_AFTER_S / math.log(5)
"""The mean of an exponential lag of which one fifth is above ``READ_AFTER_S``."""

Action = Callable[[], Awaitable[None]]


@dataclass
class Timeline:
    """Virtual time: actions in the order of their moments."""

    now_s: float = 0.0
    _actions: list[tuple[float, int, Action]] = field(default_factory=list[tuple[float, int, Action]])
    _numbers: "count[int]" = field(default_factory=count)

    def at(self, moment_s: float, action: Action) -> None:
        heapq.heappush(self._actions, (moment_s, next(self._numbers), action))

    async def run(self) -> None:
        while self._actions:
            self.now_s, _, action = heapq.heappop(self._actions)
            await action()


class SharedCache:
    """A store and a read-through cache before it that everybody shares. What is written is invalidated ``lag_s`` later."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._stored: dict[str, ScoreComputed] = {}
        self._cached: dict[str, ScoreComputed] = {}

    def write(self, score: ScoreComputed, lag_s: float) -> None:
        name = score.application_id
        self._stored[name] = score

        async def invalidate() -> None:
            self._cached.pop(name, None)

        self._timeline.at(self._timeline.now_s + lag_s, invalidate)

    def read(self, name: str) -> ScoreComputed:
        return self._cached.setdefault(name, self._stored[name])


class Post:
    """Events as sealed snapshots: what was said travels as bytes, and nobody can reach it any more."""

    def __init__(self) -> None:
        self._said: dict[str, Message] = {}

    def write(self, score: ScoreComputed, lag_s: float) -> None:
        envelope = Envelope(id=score.application_id, source="/test", type=score.event_type, data=score.to_json(), saga="s")
        self._said[score.application_id] = envelope.to_message()

    def read(self, name: str) -> ScoreComputed:
        said = self._said[name]
        record = Record(said.topic, 0, 0, said.key, said.value, said.headers, 0)
        return ScoreComputed.from_json(parse(record).data)


@dataclass(frozen=True)
class Flow:
    """One application, as it went."""

    lag_s: float
    written: int
    read: int
    rating: Rating

    @property
    def is_wrong(self) -> bool:
        return self.rating != risk.rate(self.written)


def scored(name: str, score: int) -> ScoreComputed:
    return ScoreComputed(application_id=name, score=score, confidence=0.9)


Scores = tuple[int, int]
"""An application's earlier and later score."""


async def flows(
    seed: int, *, shared: bool, mean_lag_s: float, scores: Sequence[Scores] = ((EARLIER, LATER),) * FLOWS
) -> list[Flow]:
    """A score, soon a better one, and half a second after that a rating; a thousand times, overlapping."""
    chance = random.Random(seed)
    timeline = Timeline()
    medium = SharedCache(timeline) if shared else Post()
    went: list[Flow] = []

    def begin(number: int, earlier: int, later: int) -> None:
        name = f"DE-{number:04}"
        begun_s, lag_s = chance.uniform(0, 60), chance.expovariate(1 / mean_lag_s) if mean_lag_s else 0.0

        async def score_first() -> None:
            medium.write(scored(name, earlier), 0.0)

        async def look_on() -> None:  # a dashboard, say: it is how the earlier score comes into the cache
            assert medium.read(name).score == earlier

        async def score_again() -> None:
            medium.write(scored(name, later), lag_s)

        async def rate() -> None:
            found = medium.read(name)
            view = ConfidentScore.model_validate(found.model_dump())
            income = IncomeVerified(
                application_id=name, amount_dm=100, duration_months=10, instalment_dm=10, income_class="middle"
            )
            ready = await risk.assess(view, income, Context.fake(saga=name))
            went.append(Flow(lag_s, later, found.score, ready.rating))

        timeline.at(begun_s, score_first)
        timeline.at(begun_s + 1.0, look_on)
        timeline.at(begun_s + 2.0, score_again)
        timeline.at(begun_s + 2.0 + READ_AFTER_S, rate)

    for number, (earlier, later) in enumerate(scores):
        begin(number, earlier, later)
    await timeline.run()
    return went


@pytest.fixture(autouse=True)
def risk_books(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Risk's ledger, in memory."""
    monkeypatch.setenv("CREDIT_LEDGERS", ":memory:founding-bug-")
    risk.books.open()
    yield
    risk.books.close()


def test_the_two_scores_are_rated_differently() -> None:
    assert risk.rate(EARLIER) != risk.rate(LATER)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shared_cache_that_is_invalidated_late_makes_about_one_rating_in_five_wrong(seed: int) -> None:
    went = asyncio.run(flows(seed, shared=True, mean_lag_s=ONE_IN_FIVE_IS_LATER_THAN_THAT_S))
    wrong = [flow for flow in went if flow.is_wrong]
    assert len(went) == FLOWS
    assert 0.16 < len(wrong) / FLOWS < 0.24
    assert {flow.read for flow in wrong} == {EARLIER}
    assert {flow.read for flow in went if not flow.is_wrong} == {LATER}


def test_the_wrong_ones_are_those_whose_invalidation_came_after_the_reading() -> None:
    went = asyncio.run(flows(1, shared=True, mean_lag_s=ONE_IN_FIVE_IS_LATER_THAN_THAT_S))
    assert all(flow.is_wrong == (flow.lag_s > READ_AFTER_S) for flow in went)


def test_the_cache_alone_is_not_the_bug_its_lateness_is() -> None:
    went = asyncio.run(flows(1, shared=True, mean_lag_s=0.0))
    assert not any(flow.is_wrong for flow in went)


@pytest.mark.parametrize("mean_lag_s", [0.0, ONE_IN_FIVE_IS_LATER_THAN_THAT_S, 3600.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_sealed_snapshots_no_rating_is_wrong(seed: int, mean_lag_s: float) -> None:
    went = asyncio.run(flows(seed, shared=False, mean_lag_s=mean_lag_s))
    assert len(went) == FLOWS
    assert not any(flow.is_wrong for flow in went)
    assert {flow.read for flow in went} == {LATER}


def scores_of_real_applications() -> list[Scores]:
    """Each real applicant asks first for what the next one asks for, is scored, and then for what they really wanted."""
    applications = [each.event for each in read_applications()]
    found: list[Scores] = []
    for application, following in pairwise([*applications, applications[0]]):
        terms = {name: getattr(following, name) for name in ("amount_dm", "duration_months", "purpose")}
        first = application.model_copy(update=terms)
        found.append((points.score(first).score, points.score(application).score))
    return found


def test_real_applications_are_rated_wrongly_from_the_cache_and_never_from_snapshots() -> None:
    scores = scores_of_real_applications()
    changed = sum(risk.rate(earlier) != risk.rate(later) for earlier, later in scores)
    lag_s = ONE_IN_FIVE_IS_LATER_THAN_THAT_S
    cached = asyncio.run(flows(1, shared=True, mean_lag_s=lag_s, scores=scores))
    sealed = asyncio.run(flows(1, shared=False, mean_lag_s=lag_s, scores=scores))
    wrong = [flow for flow in cached if flow.is_wrong]
    assert len(cached) == len(sealed) == len(scores) == 1000
    assert 0.14 < len(wrong) / changed < 0.26, "about one in five of those whose rating had changed"
    assert all(flow.read != flow.written for flow in wrong)
    assert not any(flow.is_wrong or flow.read != flow.written for flow in sealed)


def test_what_was_said_cannot_be_changed() -> None:
    said = scored("DE-0001", LATER)
    with pytest.raises(ValidationError, match="frozen"):
        said.score = EARLIER  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert said.score == LATER
