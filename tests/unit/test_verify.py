"""Histories by the thousand: choreographies hold under every fault that is tried, and what is tried is what is said."""

import asyncio
import gc
import importlib.util
import multiprocessing
import os
import random
import re
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from pavane import Agent, Context, EffectUndone, Event, Saga
from pavane.cli.targets import load_verification
from pavane.simulation import crew, player, virtual_time, world
from pavane.simulation.crew import Alone, PlayerLost, Several
from pavane.simulation.explore import Bounds, Branch, Explorer, Survey
from pavane.simulation.player import Job, Outcome, Player
from pavane.simulation.points import NEUTRAL, Fault, Point, read_faults, write_faults
from pavane.simulation.report import job_of
from pavane.simulation.script import nothing
from pavane.simulation.verify import replay
from pavane.simulation.world import UnfitVerification
from pavane.testing import Answer, HistoryPlayed, Verification, VerificationFailed, verify
from pavane_credit.verification import credit
from pavane_events.errors import ConfigurationError, DeclarationError
from pavane_events.partition import partition_of
from pavane_events.record import Record
from pavane_saga.history import History, Plan, Unit
from pavane_saga.saga import SagaEnded
from pavane_saga.view import View
from pavane_saga.wire import ADMISSIONS
from pavane_tracing.routing import process_routes
from support import dances
from support.compiled import sources_only

DANCES: Mapping[str, Callable[[], Verification]] = {
    "fork and join": dances.fork_and_join,
    "an upgrade in mid-saga": lambda: dances.fork_and_join(next_version=True),
    "an alternative branch": dances.alternative_branch,
    "crossed joins": dances.crossed_joins,
    "slow and late": dances.slow_and_late,
    "slow and late, and reported": lambda: dances.slow_and_late("report"),
    "long pauses, and an upgrade": dances.long_pauses,
    "asked whether it happened": dances.asked_whether,
    "a point of no return": dances.point_of_no_return,
    "a step becomes the point of no return": dances.becomes_a_pivot,
    "asks a person": dances.asks_a_person,
    "asks a person, and is reported": lambda: dances.asks_a_person("report"),
    "asks a person, and another branch fails": dances.asks_a_person_beside,
    "one at a time": dances.one_at_a_time,
    "one at a time, or not at all": lambda: dances.one_at_a_time("refuse"),
    "one step goes, one is renamed": dances.one_goes_one_is_renamed,
    "a saga's ends change": dances.ends_change,
}


@pytest.mark.parametrize(
    ("histories", "seconds", "processes", "problem"),
    [
        (0, None, 1, "histories=0: at least 1, or None for no such bound"),
        (-5, None, 0, "histories=-5: at least 1, or None for no such bound; processes=0: at least 1"),
        (1, None, -1, "processes=-1: at least 1"),
        (1, 0.0, 1, "seconds=0.0: more than 0, or None for no such bound"),
        (1, float("nan"), 1, "seconds=nan: more than 0, or None for no such bound"),
    ],
)
def test_nothing_is_proven_where_nothing_would_be_played(
    histories: int | None, seconds: float | None, processes: int, problem: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"nothing would be played: {problem}")):
        verify(dances.fork_and_join(), histories=histories, seconds=seconds, processes=processes)


def test_nobody_plays_without_a_lane() -> None:
    with pytest.raises(ValueError, match=re.escape("nothing would be played: histories=0: at least 1, or None for no such")):
        verify(dances.fork_and_join(), histories=0, lanes=0)
    with pytest.raises(ValueError, match=re.escape("nothing would be played: lanes=0: at least 1")):
        verify(dances.fork_and_join(), lanes=0)


@pytest.mark.parametrize("dance", DANCES)
def test_every_single_fault_and_many_pairs_leave_all_effects_or_none(dance: str) -> None:
    histories = 1_600 if dance.startswith("one at a time") else 650
    report = verify(DANCES[dance](), histories=histories)
    assert report.histories == histories
    played, left_out = report.stages["singles"]
    assert played > 50
    assert left_out == 0


@pytest.mark.parametrize(
    "dance", ["one at a time", "asks a person", "a saga's ends change", "an upgrade in mid-saga", "a point of no return"]
)
def test_sagas_of_two_lanes_and_what_comes_in_beside_them_leave_all_effects_or_none(dance: str) -> None:
    report = verify(DANCES[dance](), histories=400, lanes=2)
    assert report.histories == 400


@pytest.mark.slow
def test_the_credit_decision_holds_in_six_thousand_histories() -> None:
    report = verify("pavane_credit.verification:credit", histories=6_200, processes=2)
    assert report.histories == 6_200
    assert report.stages["singles"][1] == 0
    assert report.stages["pairs"][0] > 3_500


@pytest.mark.slow
def test_up_to_eight_faults_by_lot_and_several_sagas_at_once_leave_all_effects_or_none() -> None:
    survey = Survey(seed=7)
    explorer = Explorer(credit, Alone(credit), Bounds(histories=500), survey)
    wrong = [outcome for outcome in explorer.by_lot() if outcome.violations]
    assert wrong == []
    assert survey.by_lot == 500


def test_how_each_saga_ends_where_nothing_goes_wrong_is_said() -> None:
    report = verify(credit, histories=8)
    assert report.ends == {
        "approved": ["completed"],
        "declined": ["compensated"],
        "reviewed": ["completed"],
        "reviewed and declined": ["compensated"],
        "suspected": ["compensated"],
        "two of one person": ["compensated", "completed"],
        "unaffordable": ["compensated"],
        "unsure": ["compensated"],
    }
    assert not any("not shown" in line for line in report.lines())


def test_where_no_saga_ever_completes_it_is_said_that_little_was_tried() -> None:
    report = verify(dances.crossed_joins(), histories=20)
    assert [*report.ends.values()] == [["compensated"]]
    assert "no saga completes, even where nothing goes wrong: whether one can was not shown" in report.lines()


def test_by_lot_a_third_of_the_histories_has_two_lanes_where_nothing_is_said() -> None:
    class Noted:
        def __init__(self) -> None:
            self.lanes: list[tuple[int, int]] = []

        def play(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
            for job in jobs:
                self.lanes.append((job.lanes, job.first))
                yield Outcome(job)

    crew, three = Noted(), Noted()
    assert sum(1 for _ in Explorer(credit, crew, Bounds(histories=3_600), Survey(seed=0)).by_lot()) == 3_600
    assert crew.lanes.count((1, 0)) == 2_400
    assert {first for lanes, first in crew.lanes if lanes == 2} == {0, 1}
    assert sum(1 for _ in Explorer(credit, three, Bounds(histories=50), Survey(seed=0), lanes=3).by_lot()) == 50
    assert set(three.lanes) == {(3, 0), (3, 1), (3, 2)}


def test_with_two_lanes_an_application_lies_beside_its_saga_and_each_saga_has_a_lane() -> None:
    here = world.World(credit, trace=False, lanes=2)

    async def play() -> Sequence[Record]:
        async with here.alive():
            starts = [event for name in ("approved", "declined") for event in credit.scenarios[name]]
            return (await here.play("two", starts, nothing, first=1)).records

    records = here.loop.run_until_complete(play())
    here.loop.close()
    first, second = here.ordinals
    assert [partition_of(saga.encode(), 2) for saga in (first, second)] == [1, 0]
    intake = credit.sagas[0].intake
    assert {record.partition for record in records if record.topic == intake and record.key == first.encode()} == {0}
    assert sum(record.topic == ADMISSIONS for record in records) == 2
    ends = {(record.key, record.partition) for record in records if record.topic == SagaEnded.event_type}
    assert ends == {(first.encode(), 1), (second.encode(), 0)}


ONCE_WRONG: Mapping[str, Callable[[], Verification]] = {
    # the lane's next holder took an input that risk's contract refuses for one that an earlier holder may have begun
    "unsure;do:fraud-detection/check_identity#1=reject,turn:risk-assessment#2=zombie": lambda: credit,
    # the coordinator heard of its own deadline behind news that led to something, and stated it again with that
    "unaffordable + unsure + suspected;late:pavane.coordinator pavane.facts#2=late-past": lambda: credit,
    # an answer from outside that the coordinator had let in and not heard yet: a step that had begun with it was never undone,
    # and its saga called compensated; nor was the order of undos kept
    "yes;do:right/judge#1=crash-after,late:right dance.reviewed#2=late-past,"
    "late:pavane.coordinator dance.reviewed#1=late-past,do:far/go_far#1=fail": dances.asks_a_person_beside,
    "no + yes;late:pavane.coordinator dance.intake#3=late-past,late:pavane.coordinator dance.reviewed#1=late,"
    "turn:right#7=taken": dances.asks_a_person,
    # what a coordinator had heard, and its next version takes for an end, counted as acted upon: not even the deadline did it
    "no + to the end;late:pavane.coordinator dance.asked#2=late,turn:join#1=upgrade,turn:join#2=taken,"
    "turn:pavane.coordinator#10=upgrade": dances.ends_change,
    # what a version had answered that called its step at once was granted by the next one's word, for the answer came late
    "not paid + no + to the end;late:pavane.coordinator/1 dance.refused#1=late,turn:right#6=upgrade;lanes 2 from 1": (
        dances.becomes_a_pivot
    ),
    # what waited in a delay tier while a next version took over was owed by nobody: the saga was called compensated
    "to the end;late:left dance.asked#1=late,do:right/go_right#1=fail-after,turn:right#2=upgrade,"
    "do:left/go_left#1=reject,late:right pavane.ends#1=late": dances.long_pauses,
    # a grant that was finished behind one that was not was followed a second time by the lane's next holder
    "to the end + no + not paid;commit:left#1=crash-before,do:right/pay#1=fail-once,commit:right#4=crash-after,"
    "turn:pavane.coordinator#15=taken;after 3": dances.point_of_no_return,
    # a command's dead letter counted as a second command, whose span was missed
    "to the end;do:join/finish#1=reject,do:join/finish#2=fail-after": dances.point_of_no_return,
    # an answer that comes when nothing else happens any more came a day later, when the history's time was up
    "no;answer:dance.left#1=too-late,undo:right/judge#1=fail-once": lambda: dances.asks_a_person("report"),
}


@pytest.mark.parametrize("history", ONCE_WRONG)
def test_histories_that_were_wrong_once_are_right(history: str) -> None:
    outcome, story = replay(ONCE_WRONG[history](), job_of(history))
    assert outcome.violations == ()
    assert any("!" in line for line in story)


NAMED: Mapping[str, tuple[str, Callable[[], Verification], tuple[str, ...]]] = {
    "a crash after an effect, and a failure elsewhere": (
        "to the end;do:left/go_left#1=crash-after,do:right/go_right#1=reject",
        dances.fork_and_join,
        ("left/go_left, call: dies after it", "right/go_right failed rejected", "left/go_left undone", "ended: compensated"),
    ),
    "a step that runs again after its undo": (
        "no;do:left/go_left#1=zombie",
        dances.fork_and_join,
        (
            "left/go_left, call: loses its lane, and does not know",
            "left/go_left undone",
            "left/go_left call raised EffectUndone",
        ),
    ),
    "two failures at once": (
        "to the end;do:left/go_left#1=reject,do:right/go_right#1=reject",
        dances.fork_and_join,
        ("left/go_left failed rejected", "right/go_right failed rejected", "the saga turns back", "ended: compensated"),
    ),
    "a failure while undoing": (
        "no;undo:left/go_left#1=fail",
        dances.fork_and_join,
        ("left/go_left undo failed: attempts.exhausted", "operator retry left/go_left", "undone", "ended: compensated"),
    ),
    "an alternative branch that leaves a join open": (
        "detour;",
        dances.alternative_branch,
        ("fork/choose says dance.detour", "ended: completed", "lets its joins go", "join/meet skipped saga.ended"),
    ),
    "a rolling upgrade that adds and removes a step": (
        "no;late:left dance.asked#1=late,turn:right#2=upgrade",
        dances.one_goes_one_is_renamed,
        (
            "right/glance call returned",
            "its next version takes over",
            "right/peer call returned",
            "peer undone",
            "glance undone",
        ),
    ),
    "an observer of the failure event": (
        "refused;do:join/mourn#1=crash-after",
        dances.fork_and_join,
        ("join/meet says dance.refused", "join/mourn, call: dies after it", "join/mourn call returned", "ended: compensated"),
    ),
    "a late answer from outside into an ended saga": (
        "yes;answer:dance.left#1=too-late",
        dances.asks_a_person,
        ("nobody outside answered right/judge", "ended: compensated", "says dance.reviewed", "dead-letters dead letter"),
    ),
    "a zombie coordinator whose timer fires": (
        "to the end;do:last/finish#1=hang,turn:pavane.coordinator#8=zombie",
        dances.slow_and_late,
        ("last/finish, call: does not answer", "no. 8: loses its lane", "the saga's deadline passed", "ended: compensated"),
    ),
    "a lane whose state would be older than its offsets": (
        "to the end;commit:join#1=crash-after,late:join dance.right#1=late",
        dances.fork_and_join,
        ("right/go_right says dance.right", "join, commit: its process dies after it", "join/meet call returned", "completed"),
    ),
    "two joins that wait for each other": (
        "waits for ever;",
        dances.crossed_joins,
        ("the saga's deadline passed", "one/after_right skipped", "other/after_left skipped", "ended: compensated"),
    ),
}
"""What ``pavane verify`` must come by: a history of each, where it is played, and what its story tells, in that order."""


@pytest.mark.parametrize("scenario", NAMED)
def test_what_has_a_name_is_played_and_is_right(scenario: str) -> None:
    history, made, telling = NAMED[scenario]
    outcome, story = replay(made(), job_of(history))
    assert outcome.violations == ()
    lines = iter(" ".join(line.split()) for line in story)
    for words in telling:
        assert any(words in line for line in lines), f"{words!r} is not told, or too early"
    assert sum("deadline passed" in line for line in story) <= 1


@pytest.mark.parametrize(("first", "at"), [("turn:pavane.coordinator#2=upgrade,", "0.000 s"), ("", "60.000 s")])
def test_an_end_that_the_coordinator_knows_turns_its_saga_back_and_another_waits_for_the_deadline(first: str, at: str) -> None:
    outcome, story = replay(dances.ends_change(), job_of(f"no;{first}late:right dance.asked#1=late,turn:join#2=upgrade"))
    assert outcome.violations == ()
    assert any("says dance.called-off" in line for line in story)
    assert story[-1].endswith("ended: compensated")
    assert story[-1].strip().startswith(at)


def test_a_refusal_is_heard_whatever_happens_to_machines() -> None:
    store = dances.Store()
    verification = dances.fork_and_join(store)
    player = Player(verification, "none")
    try:
        ahead = player.play(Job("refused", look=True)).ahead
        harmless = [
            Job("refused", (Fault(point, action),))
            for point, _ in ahead
            for action in verification.possible.at(point)
            if action in NEUTRAL
        ]
        assert len(harmless) > 100
        for job in harmless:
            assert player.play(job).violations == ()
            assert sum(heard.endswith("was refused") for heard in store.heard) >= 1, str(job)
    finally:
        player.close()


@pytest.mark.parametrize(("overdue", "verdict"), [("fail", "compensated"), ("report", "completed")])
def test_past_its_deadline_a_saga_turns_back_or_is_reported_as_it_says(
    overdue: Literal["fail", "report"], verdict: str
) -> None:
    _, story = replay(dances.slow_and_late(overdue), job_of("to the end;do:last/finish#1=hang"))
    (passed,) = (line for line in story if "the saga's deadline passed" in line)
    assert ("it runs on; missing: dance.done of last/finish" in passed) == (overdue == "report")
    assert f"ended: {verdict}" in story[-1]


@pytest.mark.parametrize(("verb", "verdict"), [("done", "compensated"), ("skip", "abandoned"), ("abandon", "abandoned")])
def test_a_person_decides_about_an_undo_that_failed_for_good(verb: str, verdict: str) -> None:
    history = f"no;undo:left/go_left#1=fail,parked:left/go_left#1={verb}"
    outcome, story = replay(dances.fork_and_join(), job_of(history))
    assert (outcome.violations, outcome.verdicts) == ((), (verdict,))
    assert any(f"operator                           {verb}" in line for line in story)


@pytest.mark.parametrize("verb", ["done", "skip", "abandon"])
def test_a_person_decides_about_a_step_that_failed_after_the_pivot(verb: str) -> None:
    faults = f"do:join/finish#1=fail,parked:join/finish#1={verb}"
    outcome, story = replay(dances.point_of_no_return(), job_of(f"to the end;{faults}"))
    assert (outcome.violations, outcome.verdicts) == ((), ("abandoned",))
    assert sum("call returned" in line and "join/finish" in line for line in story) == (verb == "done")


def test_what_is_abandoned_is_judged_by_what_is_said_to_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(plan: Plan, history: History) -> tuple[Unit, ...]:
        return ()

    monkeypatch.setattr(world, "standing", nothing)
    player = Player(dances.fork_and_join(), "none")
    try:
        outcome = player.play(job_of("no;undo:left/go_left#1=fail,parked:left/go_left#1=skip"))
    finally:
        player.close()
    assert [each.code for each in outcome.violations] == ["effect.unlisted"]


@sources_only
def test_what_nothing_undoes_is_among_what_is_said_to_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("to the end;do:join/finish#1=fail,parked:join/finish#1=abandon")
    assert replay(dances.point_of_no_return(), job)[0].violations == ()

    def owed_only(view: View, unit: Unit) -> bool:
        return unit in view.owing

    monkeypatch.setattr(View, "may_stand", owed_only)
    outcome, _ = replay(dances.point_of_no_return(), job)
    assert [str(each) for each in outcome.violations] == [
        "effect.unlisted: the saga is abandoned, join/thank stands, and nobody is told of it"
    ]


@pytest.mark.parametrize("times", [1, 3])
def test_an_undo_that_hangs_is_cancelled_and_tried_again(times: int) -> None:
    hangs = ",".join(f"undo:left/go_left#{number}=hang" for number in range(1, times + 1))
    outcome, story = replay(dances.fork_and_join(), job_of(f"no;{hangs}"))
    assert outcome.violations == ()
    assert [line[:11] for line in story if "undo raised no answer in time" in line] == [
        "   10.000 s",
        "   20.010 s",
        "   30.030 s",
    ][:times]
    assert any("undo failed: attempts.exhausted" in line for line in story) == (times == 3)
    assert any("operator" in line for line in story) == (times == 3)
    assert any("ended: compensated" in line for line in story)


def test_an_undo_that_fails_after_its_effect_is_parked_and_then_done_again() -> None:
    outcome, story = replay(dances.fork_and_join(), job_of("no;undo:left/go_left#1=fail-after"))
    assert outcome.violations == ()
    assert any("undo failed: attempts.exhausted" in line for line in story)
    assert any("ended: compensated" in line for line in story)


def test_a_reconciliation_that_hangs_is_cancelled_and_asked_again() -> None:
    outcome, story = replay(dances.asked_whether(), job_of("no;do:payment/charge#1=fail-after,ask:payment/charge#1=hang"))
    assert outcome.violations == ()
    assert any("did it happen? raised no answer in time" in line for line in story)
    assert any("did it happen?, attempt 2" in line for line in story)


def test_what_may_hang_for_ever_is_named() -> None:
    report = verify(dances.asked_whether(), histories=2)
    assert report.unbounded == ["the undo of payment/charge"]
    assert report.lines()[-1] == "not tried, as no `within` would end it: a hang of the undo of payment/charge"
    assert verify(credit, histories=1).unbounded == []


def test_an_undo_has_some_time_or_is_not_bounded() -> None:
    agent = Agent("hasty")

    @agent.step
    async def act(begun: Begun) -> None: ...

    async def undo(begun: Begun, done: None) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        act.compensate(within=timedelta(0))(undo)
    assert [problem.code for problem in caught.value.problems] == ["step.within"]


def test_what_an_agent_hears_after_the_deadline_came_too_late() -> None:
    """And everything else still holds."""
    outcome, story = replay(dances.fork_and_join(), job_of("to the end;late:join dance.left#1=late"))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    outcome, story = replay(dances.fork_and_join(), job_of("to the end;late:join dance.left#1=late-past"))
    assert (outcome.violations, outcome.verdicts) == ((), ("compensated",))
    assert any("comes only when a saga's deadline has come" in line for line in story)


@pytest.mark.parametrize("topic", ["dance.left", "dance.right", "dance.done"])
def test_what_the_coordinator_hears_after_the_deadline_counts_as_of_when_it_was_said(topic: str) -> None:
    """Its lag fails no saga: before a deadline fires it reads what lay there when the time came."""
    outcome, _ = replay(dances.fork_and_join(), job_of(f"to the end;late:pavane.coordinator {topic}#1=late-past"))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    assert outcome.struck


@pytest.mark.parametrize("action", ["twice", "twice-late"])
def test_what_lies_on_the_intake_twice_starts_one_saga(action: str) -> None:
    outcome, story = replay(dances.fork_and_join(), job_of(f"to the end;intake:dance.intake#1={action}"))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    assert sum("says dance.asked" in line for line in story) == 1


def test_an_answer_that_was_there_in_time_counts_however_late_the_coordinator_looks() -> None:
    """It is heard of when it has come round, and the deadline waits for that, too."""
    outcome, story = replay(dances.asks_a_person(), job_of("yes;late:pavane.coordinator dance.intake#2=late-past"))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    assert not any("nobody outside answered" in line for line in story)


def test_what_comes_a_receive_later_is_tried_alone_and_by_lot() -> None:
    verification = dances.slow_and_late()
    survey = Explorer(verification, Alone(verification), Bounds(histories=300), Survey(seed=0)).run()
    alone = survey.singles
    with Memory(verification) as memory:
        singles = memory.beyond([Job("to the end")])
    late = sum(job.faults[0].action == "late" for job, _ in singles)
    assert alone == len(singles) + 3 * late
    outcome, story = replay(dances.fork_and_join(), job_of("to the end;late:join dance.left#1=late-1"))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    assert any("comes one receive later" in line for line in story)


def test_a_history_is_a_function_of_its_name() -> None:
    jobs = [Job("declined", seed=f"0/{number}") for number in range(30)]
    first, second = Player(credit, "none"), Player(credit, "none")
    try:
        struck = [first.play(job).struck for job in jobs]
        assert [second.play(job).struck for job in reversed(jobs)][::-1] == struck
        assert any(len(faults) > 2 for faults in struck)
    finally:
        first.close()
        second.close()


STATES = """
from pavane.simulation.player import Job, Player
from pavane_credit.verification import credit
player = Player(credit, "none")
print(*(state for _, state in player.play(Job("approved", look=True)).ahead))
player.close()
"""


def test_a_state_is_the_same_in_every_process() -> None:
    seeded = {**os.environ, "PYTHONHASHSEED": "0"}
    said = [subprocess.check_output([sys.executable, "-c", STATES], env=seeded) for _ in range(2)]
    assert len(said[0].split()) > 50
    assert said[0] == said[1]


def fenced() -> Verification:
    """One step with a fence, and one set of effects for all sagas."""
    stand: set[str] = set()
    undone: set[str] = set()
    agent = Agent("only")

    @agent.step
    async def act(begun: Begun, ctx: Context) -> Over:
        if ctx.idempotency_key in undone:
            raise EffectUndone(ctx.idempotency_key)
        stand.add(ctx.idempotency_key)
        return Over()

    @act.compensate
    async def take_back(begun: Begun, done: Over | None, ctx: Context) -> None:
        undone.add(ctx.idempotency_key)
        stand.discard(ctx.idempotency_key)

    def as_it_ended(history: HistoryPlayed) -> None:
        assert len(stand) == sum(saga.verdict == "completed" for saga in history.sagas)

    return Verification(
        agents=[agent],
        sagas=[Saga("v", starts=Begun, completes=Over, intake="v.intake")],
        starts={"only": Begun()},
        invariant=as_it_ended,
        reset=stand.clear,
    )


@pytest.mark.parametrize("number", [1, 2])
def test_a_zombie_that_waits_to_try_again_does_so_in_its_own_history(number: int) -> None:
    player = Player(fenced(), "none")
    try:
        first = player.play(job_of(f"only;turn:only#1=zombie,do:only/act#{number}=fail-once"))
        second = player.play(job_of("only;do:only/act#1=fail-after,turn:only#6=taken"))
    finally:
        player.close()
    assert (first.violations, first.verdicts) == ((), ("completed",))
    assert (second.violations, second.verdicts) == ((), ("compensated",))


def test_what_a_zombie_does_when_its_saga_has_ended_is_told_and_judged() -> None:
    history = "only;turn:only#1=zombie,do:only/act#1=fail-once,do:only/act#3=fail-after"
    outcome, story = replay(fenced(), job_of(history))
    assert (outcome.violations, outcome.verdicts) == ((), ("completed",))
    ended = next(place for place, line in enumerate(story) if "ended: completed" in line)
    assert any("call no. 3: has its effect, then fails" in line for line in story[ended:])
    assert "call, attempt 4" in story[-2]


@pytest.mark.parametrize("faults", ["turn:pavane.coordinator#6=zombie", "turn:only#1=zombie,do:only/act#1=crash-after"])
def test_nobody_of_a_history_is_left_in_the_next(faults: str) -> None:
    next_points: list[list[Point]] = []
    for before in ("turn:pavane.coordinator#6=taken", faults):
        player = Player(fenced(), "none")
        try:
            assert player.play(job_of(f"only;{before}")).struck == read_faults(before)
            next_points.append([point for point, _ in player.play(Job("only", look=True)).ahead])
        finally:
            player.close()
    assert next_points[0] == next_points[1]


class Memory:
    """Plays each history once, and remembers what came of it, and which was played in its stead."""

    def __init__(self, verification: Verification) -> None:
        self.verification = verification
        self._player = Player(verification, "none")
        self._outcomes: dict[Job, Outcome] = {}
        self._seen: dict[Branch, Job] = {}

    def play(self, job: Job) -> Outcome:
        if job not in self._outcomes:
            self._outcomes[job] = self._player.play(replace(job, look=True))
        return self._outcomes[job]

    def beyond(self, jobs: Iterable[Job]) -> list[tuple[Job, Job]]:
        """Each history with one fault more than these, beside the one that is played in its stead: often itself."""
        found: list[tuple[Job, Job]] = []
        for job in jobs:
            for point, state in self.play(job).ahead:
                for action in self.verification.possible.at(point):
                    more = Job(job.scenario, (*job.faults, Fault(point, action)))
                    found.append((more, self._seen.setdefault((job.scenario, state, point.what, point.where, action), more)))
        return found

    def classes(self, jobs: Iterable[Job]) -> set[tuple[object, object]]:
        """How these end, and what is wrong with them."""
        outcomes = [self.play(job) for job in jobs]
        return {(each.verdicts, tuple(one.code for one in each.violations)) for each in outcomes}

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self._player.close()


@pytest.mark.parametrize("dance", ["slow and late", "an upgrade in mid-saga", "asks a person"])
def test_what_is_skipped_comes_to_what_was_played(dance: str) -> None:
    verification, lot = DANCES[dance](), random.Random(0)
    with Memory(verification) as memory:
        singles = memory.beyond([Job(name) for name in verification.scenarios])
        firsts = [job for job, played in singles if job is played]
        pairs = memory.beyond(lot.sample(firsts, 50))
        skipped = [(job, played) for job, played in pairs if job is not played]
        for job, played in lot.sample(skipped, 50):
            assert memory.classes([job]) == memory.classes([played]), f"{played} was played for {job}"


def test_exploring_finds_every_way_of_being_wrong_that_playing_everything_finds() -> None:
    lot = random.Random(0)
    with Memory(forgetful()) as memory:
        singles = memory.beyond([Job("only")])
        pairs = memory.beyond(job for job, _ in lot.sample(singles, 30))
        played = [job for job, instead in pairs if job is instead]
        skipped = [job for job, instead in pairs if job is not instead]
        ways = memory.classes(lot.sample(skipped, 100))
        assert len(ways) == 3
        assert ways <= memory.classes(lot.sample(played, 100))


def test_what_has_struck_and_not_shown_yet_is_another_state() -> None:
    told: list[tuple[Callable[[], Verification], str, str, list[str]]] = [
        (dances.slow_and_late, "to the end", "do:last/finish#1", ["hang", "fail-after", "crash-after"]),
        (lambda: dances.fork_and_join(next_version=True), "to the end", "turn:right#2", ["upgrade"]),
        (dances.asks_a_person, "yes", "answer:dance.left#1", ["never", "too-late"]),
        (dances.slow_and_late, "to the end", "late:last dance.met#1", ["late"]),
        (dances.slow_and_late, "to the end", "late:pavane.coordinator dance.met#1", ["late"]),
    ]
    for made, scenario, point, actions in told:
        player = Player(made(), "none")
        try:
            jobs = [Job(scenario, read_faults(f"{point}={action}"), look=True) for action in actions]
            states = [[state for _, state in player.play(job).ahead] for job in jobs]
            unharmed = [state for _, state in player.play(Job(scenario, look=True)).ahead]
        finally:
            player.close()
        assert all(first[0] not in unharmed for first in states), point
        assert len({first[0] for first in states}) == len(actions), point


def test_what_is_written_down_is_read_again() -> None:
    faults = (
        Fault(Point("do", "credit-score/compute_score", 1), "crash-after"),
        Fault(Point("late", "approval credit.risk-ready", 2), "late"),
    )
    assert read_faults(write_faults(faults)) == faults
    assert job_of("declined;" + write_faults(faults)) == Job("declined", faults)
    assert job_of("declined;lot 0/17") == Job("declined", seed="0/17")
    assert job_of("declined") == Job("declined")
    for job in (
        Job("declined", lanes=2),
        Job("declined", faults, after=3, lanes=2, first=1),
        Job("declined", seed="0/17", lanes=12, first=11),
        Job("declined", (Fault(Point("turn", "approval/1", 2), "zombie"),), lanes=2),
        Job("declined", (Fault(Point("late", "approval/1 credit.risk-ready", 2), "late-past"),), lanes=2),
    ):
        assert job_of(str(job)) == job


def test_a_history_that_cannot_be_read_is_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_faults("do:a/b#1=explode,nonsense")
    assert [problem.where for problem in caught.value.problems] == ["do:a/b#1=explode", "nonsense"]
    with pytest.raises(ConfigurationError, match="there are 2, and their numbers begin at 0: none is 2"):
        job_of("declined;lanes 2 from 2")
    with pytest.raises(ConfigurationError, match="that is no fault"):
        job_of("declined;lanes many")


def test_a_history_that_cannot_come_about_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there are approved, declined"):
        replay(credit, job_of("approbed"))
    with pytest.raises(ConfigurationError, match="it never comes to that"):
        replay(credit, job_of("approved;undo:approval/decide#1=fail"))


class Begun(Event, type="v.begun"):
    n: int = 0


class Over(Event, type="v.over"):
    n: int = 0


def forgetful() -> Verification:
    """An undo that forgets: the effect of a step that failed after it stands for ever."""
    standing: set[str] = set()
    agent = Agent("forgetful")

    @agent.step
    async def act(begun: Begun, ctx: Context) -> Over:
        standing.add(ctx.idempotency_key)
        return Over()

    @act.compensate
    async def take_back(begun: Begun, done: Over | None, ctx: Context) -> None:
        if done is not None:
            standing.discard(ctx.idempotency_key)

    def nothing_stands(history: HistoryPlayed) -> None:
        for saga in history.sagas:
            assert saga.verdict == "completed" or not standing, "an effect stands in a saga that is compensated"

    return Verification(
        agents=[agent],
        sagas=[Saga("v", starts=Begun, completes=Over, intake="v.intake")],
        starts={"only": Begun()},
        invariant=nothing_stands,
        reset=standing.clear,
    )


FORGETFUL = forgetful()


def test_a_bug_is_told_as_the_shortest_history_that_shows_it() -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify(forgetful(), histories=500)
    (finding,) = caught.value.report.findings
    assert finding.code == "invariant"
    assert len(job_of(finding.replay).faults) == 1
    assert "an effect stands in a saga that is compensated" in str(caught.value)
    assert "undo, attempt 1, nothing known of its answer" in str(caught.value)
    assert "ended: compensated" in str(caught.value)
    last = str(caught.value).splitlines()[-1]
    assert last == f"seed 0; play it again: pavane verify MODULE:VERIFICATION --replay '{finding.replay}'"


def test_where_a_verification_has_a_name_its_failure_says_how_to_play_it_again() -> None:
    with pytest.raises(VerificationFailed, match=r"seed 3; play it again: pavane verify unit.test_verify:FORGETFUL --replay"):
        verify("unit.test_verify:FORGETFUL", histories=500, seed=3)


def test_what_cannot_be_verified_is_refused_with_every_reason() -> None:
    agent = Agent("somebody")
    with pytest.raises(DeclarationError) as caught:
        Verification(agents=[], sagas=[], starts={"empty": (), "unknown": Begun()}, next_versions=[agent])
    assert {problem.code for problem in caught.value.problems} == {"verify.empty", "verify.version", "verify.starts"}
    elsewhere = Saga("v", starts=Begun, completes=Over, intake="v.elsewhere")
    with pytest.raises(DeclarationError) as caught:
        replace(forgetful(), next_sagas=[elsewhere])
    assert [problem.code for problem in caught.value.problems] == ["verify.version"]


@pytest.mark.parametrize("name", ["", " a", "a ", "a;b", "a + b", "+ a", "a +", "+", "a\nb", "a\x1b[31mb", "a;lot 0/1"])
def test_a_scenario_has_a_name_with_which_a_history_is_written(name: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(forgetful(), starts={name: Begun(), "fine": Begun()})
    assert [(problem.where, problem.code) for problem in caught.value.problems] == [(f"starts[{name!r}]", "verify.name")]


@pytest.mark.parametrize("name", ["a+b", "it's a, b & c", "lanes 2", "lot 0/1", "zu spät"])
def test_a_history_of_any_other_name_is_read_as_it_was_written(name: str) -> None:
    verification = replace(forgetful(), starts={name: Begun(), "fine": Begun()})
    for job in (Job(name), Job(f"{name} + fine", seed="0/1", lanes=2, first=1), Job(f"fine + {name}", after=3)):
        assert job_of(str(job)) == job
        replay(verification, job)


class Needed(Event, type="v.needed"):
    n: int = 0


def test_agents_between_which_something_is_missing_are_refused_as_pavane_check_says() -> None:
    """Nothing was ever let in, and everybody waited for that for ever."""
    agent, doubled = Agent("one"), forgetful()

    @agent.step(effects=False)
    async def act(begun: Begun) -> Needed:
        return Needed()

    missing = replace(forgetful(), agents=[agent])
    for refused in (lambda: verify(missing, histories=5), lambda: replay(missing, job_of("only"))):
        with pytest.raises(DeclarationError, match=r"v can never complete: from v\.begun nothing leads to v\.over") as caught:
            refused()
        assert [problem.code for problem in caught.value.problems] == ["completes.unreachable"]
    with pytest.raises(DeclarationError) as caught:
        verify(replace(doubled, agents=[*doubled.agents, *doubled.agents]), histories=5)
    assert [problem.code for problem in caught.value.problems] == ["agent.doubled"]


def test_an_alternative_that_nobody_gives_is_named() -> None:
    agent = Agent("one")

    @agent.step(effects=False)
    async def act(begun: Begun | Needed) -> Over:
        return Over()

    with pytest.raises(DeclarationError, match=r"v\.needed: .*nobody gives it") as caught:
        verify(replace(forgetful(), agents=[agent]), histories=5)
    assert [problem.code for problem in caught.value.problems] == ["event.unproduced"]


def test_a_history_holds_each_event_of_its_sagas_once() -> None:
    heard: list[tuple[int, int]] = []

    def count(history: HistoryPlayed) -> None:
        for saga in history.sagas:
            assert saga.start == Begun(n=7)
            heard.append((len(saga.said(Begun)), len(saga.said(Over))))

    verify(replace(forgetful(), starts={"only": Begun(n=7)}, invariant=count), histories=1)
    assert heard == [(1, 1)]


def test_a_reset_that_raises_is_said_to_be_at_fault() -> None:
    def reset() -> None:
        raise OSError("no such table")

    with pytest.raises(UnfitVerification, match="reset raised OSError: no such table"):
        verify(replace(forgetful(), reset=reset), histories=1)


def test_a_step_that_opens_a_connection_is_told_why_it_cannot() -> None:
    agent = Agent("dialler")

    @agent.step(effects=False)
    async def dial(begun: Begun) -> Over:
        await asyncio.open_connection("127.0.0.1", 1)
        return Over()

    verification = Verification(
        agents=[agent], sagas=[Saga("v", starts=Begun, completes=Over, intake="v.intake")], starts={"only": Begun()}
    )
    with pytest.raises(VerificationFailed, match="no network"):
        verify(verification, histories=5)


def test_the_orders_of_the_how_to_keep_money_as_the_how_to_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/verify.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    for number, (forgetful, faults) in enumerate([(True, 1), (False, 2)]):
        source = program if forgetful else program.replace("    if done is not None:\n        kept", "    kept")
        verification = _loaded(tmp_path / f"orders_{number}.py", source)
        with pytest.raises(VerificationFailed, match="compensated, and 9999 cents were kept") as caught:
            verify(verification, histories=1_000)
        replayed = caught.value.report.findings[0].replay
        assert len(job_of(replayed).faults) == faults
        assert replayed in page


def _loaded(path: Path, source: str) -> Verification:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # annotations are looked up there
    spec.loader.exec_module(module)
    found = vars(module)["verification"]
    assert isinstance(found, Verification)
    return found


def test_a_process_of_several_plays_without_the_collector_for_as_long_as_it_lives() -> None:
    """It looked through a whole world between any two histories, and took twice as long."""
    settled = (crew.settle_in, ("pavane_credit.verification:credit", load_verification))
    with multiprocessing.get_context("spawn").Pool(1, *settled) as pool:
        assert pool.apply(gc.collect) >= 0
        assert not pool.apply(gc.isenabled)


def test_worlds_that_are_over_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one stayed for good: 6 MB for some hundred histories of the credit decision, in every process that plays."""
    made: list[weakref.ref[world.World]] = []

    def noted(*arguments: Any, **named: Any) -> world.World:
        found = world.World(*arguments, **named)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(player, "World", noted)
    monkeypatch.setattr(player, "WORLD_LASTS", 4)
    monkeypatch.setattr(player, "TRACED_LASTS", 4)
    with player.alone():
        playing = Player(replace(forgetful(), starts={"only": Begun(n=7)}))
        for number in range(60):
            playing.play(Job("only", seed=str(number)))
        playing.close()
        alive = sum(each() is not None for each in made)
    assert len(made) > 12
    assert alive <= 2


def one_step(act: Callable[[], None], undo: Callable[[], None] = lambda: None) -> Verification:
    """A saga of one step, which does that, and its undo that."""
    agent = Agent("one")

    @agent.step
    async def step(begun: Begun) -> Over:
        act()
        return Over()

    @step.compensate(within=timedelta(seconds=30))
    async def take_back(begun: Begun, done: Over | None) -> None:
        undo()

    return Verification(
        agents=[agent], sagas=[Saga("v", starts=Begun, completes=Over, intake="v.intake")], starts={"only": Begun()}
    )


def leaves() -> None:
    sys.exit(0)


def leaves_with(history: HistoryPlayed) -> None:
    leaves()


STARTED: list[asyncio.Task[None]] = []


def left_running() -> None:
    async def leave() -> None:
        leaves()

    STARTED.append(asyncio.get_running_loop().create_task(leave()))


def nothing_at_all() -> None: ...


def skips(history: HistoryPlayed) -> None:
    pytest.skip("not today")


LEAVING: Mapping[str, tuple[Callable[[], Verification], str]] = {
    "a step": (lambda: one_step(leaves), r"stuck: one died: ProcessEnded: one/step called sys\.exit\(0\)"),
    "an undo": (lambda: one_step(nothing_at_all, leaves), r"one/step called sys\.exit\(0\)"),
    "what a step left running": (lambda: one_step(left_running), "a step had left running ended: SystemExit: 0"),
    "an invariant": (
        lambda: replace(one_step(nothing_at_all), invariant=leaves_with),
        "invariant: it raised SystemExit: 0",
    ),
    "an invariant that skips": (
        lambda: replace(one_step(nothing_at_all), invariant=skips),
        "invariant: it raised Skipped: not today",
    ),
}


@pytest.mark.parametrize("who", LEAVING)
def test_who_would_end_the_process_has_not_passed(who: str) -> None:
    """It ended `pavane verify` with the code of its own, 0 too, and nothing was played."""
    made, words = LEAVING[who]
    with pytest.raises(VerificationFailed, match=words):
        verify(made(), histories=100)


def test_the_copy_of_a_step_that_forks_does_not_play_on(capfd: pytest.CaptureFixture[str]) -> None:
    """It played what there was to play, too, and said so beside the other."""
    copies: list[int] = []
    verify(one_step(lambda: copies.append(os.fork())), histories=1)
    for copy in copies:
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 1
    told = "one/step called os.fork, and its copy came back from it: the copy is ended"
    assert copies
    assert capfd.readouterr().err.splitlines() == [told] * len(copies)


@contextmanager
def closed() -> Generator[None]:
    sys.exit(0)
    yield


@contextmanager
def never_left() -> Generator[None]:
    yield
    sys.exit(0)


def no_event(asked: Event) -> Event:
    return cast("Event", None)


@pytest.mark.parametrize(
    ("brought", "words"),
    [
        ({"reset": leaves}, "reset raised SystemExit: 0"),
        ({"around": closed}, "around raised SystemExit: 0"),
        ({"around": never_left}, "around raised SystemExit: 0"),
        ({"answers": [Answer(Over, lambda asked: sys.exit(0))]}, r"the answer to v\.over raised SystemExit: 0"),
        ({"answers": [Answer(Over, no_event)]}, r"the answer to v\.over raised TypeError: it gave NoneType, no event"),
    ],
)
def test_what_a_verification_brings_along_and_ends_the_process_is_at_fault(brought: dict[str, Any], words: str) -> None:
    with pytest.raises(UnfitVerification, match=words):
        verify(replace(one_step(nothing_at_all), **brought), histories=1)


def interrupted() -> None:
    raise KeyboardInterrupt


def interrupted_with(history: HistoryPlayed) -> None:
    interrupted()


def test_a_ctrl_c_ends_it_wherever_it_strikes() -> None:
    with pytest.raises(KeyboardInterrupt):
        verify(one_step(interrupted), histories=1)
    with pytest.raises(KeyboardInterrupt):
        verify(replace(one_step(nothing_at_all), invariant=interrupted_with), histories=1)
    with pytest.raises(KeyboardInterrupt):
        verify(replace(one_step(nothing_at_all), reset=interrupted), histories=1)
    verify(one_step(nothing_at_all), histories=1)


def deaf() -> Verification:
    """A step that no cancellation ends."""
    agent = Agent("deaf")

    @agent.step(within=timedelta(seconds=5))
    async def act(begun: Begun) -> Over:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1_000)

    @act.compensate
    async def take_back(begun: Begun, done: Over | None) -> None: ...

    return replace(one_step(nothing_at_all), agents=[agent])


def restless() -> Verification:
    """A step that goes round without a pause, whoever cancels it."""
    agent = Agent("restless")

    @agent.step(effects=False, within=timedelta(seconds=5))
    async def act(begun: Begun) -> Over:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    return replace(one_step(nothing_at_all), agents=[agent])


def test_a_step_that_never_ends_is_named() -> None:
    """Whoever took its world down waited for it for ever; and the spans of the process went to its service ever after."""
    before = process_routes().services()
    with pytest.raises(VerificationFailed, match="stuck: it did not come to its end; deaf/act had not ended"):
        verify(deaf(), histories=5)
    assert process_routes().services() == before


def test_a_step_that_never_pauses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_TURNS", 2_000)
    with pytest.raises(VerificationFailed, match=r"stuck: something goes on without a pause.*; restless/act had not ended"):
        verify(restless(), histories=5)


def test_an_agent_that_does_not_end_is_at_fault() -> None:
    verification = one_step(nothing_at_all)
    (agent,) = verification.agents

    @agent.lifespan
    async def never_over() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.get_running_loop().create_future()

    with pytest.raises(UnfitVerification, match="one did not end when cancelled"):
        verify(verification, histories=1)


def test_what_somebody_cannot_do_by_hand_either_he_has_tried_again() -> None:
    """It ended the verification with what the undo raises."""
    called: list[None] = []

    def undo() -> None:
        called.append(None)
        if len(called) == 1:
            raise OSError("the bank is closed")

    history = "only;do:one/step#1=fail-after,undo:one/step#1=fail,parked:one/step#1=done"
    outcome, story = replay(replace(one_step(nothing_at_all, undo), reset=called.clear), job_of(history))
    assert (outcome.violations, outcome.verdicts) == ((), ("compensated",))
    assert any("operator                           retry" in line for line in story)


def test_an_agent_that_does_not_start_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "STARTS_S", 60.0)
    verification = one_step(nothing_at_all)
    (agent,) = verification.agents

    @agent.lifespan
    async def never_there() -> AsyncGenerator[None]:
        await asyncio.get_running_loop().create_future()
        yield

    with pytest.raises(
        UnfitVerification, match=r"nothing can be played: v\.intake never opens, no agent of its saga may be missing"
    ):
        verify(verification, histories=1)


@pytest.mark.parametrize(("name", "how"), [("killed", "by SIGKILL (has the machine enough memory?)"), ("gone", "with code 0")])
def test_a_process_of_several_that_ends_is_told_with_the_history_that_it_played(name: str, how: str) -> None:
    """The others waited for it for ever."""
    with pytest.raises(PlayerLost) as caught:
        verify(f"unit.lost_players:{name}", histories=100, processes=2)
    assert str(caught.value).startswith(f"a process that played has ended {how}, in this history: only;")
    assert caught.value.job is not None
    assert str(caught.value).splitlines()[1] == (
        f"play it again: pavane verify unit.lost_players:{name} --replay '{caught.value.job}'"
    )
    assert multiprocessing.active_children() == []


def test_several_processes_say_what_one_says() -> None:
    with pytest.raises(VerificationFailed, match=r"only/act called sys\.exit\(0\)"):
        verify("unit.lost_players:leaves", histories=100, processes=2)
    with pytest.raises(UnfitVerification, match="reset raised OSError: no such table"):
        verify("unit.lost_players:unfit", histories=100, processes=2)
    alone, together = (verify("unit.cli_verified:sound", histories=300, processes=processes) for processes in (1, 2))
    assert {**together.stages} == {**alone.stages}
    assert multiprocessing.active_children() == []


class Unsendable(Exception):
    def __init__(self, one: str, another: str) -> None:
        super().__init__(f"{one} and {another}")


def fails_in_a_process(name: str) -> Verification:
    raise Unsendable("this", "that")


def leaves_in_a_process(name: str) -> Verification:
    os._exit(3)


def test_a_process_in_which_the_verification_cannot_be_found_says_why() -> None:
    with pytest.raises(UnfitVerification, match="raised Unsendable: this and that"):
        list(Several("anywhere", 1, fails_in_a_process).play([Job("only")]))
    with pytest.raises(PlayerLost, match="with code 3, before it had played anything"):
        list(Several("anywhere", 1, leaves_in_a_process).play([Job("only")]))
