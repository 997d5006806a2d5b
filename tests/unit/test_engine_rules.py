"""The rules of the saga engine, one by one (DESIGN, section 5). Facts in, commands out: no bus, no clock."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from pavane_events.envelope import Envelope
from pavane_saga.commands import Command, End, Grant, Halt, Park, Undo
from pavane_saga.engine import decide, due, failure, open_debts, standing, status, undo_owed, unseen
from pavane_saga.facts import (
    Decided,
    Declared,
    Ended,
    Fact,
    Fired,
    Granted,
    Happened,
    How,
    Settled,
    StepPlan,
    UndoFailed,
    Undone,
    Verb,
    fact_from_json,
)
from pavane_saga.history import History, Plan
from pavane_saga.view import Debt

VERSION = "trip@1"


def step(name: str, *consumes: str, produces: str = "", effects: bool = True, observer: bool = False) -> StepPlan:
    """A step's plan; ``"a|b"`` is a parameter that takes either."""
    return StepPlan(
        name, tuple(tuple(each.split("|")) for each in consumes), tuple(produces.split()), effects, observer=observer
    )


def plan_of(*steps: StepPlan, since: Sequence[tuple[str, int]] = ()) -> Plan:
    """A plan from ``asked`` to ``confirmed``, which ``refused`` turns back."""
    declared = Declared("trip", VERSION, steps, tuple(since))
    return Plan("trip", "asked", "confirmed", frozenset({"refused"}), {"trip": declared})


def event(
    id: str,  # noqa: A002
    by: str | None = None,
    on: str = "",
    *,
    type: str | None = None,  # noqa: A002
    part: int = 1,
    parts: int = 1,
    depth: int = 0,
    offset: int = 0,
    declaration: str | None = VERSION,
) -> Happened:
    """An event called as its type, unless said otherwise; ``on`` names its causes."""
    causes = tuple(sorted(on.split()))
    return Happened(
        id, type or id, by, causes, part, parts, offset, declaration if by else None, depth, b'{"id":"%s"}' % id.encode()
    )


def settled(by: str, on: str, how: How, *, began: bool = True, code: str = "") -> Settled:
    return Settled(by, tuple(sorted(on.split())), how, began=began, code=code, declaration=VERSION)


def undone(by: str, on: str) -> Undone:
    return Undone(by, tuple(sorted(on.split())))


def undo(by: str, on: str) -> Undo:
    """The command to undo; outputs and outcome are no part of what it is."""
    return Undo(by, tuple(sorted(on.split())), (), "unknown")


class Saga:
    """One saga on its way: tell it facts, see what it commands."""

    def __init__(self, plan: Plan, *facts: Fact) -> None:
        self.plan = plan
        self.history = History()
        self.tell(*facts)

    def tell(self, *facts: Fact) -> tuple[Command, ...]:
        """The commands that become due with these facts, told together."""
        self.history, commands = decide(self.plan, self.history, facts)
        return commands

    @property
    def status(self) -> str:
        return status(self.plan, self.history)

    @property
    def debts(self) -> list[tuple[str, str, bool]]:
        """The open ones: event, step, whether it waits."""
        return [(debt.event, debt.step, debt.waiting) for debt in open_debts(self.plan, self.history)]


def undos(commands: Iterable[Command]) -> list[tuple[str, str]]:
    return [(command.step, command.outcome) for command in commands if isinstance(command, Undo)]


HALT = Halt("", "")
COMPENSATED = End("compensated")
COMPLETED = End("completed")

FLIGHT = step("trip/flight", "asked", produces="booked")
HOTEL = step("trip/hotel", "asked", produces="roomed")
PAY = step("trip/pay", "booked", "roomed", produces="paid")
CONFIRM = step("trip/confirm", "paid", produces="confirmed refused", effects=False)
TRIP = plan_of(FLIGHT, HOTEL, PAY, CONFIRM)

ASKED = event("asked")
BOOKED = event("booked", "trip/flight", "asked", depth=1)
ROOMED = event("roomed", "trip/hotel", "asked", depth=1)
PAID = event("paid", "trip/pay", "booked roomed", depth=2)
CONFIRMED = event("confirmed", "trip/confirm", "paid", depth=3)
REFUSED = event("refused", "trip/confirm", "paid", depth=3)
NO_ROOM = settled("trip/hotel", "asked", "failed", code="sold-out")
NO_FLIGHT = settled("trip/flight", "asked", "failed", code="grounded")


class TestOwedAnswers:
    def test_every_event_opens_one_debt_per_step_that_consumes_it(self) -> None:
        assert Saga(TRIP, ASKED).debts == [("asked", "trip/flight", False), ("asked", "trip/hotel", False)]

    def test_observers_owe_nothing(self) -> None:
        plan = plan_of(FLIGHT, step("trip/tell", "asked", observer=True))
        assert Saga(plan, ASKED).debts == [("asked", "trip/flight", False)]

    def test_an_output_settles_the_debts_of_all_its_causes(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED)
        assert saga.debts == [("booked", "trip/pay", False), ("roomed", "trip/pay", False)]
        saga.tell(PAID)
        assert saga.debts == [("paid", "trip/confirm", False)]

    @pytest.mark.parametrize("how", ["done", "failed", "skipped"])
    def test_a_fact_settles_a_debt_too(self, how: How) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED)
        saga.tell(settled("trip/flight", "asked", how))
        assert saga.debts == []

    def test_an_answer_with_a_part_missing_settles_nothing_yet(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED, replace(BOOKED, parts=2))
        assert saga.debts == [("asked", "trip/flight", False)]
        saga.tell(event("luggage", "trip/flight", "asked", part=2, parts=2))
        assert saga.debts == []

    def test_an_arm_waits_while_its_join_is_not_filled(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED)
        assert ("booked", "trip/pay", True) in saga.debts
        saga.tell(ROOMED)
        assert ("booked", "trip/pay", False) in saga.debts

    def test_a_second_event_on_an_arm_does_not_wait_it_is_refused(self) -> None:
        again = event("booked-again", "trip/flight", "asked", type="booked", part=2, parts=2)
        saga = Saga(TRIP, ASKED, replace(BOOKED, parts=2), again)
        assert ("booked-again", "trip/pay", False) in saga.debts

    def test_a_second_event_after_the_join_was_called_does_not_wait(self) -> None:
        again = event("roomed-again", "trip/hotel", "asked", type="roomed", part=2, parts=2)
        saga = Saga(TRIP, ASKED, BOOKED, replace(ROOMED, parts=2), PAID, CONFIRMED)
        assert saga.tell(again) == ()
        assert saga.debts == [("roomed-again", "trip/pay", False)]
        refusal = settled("trip/pay", "roomed-again", "failed", began=False, code="join.arm-filled")
        assert HALT in saga.tell(refusal)

    def test_debts_follow_the_lane_events_before_the_declared_offset_owe_nothing(self) -> None:
        plan = plan_of(FLIGHT, since=[("asked", 7)])
        assert Saga(plan, replace(ASKED, offset=6)).debts == []
        assert Saga(plan, replace(ASKED, offset=7)).debts == [("asked", "trip/flight", False)]

    def test_a_debt_names_the_event_its_type_and_who_owes_the_answer(self) -> None:
        assert open_debts(plan_of(FLIGHT), Saga(plan_of(FLIGHT), ASKED).history) == (
            Debt("asked", "asked", "trip/flight", waiting=False),
        )


class TestStrongestSettlement:
    def test_done_after_failed_is_undone_with_its_outputs(self) -> None:
        saga = Saga(TRIP, ASKED, NO_FLIGHT, BOOKED)
        commands = saga.tell(settled("trip/hotel", "asked", "skipped"), settled("trip/pay", "booked", "skipped"))
        assert commands == (undo("trip/flight", "asked"),)
        assert isinstance(commands[0], Undo)
        assert (commands[0].outputs, commands[0].outcome) == (("booked",), "done")

    def test_done_after_failed_leaves_the_saga_turned_back(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED)
        assert saga.tell(NO_FLIGHT) == (HALT, undo("trip/flight", "asked"))
        assert saga.tell(BOOKED) == ()
        assert saga.status == "compensating"

    def test_a_failure_that_may_have_begun_counts_more_than_one_that_cannot(self) -> None:
        for facts in ((NO_FLIGHT, replace(NO_FLIGHT, began=False)), (replace(NO_FLIGHT, began=False), NO_FLIGHT)):
            saga = Saga(plan_of(FLIGHT), ASKED, *facts)
            assert standing(saga.plan, saga.history) == (("trip/flight", ("asked",)),)

    def test_failed_counts_more_than_skipped(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED, settled("trip/flight", "asked", "skipped"), NO_FLIGHT)
        assert saga.status == "compensating"
        assert standing(saga.plan, saga.history) == (("trip/flight", ("asked",)),)

    def test_an_arm_skipped_and_then_failed_with_the_whole_set_is_undone_as_the_set(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, Fired("deadline", 9), settled("trip/pay", "booked", "skipped"))
        assert undos(due(TRIP, saga.history)) == []  # the hotel may yet answer, and the join have been called
        assert saga.tell(ROOMED) == ()
        commands = saga.tell(settled("trip/pay", "booked roomed", "failed"))
        assert commands == (undo("trip/pay", "booked roomed"),)
        assert saga.tell(undone("trip/pay", "booked roomed")) == (undo("trip/flight", "asked"), undo("trip/hotel", "asked"))

    def test_a_skipped_arm_holds_up_nothing_once_its_join_cannot_be_called_any_more(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, Fired("deadline", 9), settled("trip/pay", "booked", "skipped"))
        commands = saga.tell(NO_ROOM)
        assert commands == (undo("trip/flight", "asked"), undo("trip/hotel", "asked"))

    def test_an_arm_stays_in_use_while_another_set_may_still_fail_with_it(self) -> None:
        plan = plan_of(
            FLIGHT, HOTEL, step("trip/pay", "booked", "roomed|camped"), step("trip/camp", "asked", produces="camped")
        )
        saga = Saga(plan, ASKED, BOOKED, ROOMED, Fired("deadline", 9), settled("trip/pay", "booked roomed", "failed"))
        assert undos(saga.tell(undone("trip/pay", "booked roomed"))) == []  # the tent may come, and fail with the flight, too
        commands = saga.tell(event("camped", "trip/camp", "asked"), settled("trip/pay", "booked camped", "failed"))
        assert commands == (undo("trip/hotel", "asked"), undo("trip/pay", "booked camped"))
        assert undos(saga.tell(undone("trip/pay", "booked camped"))) == [
            ("trip/camp", "done"),
            ("trip/flight", "done"),
        ]

    def test_a_refusal_that_names_an_arm_that_was_called_with_holds_up_nothing(self) -> None:
        plan = plan_of(FLIGHT, HOTEL, PAY, step("trip/camp", "asked", produces="roomed"))
        saga = Saga(plan, ASKED, BOOKED, ROOMED, PAID, undone("trip/pay", "booked roomed"))
        refusal = settled("trip/pay", "roomed tent", "failed", began=False, code="join.arm-filled")
        assert undos(saga.tell(refusal)) == [("trip/flight", "done"), ("trip/hotel", "done"), ("trip/pay", "done")]


class TestFailure:
    def test_while_all_goes_well_there_is_nothing_to_decide(self) -> None:
        saga = Saga(TRIP)
        for fact in (ASKED, BOOKED, ROOMED, PAID):
            assert saga.tell(fact) == ()
        assert saga.status == "running"
        assert failure(TRIP, saga.history) is None

    @pytest.mark.parametrize("fact", [NO_ROOM, replace(NO_ROOM, began=False), Fired("deadline", 9, "late"), REFUSED])
    def test_a_failed_step_a_fails_event_and_a_deadline_turn_the_saga_back_once(self, fact: Fact) -> None:
        saga = Saga(TRIP, ASKED)
        assert HALT in saga.tell(fact)
        assert saga.status == "compensating"
        assert HALT not in saga.tell(BOOKED, NO_FLIGHT)

    def test_the_halt_says_what_failed(self) -> None:
        halt = Saga(TRIP, ASKED).tell(replace(NO_ROOM, reason="no bed"))[0]
        assert isinstance(halt, Halt)
        assert (halt.code, halt.reason) == ("sold-out", "no bed")

    def test_of_two_failures_the_shallower_is_the_cause_whichever_came_first(self) -> None:
        not_paid = settled("trip/pay", "booked roomed", "failed", code="no-money")
        for facts in ((NO_ROOM, not_paid), (not_paid, NO_ROOM)):
            saga = Saga(TRIP, ASKED, BOOKED, ROOMED, *facts)
            cause = failure(TRIP, saga.history)
            assert cause is not None
            assert (cause.code, cause.step) == ("sold-out", "trip/hotel")

    def test_of_two_failures_at_one_depth_the_choice_is_always_the_same(self) -> None:
        causes = {failure(TRIP, Saga(TRIP, ASKED, *facts).history) for facts in ((NO_ROOM, NO_FLIGHT), (NO_FLIGHT, NO_ROOM))}
        assert len(causes) == 1

    def test_two_failures_at_once_are_one_halt_and_two_undos(self) -> None:
        commands = Saga(TRIP, ASKED).tell(NO_ROOM, NO_FLIGHT)
        assert commands == (HALT, undo("trip/flight", "asked"), undo("trip/hotel", "asked"))

    def test_an_observer_cannot_fail_a_saga(self) -> None:
        plan = plan_of(FLIGHT, step("trip/tell", "asked", observer=True))
        saga = Saga(plan, ASKED, settled("trip/tell", "asked", "failed"))
        assert saga.status == "running"

    def test_a_fails_event_after_completes_but_before_closure_wins(self) -> None:
        plan = plan_of(step("trip/confirm", "asked", produces="confirmed"), step("trip/check", "asked", produces="refused"))
        saga = Saga(plan, ASKED)
        assert saga.tell(event("confirmed", "trip/confirm", "asked")) == ()
        commands = saga.tell(event("refused", "trip/check", "asked"))
        assert commands == (HALT, undo("trip/check", "asked"), undo("trip/confirm", "asked"))

    def test_a_failure_after_the_end_changes_nothing(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED, PAID, CONFIRMED, Ended("completed", 9))
        assert saga.tell(NO_ROOM, Fired("deadline", 10)) == ()
        assert saga.status == "completed"


class TestUndoOrder:
    def test_undos_run_against_the_steps_forward(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED, PAID)
        assert saga.tell(REFUSED) == (HALT, undo("trip/pay", "booked roomed"))
        assert saga.tell(undone("trip/pay", "booked roomed")) == (undo("trip/flight", "asked"), undo("trip/hotel", "asked"))
        assert saga.tell(undone("trip/hotel", "asked")) == ()
        assert saga.tell(undone("trip/flight", "asked")) == (COMPENSATED,)

    def test_fan_out_all_branches_are_undone_before_their_source(self) -> None:
        plan = plan_of(
            FLIGHT, *(step(f"trip/{name}", "booked", produces=f"{name}-ready") for name in ("seat", "meal", "taxi"))
        )
        ready = [event(f"{name}-ready", f"trip/{name}", "booked") for name in ("seat", "meal", "taxi")]
        saga = Saga(plan, ASKED, BOOKED, *ready)
        assert undos(saga.tell(Fired("deadline", 9))) == [(f"trip/{name}", "done") for name in ("meal", "seat", "taxi")]
        assert saga.tell(undone("trip/seat", "booked"), undone("trip/taxi", "booked")) == ()
        assert saga.tell(undone("trip/meal", "booked")) == (undo("trip/flight", "asked"),)

    def test_it_waits_for_indirect_users_through_steps_without_effects(self) -> None:
        plan = plan_of(
            FLIGHT,
            step("trip/weigh", "booked", produces="weighed", effects=False),
            step("trip/load", "weighed", produces="loaded"),
        )
        saga = Saga(plan, ASKED, BOOKED, event("weighed", "trip/weigh", "booked"), event("loaded", "trip/load", "weighed"))
        assert saga.tell(Fired("deadline", 9)) == (HALT, undo("trip/load", "weighed"))
        assert saga.tell(undone("trip/load", "weighed")) == (undo("trip/flight", "asked"),)

    def test_independent_branches_do_not_wait_for_each_other(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, NO_ROOM)
        assert saga.tell(settled("trip/pay", "booked", "skipped")) == (undo("trip/flight", "asked"),)

    def test_it_waits_while_a_step_that_uses_the_output_still_runs(self) -> None:
        plan = plan_of(FLIGHT, HOTEL, step("trip/seat", "booked", produces="seated"))
        saga = Saga(plan, ASKED, BOOKED)
        assert undos(saga.tell(NO_ROOM)) == [("trip/hotel", "unknown")]
        assert undos(saga.tell(event("seated", "trip/seat", "booked"))) == [("trip/seat", "done")]

    def test_it_waits_for_all_parts_of_the_answer(self) -> None:
        plan = plan_of(FLIGHT, HOTEL)
        saga = Saga(plan, ASKED, replace(BOOKED, parts=2))
        assert undos(saga.tell(NO_ROOM)) == [("trip/hotel", "unknown")]
        commands = saga.tell(event("luggage", "trip/flight", "asked", part=2, parts=2))
        assert commands == (undo("trip/flight", "asked"),)
        assert isinstance(commands[0], Undo)
        assert commands[0].outputs == ("booked", "luggage")

    def test_it_waits_for_the_inputs_that_travel_with_it(self) -> None:
        saga = Saga(plan_of(FLIGHT))
        assert saga.tell(NO_FLIGHT) == (HALT,)
        assert saga.tell(ASKED) == (undo("trip/flight", "asked"),)

    def test_it_waits_for_the_declaration_of_the_step(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED)
        stranger = event("seated", "other/seat", "asked")
        assert undos(saga.tell(stranger, NO_FLIGHT)) == [("trip/flight", "unknown")]

    def test_a_failure_while_undoing_is_undone_too_and_told_once(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED)
        assert saga.tell(NO_ROOM, settled("trip/pay", "booked", "skipped")) == (
            HALT,
            undo("trip/flight", "asked"),
            undo("trip/hotel", "asked"),
        )
        late = Settled("trip/extra", ("asked",), "failed")
        plan = plan_of(FLIGHT, HOTEL, PAY, CONFIRM, step("trip/extra", "asked"))
        saga.plan = plan
        assert saga.tell(late) == (undo("trip/extra", "asked"),)

    def test_causes_that_go_round_in_a_circle_hang_nothing(self) -> None:
        plan = plan_of(step("trip/a", "b", produces="a"), step("trip/b", "a", produces="b"))
        saga = Saga(plan, ASKED, event("a", "trip/a", "b"), event("b", "trip/b", "a"))
        assert saga.tell(Fired("deadline", 9)) == (HALT, undo("trip/a", "b"), undo("trip/b", "a"))
        assert saga.tell(undone("trip/a", "b"), undone("trip/b", "a")) == (COMPENSATED,)

    def test_a_step_that_names_its_own_output_hangs_nothing(self) -> None:
        saga = Saga(plan_of(step("trip/a", "a", produces="a")), ASKED, event("a", "trip/a", "a"))
        assert saga.tell(Fired("deadline", 9)) == (HALT, undo("trip/a", "a"))

    def test_what_a_circle_was_built_on_waits_for_all_of_it(self) -> None:
        plan = plan_of(FLIGHT, step("trip/a", "b", "booked", produces="a"), step("trip/b", "a", produces="b"))
        saga = Saga(plan, ASKED, BOOKED, event("a", "trip/a", "b booked"), event("b", "trip/b", "a"))
        assert undos(saga.tell(Fired("deadline", 9))) == [("trip/a", "done"), ("trip/b", "done")]
        assert saga.tell(undone("trip/a", "b booked")) == ()
        assert saga.tell(undone("trip/b", "a")) == (undo("trip/flight", "asked"),)

    def test_a_chain_of_ten_thousand_steps_is_no_deeper_than_any_other(self) -> None:
        plan = plan_of(step("trip/on", "asked|next", produces="next"))
        chain = [event(f"n{each}", "trip/on", f"n{each - 1}" if each else "asked", type="next") for each in range(10_000)]
        last = settled("trip/on", "n9999", "failed", began=False)
        history = History().with_facts([ASKED, *chain, last])
        assert due(plan, history) == (HALT, undo("trip/on", "n9998"))


class TestWhatOwesAnUndo:
    def test_a_failure_that_provably_never_began_owes_nothing(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED)
        assert saga.tell(replace(NO_FLIGHT, began=False, code="contract")) == (HALT, COMPENSATED)

    def test_a_failed_step_that_may_have_begun_is_undone_as_unknown(self) -> None:
        assert undos(Saga(plan_of(FLIGHT), ASKED).tell(NO_FLIGHT)) == [("trip/flight", "unknown")]

    def test_a_step_without_effects_owes_nothing(self) -> None:
        plan = plan_of(replace(FLIGHT, effects=False))
        assert Saga(plan, ASKED).tell(NO_FLIGHT) == (HALT, COMPENSATED)

    def test_what_a_version_did_is_owed_whatever_a_later_one_has_its_step_do(self) -> None:
        before, after = (
            Declared("trip", VERSION, (FLIGHT,), ()),
            Declared("trip", "trip@2", (replace(FLIGHT, effects=False),), ()),
        )
        plan = Plan("trip", "asked", "confirmed", frozenset({"refused"}), {"trip": after}, earlier={"trip": (before,)})
        done = event("booked", "trip/flight", "asked")
        assert undos(Saga(plan, ASKED, done).tell(Fired("deadline", 9))) == [("trip/flight", "done")]
        assert standing(plan, History().with_facts([ASKED, done])) == (("trip/flight", ("asked",)),)
        assert undos(Saga(plan, ASKED).tell(NO_FLIGHT)) == [("trip/flight", "unknown")]
        later = Saga(plan, ASKED, replace(done, declaration="trip@2"))
        assert later.tell(Fired("deadline", 9)) == (Halt("deadline", ""), COMPENSATED)

    def test_a_version_of_which_only_is_noted_what_owes_nothing_counts_as_that(self) -> None:
        last, earlier = (
            Declared("trip", "trip@3", (FLIGHT,), ()),
            Declared("trip", "trip@1", (replace(FLIGHT, effects=False),), ()),
        )
        former = {"trip@2": frozenset({"trip/flight"}), "trip@0": None}
        plan = Plan("trip", "asked", "confirmed", frozenset(), {"trip": last}, former, {"trip": (earlier,)})

        def is_owed(version: str | None) -> bool:
            done = event("booked", "trip/flight", "asked", declaration=version)
            return bool(standing(plan, History().with_facts([ASKED, done])))

        owed = {version: is_owed(version) for version in ("trip@3", "trip@2", "trip@1", "trip@0", None)}
        assert owed == {"trip@3": True, "trip@2": False, "trip@1": False, "trip@0": True, None: True}

    def test_a_failure_under_one_version_is_owed_though_a_later_one_is_done_without_effects(self) -> None:
        before, after = (
            Declared("trip", VERSION, (FLIGHT,), ()),
            Declared("trip", "trip@2", (replace(FLIGHT, effects=False),), ()),
        )
        plan = Plan("trip", "asked", "confirmed", frozenset({"refused"}), {"trip": after}, earlier={"trip": (before,)})
        done = replace(settled("trip/flight", "asked", "done"), declaration="trip@2")
        assert ("trip/flight", ("asked",)) in standing(plan, History().with_facts([ASKED, NO_FLIGHT, done]))
        let_begin: list[Fact] = [ASKED, Granted("trip/flight", ("asked",)), replace(done, how="skipped")]
        assert ("trip/flight", ("asked",)) in standing(plan, History().with_facts(let_begin))

    def test_a_step_that_is_done_without_an_event_is_undone_as_done(self) -> None:
        saga = Saga(plan_of(FLIGHT), ASKED, settled("trip/flight", "asked", "done"))
        assert undos(saga.tell(Fired("deadline", 9))) == [("trip/flight", "done")]

    @pytest.mark.parametrize(
        ("answer", "stands"),
        [
            (event("confirmed", "trip/send", "asked booked"), True),
            (settled("trip/send", "asked booked", "done"), True),
            (settled("trip/send", "asked booked", "failed"), True),
            (settled("trip/send", "asked booked", "failed", began=False), False),
            (settled("trip/send", "asked booked", "skipped"), True),  # no mark says that it never began
            (settled("trip/send", "booked", "skipped"), False),  # an arm was missing
        ],
    )
    def test_what_nothing_undoes_is_among_what_stands_and_owes_no_undo(self, answer: Fact, stands: bool) -> None:
        send = replace(step("trip/send", "asked", "booked", produces="confirmed", effects=False), retriable=True)
        plain, lasting = plan_of(FLIGHT, replace(send, retriable=False)), plan_of(FLIGHT, send)
        flight = ("trip/flight", ("asked",))
        history = History().with_facts([ASKED, BOOKED, answer])
        assert standing(plain, history) == undo_owed(plain, history) == undo_owed(lasting, history) == (flight,)
        assert standing(lasting, history) == ((flight, ("trip/send", ("asked", "booked"))) if stands else (flight,))
        now = Declared("trip", "trip@2", (FLIGHT, replace(send, retriable=False)), ())
        before = Declared("trip", VERSION, (FLIGHT, send), ())
        later = Plan("trip", "asked", "confirmed", frozenset({"refused"}), {"trip": now}, earlier={"trip": (before,)})
        assert standing(later, history) == standing(lasting, history)
        saga = Saga(lasting, ASKED, BOOKED, answer, Fired("deadline", 9))
        assert COMPENSATED in saga.tell(undone("trip/flight", "asked"), settled("trip/send", "asked booked", "done"))

    def test_what_was_done_by_hand_past_the_pivot_stands(self) -> None:
        pay = replace(step("trip/pay", "asked", produces="paid"), pivot=True)
        send, note = (
            replace(step("trip/send", "paid", produces="confirmed", effects=False), retriable=True),
            step("trip/note", "paid", effects=False),
        )
        plan = plan_of(pay, send, note)
        paid, granted = event("paid", "trip/pay", "asked", depth=1), Granted("trip/pay", ("asked",))
        facts: list[Fact] = [ASKED, granted, paid]
        for name in ("trip/send", "trip/note"):
            facts += [settled(name, "paid", "failed", began=False), Decided("done", name, ("paid",), 1, "ann", "so", 7)]
        assert standing(plan, History().with_facts(facts)) == (("trip/pay", ("asked",)), ("trip/send", ("paid",)))

    def test_standing_names_what_is_not_undone_yet(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, NO_ROOM, settled("trip/pay", "booked", "skipped"), undone("trip/hotel", "asked"))
        assert standing(TRIP, saga.history) == (("trip/flight", ("asked",)),)


class TestParked:
    HALTED = (ASKED, BOOKED, ROOMED, PAID, REFUSED)
    STUCK = UndoFailed("trip/pay", ("booked", "roomed"), "bank-away", "no answer")

    def test_a_failed_undo_parks_the_saga(self) -> None:
        saga = Saga(TRIP, *self.HALTED)
        (park,) = saga.tell(self.STUCK)
        assert isinstance(park, Park)
        assert (park.step, park.causes, park.code, park.reason) == ("trip/pay", ("booked", "roomed"), "bank-away", "no answer")
        assert saga.status == "parked"

    def test_the_undos_of_its_causal_ancestors_wait_others_go_on(self) -> None:
        plan = plan_of(FLIGHT, HOTEL, PAY, CONFIRM, step("trip/seat", "booked", produces="seated"))
        saga = Saga(plan, *self.HALTED, self.STUCK)
        assert saga.tell(event("seated", "trip/seat", "booked")) == (undo("trip/seat", "booked"),)
        assert saga.tell(undone("trip/seat", "booked")) == ()

    def test_undone_beats_undo_failed_in_either_order(self) -> None:
        confirmed = undone("trip/pay", "booked roomed")
        for facts in ((self.STUCK, confirmed), (confirmed, self.STUCK)):
            saga = Saga(TRIP, *self.HALTED, *facts)
            assert saga.status == "compensating"
            assert saga.tell(undone("trip/hotel", "asked"), undone("trip/flight", "asked")) == (COMPENSATED,)

    def test_an_undo_that_fails_in_two_ways_parks_once_and_reads_the_same(self) -> None:
        other = replace(self.STUCK, code="bank-broke")
        parks = [
            [each for each in due(TRIP, Saga(TRIP, *self.HALTED, *facts).history) if isinstance(each, Park)]
            for facts in ((self.STUCK, other), (other, self.STUCK))
        ]
        assert repr(parks[0]) == repr(parks[1])
        assert len(parks[0]) == 1


class TestCompensated:
    ALL: tuple[Fact, ...] = (ASKED, BOOKED, NO_ROOM, settled("trip/pay", "booked", "skipped"), undone("trip/flight", "asked"))
    LAST = undone("trip/hotel", "asked")

    def test_when_every_owed_undo_is_confirmed(self) -> None:
        saga = Saga(TRIP, *self.ALL)
        assert saga.tell(self.LAST) == (COMPENSATED,)
        assert saga.status == "compensating"
        assert saga.tell(Ended("compensated", 9)) == ()
        assert saga.status == "compensated"

    @pytest.mark.parametrize("missing", range(5))
    def test_not_while_anything_is_missing(self, missing: int) -> None:
        facts = [fact for number, fact in enumerate(self.ALL) if number != missing]
        saga = Saga(TRIP, *facts)
        assert COMPENSATED not in saga.tell(self.LAST)
        assert COMPENSATED in saga.tell(self.ALL[missing])

    def test_not_while_a_part_of_an_answer_without_effects_is_missing(self) -> None:
        plan = plan_of(replace(FLIGHT, effects=False))
        saga = Saga(plan, ASKED, replace(BOOKED, parts=2))
        assert saga.tell(settled("trip/flight", "asked", "failed", began=False)) == (HALT,)
        assert unseen(plan, saga.history) == ("a part of the answer of trip/flight",)

    def test_not_while_a_declaration_that_an_answer_names_is_unseen(self) -> None:
        saga = Saga(TRIP, ASKED, replace(NO_FLIGHT, declaration="trip@2"))
        assert unseen(TRIP, saga.history) == ("declaration trip@2",)
        assert COMPENSATED not in saga.tell(settled("trip/hotel", "asked", "skipped"), undone("trip/flight", "asked"))

    def test_not_while_a_step_that_answered_is_not_declared(self) -> None:
        stranger = Settled("other/seat", ("asked",), "skipped")
        saga = Saga(TRIP, *self.ALL, stranger)
        assert saga.tell(self.LAST) == ()
        learned = replace(
            TRIP, declared={**TRIP.declared, "other": Declared("other", "other@1", (step("other/seat", "x"),), ())}
        )
        assert set(due(learned, saga.history)) - set(due(TRIP, saga.history)) == {COMPENSATED}

    def test_not_while_a_cause_that_only_an_undo_names_is_unseen(self) -> None:
        saga = Saga(TRIP, *self.ALL, undone("trip/pay", "somewhere-else"))
        assert COMPENSATED not in saga.tell(self.LAST)


class TestCompleted:
    def test_when_completes_is_seen_and_nothing_is_owed(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED, PAID)
        assert saga.tell(CONFIRMED) == (COMPLETED,)
        assert saga.status == "running"
        assert saga.tell(Ended("completed", 9)) == ()
        assert saga.status == "completed"

    @pytest.mark.parametrize("missing", [ASKED, BOOKED, ROOMED, PAID, CONFIRMED], ids=lambda fact: fact.id)
    def test_not_while_anything_is_missing(self, missing: Fact) -> None:
        saga = Saga(TRIP)
        assert saga.tell(*(fact for fact in (ASKED, BOOKED, ROOMED, PAID, CONFIRMED) if fact is not missing)) == ()
        assert saga.tell(missing) == (COMPLETED,)

    def test_not_while_a_side_branch_runs(self) -> None:
        plan = plan_of(FLIGHT, HOTEL, PAY, CONFIRM, step("trip/seat", "booked", produces="seated"))
        saga = Saga(plan, ASKED, BOOKED, ROOMED, PAID)
        assert saga.tell(CONFIRMED) == ()
        assert saga.tell(event("seated", "trip/seat", "booked")) == (COMPLETED,)

    def test_the_alternative_branch_leaves_a_join_open_and_the_end_lets_its_arm_go(self) -> None:
        plan = plan_of(
            step("trip/route", "asked", produces="by-air by-rail"),
            step("trip/fly", "by-air", "ticket", produces="confirmed"),
            step("trip/train", "by-rail", produces="confirmed"),
            step("trip/print", "asked", produces="ticket"),
        )
        saga = Saga(plan, ASKED, event("by-rail", "trip/route", "asked"), event("confirmed", "trip/train", "by-rail"))
        (end,) = saga.tell(event("ticket", "trip/print", "asked"))
        assert isinstance(end, End)
        assert (end.verdict, end.let_go) == ("completed", (("ticket", "trip/fly"),))

    def test_not_while_a_join_is_filled_and_has_not_answered(self) -> None:
        plan = plan_of(FLIGHT, HOTEL, PAY, step("trip/confirm", "booked", produces="confirmed"))
        saga = Saga(plan, ASKED, BOOKED, ROOMED)
        assert saga.tell(event("confirmed", "trip/confirm", "booked")) == ()
        assert saga.tell(PAID) == (COMPLETED,)

    def test_never_after_a_failure(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED, PAID, Fired("deadline", 9))
        assert COMPLETED not in saga.tell(CONFIRMED)
        assert saga.status == "compensating"


class TestUnknownSaga:
    def test_events_whose_start_never_came_are_undone(self) -> None:
        saga = Saga(plan_of(FLIGHT), BOOKED)
        assert unseen(saga.plan, saga.history) == ("event asked", "event of type asked")
        assert saga.tell(Fired("unknown", 9)) == (HALT, undo("trip/flight", "asked"))
        assert saga.tell(undone("trip/flight", "asked")) == (COMPENSATED,)

    def test_more_than_the_start_must_not_be_missing(self) -> None:
        saga = Saga(TRIP, Fired("unknown", 9), BOOKED, settled("trip/pay", "booked roomed", "failed", began=False))
        assert unseen(TRIP, saga.history) == ("event asked", "event roomed")
        assert undos(due(TRIP, saga.history)) == []


class TestTheSetOfFacts:
    def test_a_fact_that_is_known_changes_nothing(self) -> None:
        saga = Saga(TRIP, ASKED, NO_ROOM)
        before = saga.history
        assert saga.tell(NO_ROOM, ASKED, replace(NO_ROOM, reason="said otherwise")) == ()
        assert saga.history is before

    def test_a_history_from_its_stored_facts_issues_nothing_that_was_due_before(self) -> None:
        saga = Saga(TRIP, ASKED, BOOKED, ROOMED, PAID, REFUSED)
        reloaded = Saga(TRIP)
        reloaded.history = History().with_facts(fact_from_json(fact.to_json()) for fact in saga.history.facts)
        assert reloaded.tell() == ()
        assert reloaded.tell(undone("trip/pay", "booked roomed")) == (
            undo("trip/flight", "asked"),
            undo("trip/hotel", "asked"),
        )

    def test_a_history_is_not_changed_by_growing(self) -> None:
        before = Saga(TRIP, ASKED).history
        decide(TRIP, before, [BOOKED, NO_ROOM])
        assert list(before.facts) == [ASKED]
        assert status(TRIP, before) == "running"

    def test_declarations_are_a_lanes_and_not_a_sagas(self) -> None:
        history = History()
        assert history.with_facts([Declared("trip", "trip@2", (), ())]) is history

    def test_after_the_end_nothing_is_due(self) -> None:
        saga = Saga(TRIP, ASKED, NO_ROOM, Ended("abandoned", 9))
        assert due(TRIP, saga.history) == ()
        assert saga.status == "abandoned"


EVERY_FACT: list[Fact] = [
    ASKED,
    replace(PAID, event='{"id":"päid", "data": 1.50}'.encode()),
    replace(BOOKED, event=b""),
    replace(NO_ROOM, reason='a "quoted", reason'),
    settled("trip/pay", "b a", "skipped", began=False),
    undone("trip/pay", "booked roomed"),
    TestParked.STUCK,
    Fired("deadline", 9, "late"),
    Ended("completed", 9),
    Declared("trip", VERSION, (PAY, replace(CONFIRM, observer=True, within_s=1.5)), (("booked", 3), ("paid", 4))),
]


class TestFactsAsJson:
    @pytest.mark.parametrize("fact", EVERY_FACT, ids=lambda fact: fact.identity)
    def test_every_fact_comes_back_as_it_was(self, fact: Fact) -> None:
        assert fact_from_json(fact.to_json()) == fact
        assert fact_from_json(fact.to_json()).identity == fact.identity
        assert b"\n" not in fact.to_json()

    def test_fields_that_are_not_known_are_ignored(self) -> None:
        assert fact_from_json(b'{"fact":"ended","verdict":"completed","at_ms":1,"by":"me"}') == Ended("completed", 1)

    def test_causes_come_back_sorted(self) -> None:
        fact = fact_from_json(b'{"fact":"undone","step":"trip/pay","causes":["b","a"]}')
        assert fact == Undone("trip/pay", ("a", "b"))

    def test_an_event_that_others_wrote_in_another_order_is_the_same_event(self) -> None:
        written = b'{"fact":"happened","event":{"id":"a"},"id":"a","type":"t","step":null,"causes":[],"part":1,"parts":1,'
        fact = fact_from_json(written + b'"offset":0,"declaration":null,"depth":0}')
        assert isinstance(fact, Happened)
        assert fact.event == b'{"id":"a"}'

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"fact":"rumour"}',
            b'{"fact":["ended"]}',
            b'{"fact":"ended"}',
            b'{"fact":"ended","verdict":"maybe","at_ms":1}',
            b'{"fact":"settled","step":1,"causes":["a"],"how":"done"}',
            b'{"fact":"settled","step":"a/b","causes":["a"],"how":"perhaps"}',
            b'{"fact":"undone","step":"a/b","causes":"a"}',
            b'{"fact":"undone","step":"a/b","causes":[["a"]]}',
            b'{"fact":"declared","agent":"a","version":"1","steps":[{"name":1}],"since":{}}',
            b'{"fact":"declared","agent":"a","version":"1","steps":[],"since":{"a":"b"}}',
            b'{"fact":"happened","event":{}}',
            b"[" * 100_000,
        ],
        ids=lambda data: data[:40].decode(),
    )
    def test_what_is_no_fact_is_a_value_error(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            fact_from_json(data)

    def test_an_event_that_was_read_says_what_its_envelope_says(self) -> None:
        envelope = Envelope(
            id="1", source="/agents/trip", type="paid", data=b"{}", step="trip/pay", causes=("b", "a"), depth=2, saga="s"
        )
        fact = Happened.of(envelope, 7)
        assert (fact.id, fact.type, fact.step, fact.causes, fact.offset, fact.depth) == (
            "1",
            "paid",
            "trip/pay",
            ("a", "b"),
            7,
            2,
        )
        assert fact.event == envelope.to_structured()


PIVOT = replace(step("trip/pay", "booked", "roomed", produces="paid unpaid"), pivot=True)
THANK = step("trip/thank", "paid", produces="", effects=False)
WITH_PIVOT = plan_of(FLIGHT, HOTEL, PIVOT, CONFIRM, THANK)
GRANT = Grant("trip/pay", ("booked", "roomed"))
GRANTED = Granted("trip/pay", ("booked", "roomed"))
NO_THANKS = settled("trip/thank", "paid", "failed", code="no-card")
THANKED = settled("trip/thank", "paid", "done")


def again(verb: Verb, number: int = 1, of: Settled = NO_THANKS) -> Decided:
    return Decided(verb, of.step, of.causes, number, "ann", "because", 0)


class TestPivot:
    def test_it_is_granted_when_its_own_debts_are_the_only_open_ones(self) -> None:
        beside = step("trip/insure", "asked", produces="insured")
        saga = Saga(plan_of(FLIGHT, HOTEL, PIVOT, CONFIRM, beside), ASKED, BOOKED)
        assert saga.tell(ROOMED) == ()
        assert saga.tell(event("insured", "trip/insure", "asked", depth=1)) == (GRANT,)
        assert saga.tell(GRANTED) == ()

    def test_it_is_not_granted_while_something_that_was_named_is_unseen(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED)
        assert saga.tell(event("roomed", "trip/hotel", "asked elsewhere", depth=1)) == ()
        assert saga.tell(event("elsewhere")) == (GRANT,)

    def test_it_is_not_granted_once_something_failed(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, NO_ROOM)
        assert GRANT not in saga.tell(ROOMED)

    def test_an_arm_that_waits_in_vain_does_not_hold_it_up(self) -> None:
        join = step("trip/upgrade", "booked", "vouched", produces="upgraded")
        saga = Saga(plan_of(FLIGHT, HOTEL, PIVOT, CONFIRM, join), ASKED, BOOKED)
        assert saga.tell(ROOMED) == (GRANT,)

    def test_two_events_for_one_of_its_arms_are_not_granted(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, event("second", "trip/flight", "asked", type="booked", depth=1))
        assert saga.tell(ROOMED) == ()

    def test_while_it_is_asked_nothing_fails_the_saga(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED)
        assert saga.tell(Fired("deadline", 1)) == ()
        assert saga.status == "running"

    @pytest.mark.parametrize(
        "refusal",
        [
            settled("trip/pay", "booked roomed", "failed", code="declined"),
            event("refused", "trip/pay", "booked roomed", depth=2),
        ],
    )
    def test_refused_it_turns_the_saga_back(self, refusal: Fact) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED)
        commands = saga.tell(refusal)
        assert commands[0] == HALT
        assert [name for name, _ in undos(commands)] == ["trip/pay"]
        assert saga.status == "compensating"

    def test_once_it_is_done_a_failure_parks_the_saga_and_undoes_nothing(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, Fired("deadline", 1))
        assert saga.status == "running"
        assert saga.tell(NO_THANKS) == (Park("trip/thank", ("paid",), forward=True, code="", reason=""),)
        assert saga.status == "parked"
        assert saga.tell(CONFIRMED) == ()

    def test_a_part_of_its_answer_is_no_answer(self) -> None:
        half = event("paid", "trip/pay", "booked roomed", part=1, parts=2, depth=2)
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, half, Fired("deadline", 1))
        assert (saga.status, saga.tell(NO_THANKS)) == ("running", ())

    def test_a_retry_is_granted_and_what_it_gets_done_lets_the_saga_complete(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, CONFIRMED, NO_THANKS)
        assert saga.tell(again("retry")) == (Grant("trip/thank", ("paid",), 1),)
        assert saga.status == "running"
        assert saga.tell(Granted("trip/thank", ("paid",), 1)) == ()
        assert saga.tell(THANKED) == (COMPLETED,)

    def test_what_was_granted_is_not_granted_again_where_nobody_knows_by_which_plan(self) -> None:
        facts: list[Fact] = [ASKED, BOOKED, ROOMED, GRANTED, PAID, CONFIRMED, NO_THANKS, again("retry")]
        _, commands = decide(WITH_PIVOT, History(), facts, WITH_PIVOT)
        assert Grant("trip/thank", ("paid",), 1) in commands
        _, commands = decide(WITH_PIVOT, History(), [*facts, Granted("trip/thank", ("paid",), 1)], WITH_PIVOT)
        assert [each for each in commands if isinstance(each, Grant)] == []

    def test_a_retry_that_fails_parks_it_again(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, CONFIRMED, NO_THANKS, again("retry"))
        (park,) = saga.tell(replace(NO_THANKS, retry=1))
        assert park == Park("trip/thank", ("paid",), retry=1, forward=True, code="", reason="")
        assert saga.status == "parked"
        assert saga.tell(again("retry", 2)) == (Grant("trip/thank", ("paid",), 2),)

    @pytest.mark.parametrize("verb", ["done", "skip"])
    def test_what_is_done_by_hand_or_left_holds_up_nothing(self, verb: Verb) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, CONFIRMED, NO_THANKS)
        assert saga.tell(again(verb)) == (COMPLETED,)

    @pytest.mark.parametrize("verb", ["done", "skip"])
    def test_left_where_nothing_leads_to_the_end_any_more_the_saga_is_abandoned(self, verb: Verb) -> None:
        not_confirmed = settled("trip/confirm", "paid", "failed", code="no-mail")
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, not_confirmed)
        assert saga.tell(again(verb, of=not_confirmed)) == ()
        assert saga.tell(THANKED) == (End("abandoned"),)

    def test_it_can_be_abandoned_as_it_is(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID, NO_THANKS)
        assert saga.tell(Decided("abandon", "", (), 1, "ann", "because", 0)) == (End("abandoned"),)

    def test_an_event_that_fails_the_saga_comes_too_late_and_parks_it(self) -> None:
        saga = Saga(WITH_PIVOT, ASKED, BOOKED, ROOMED, GRANTED, PAID)
        (park,) = saga.tell(REFUSED)
        assert isinstance(park, Park)
        assert (park.step, park.forward, park.code) == ("trip/confirm", True, "refused")

    def test_the_order_of_facts_does_not_matter(self) -> None:
        facts: list[Fact] = [ASKED, BOOKED, ROOMED, GRANTED, PAID, Fired("deadline", 1), NO_THANKS, again("retry"), CONFIRMED]
        for seed in range(50):
            shuffled = random.Random(seed).sample(facts, len(facts))
            saga = Saga(WITH_PIVOT, *shuffled)
            assert due(saga.plan, saga.history) == due(WITH_PIVOT, Saga(WITH_PIVOT, *facts).history)
            assert saga.tell(THANKED) == (COMPLETED,)
