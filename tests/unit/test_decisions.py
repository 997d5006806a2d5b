"""What people decide about sagas whose undo failed: the engine's rules, the verbs, and what comes of them."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pavane_events.buses.address import open_bus
from pavane_events.errors import ConfigurationError
from pavane_saga.facts import Corrected, Decided, Ended, Fact, UndoFailed, Verb, fact_from_json
from pavane_saga.operator import decisions, prospect, said_before
from pavane_saga.story import Story, read_story
from pavane_tracing.continuity import check_continuity
from pavane_tracing.finding import assert_continuous
from pavane_tracing.span import SpanRow
from pavane_tracing.store import all_spans
from unit import cli_toy
from unit.cli_shell import Shell
from unit.test_engine_rules import ASKED, BOOKED, COMPENSATED, PAID, REFUSED, ROOMED, TRIP, Saga, undone

HALTED = (ASKED, BOOKED, ROOMED, PAID, REFUSED)
STUCK = UndoFailed("trip/pay", ("booked", "roomed"), "bank-away", "no answer")
REST = (undone("trip/hotel", "asked"), undone("trip/flight", "asked"))
CORRECTED = ("booked", '{"a":1,"b":2}')
ORDER = "order-0"


def decided(verb: Verb, number: int = 1) -> Decided:
    step, causes = ("", ()) if verb == "abandon" else ("trip/pay", ("booked", "roomed"))
    return Decided(verb, step, causes, number, "ann", "the bank said so", 7)


class TestEngine:
    def test_a_retry_asks_for_the_undo_again_and_the_saga_is_parked_no_more(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK)
        (undo,) = saga.tell(decided("retry"))
        assert (getattr(undo, "step", None), getattr(undo, "retry", None)) == ("trip/pay", 1)
        assert saga.status == "compensating"
        assert saga.tell(decided("retry")) == ()

    def test_a_retry_that_fails_in_the_same_way_parks_it_again(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK, decided("retry"))
        again = UndoFailed(STUCK.step, STUCK.causes, STUCK.code, STUCK.reason, retry=1)
        (park,) = saga.tell(again)
        assert getattr(park, "retry", None) == 1
        assert saga.status == "parked"
        assert [getattr(each, "retry", None) for each in saga.tell(decided("retry", 2))] == [2]

    def test_a_late_failure_of_an_earlier_try_does_not_park_a_retry(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK, decided("retry"))
        assert not [each for each in saga.tell(UndoFailed(STUCK.step, STUCK.causes, "other")) if hasattr(each, "retry")]
        assert saga.status == "compensating"

    def test_what_is_done_by_hand_counts_as_undone(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK)
        assert {getattr(each, "step", None) for each in saga.tell(decided("done"))} == {"trip/hotel", "trip/flight"}
        assert saga.tell(*REST) == (COMPENSATED,)

    def test_what_is_skipped_stays_and_the_saga_ends_abandoned(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK)
        assert {getattr(each, "step", None) for each in saga.tell(decided("skip"))} == {"trip/hotel", "trip/flight"}
        assert saga.status == "compensating"
        assert [getattr(each, "verdict", None) for each in saga.tell(*REST)] == ["abandoned"]

    def test_an_abandoned_saga_ends_as_it_is(self) -> None:
        saga = Saga(TRIP, *HALTED, STUCK)
        assert [getattr(each, "verdict", None) for each in saga.tell(decided("abandon"))] == ["abandoned"]

    def test_the_order_in_which_facts_come_does_not_matter(self) -> None:
        again = UndoFailed(STUCK.step, STUCK.causes, STUCK.code, STUCK.reason, retry=1)
        facts: list[Fact] = [STUCK, decided("retry"), again, decided("skip")]
        for order in (facts, facts[::-1], [facts[2], facts[0], facts[3], facts[1]]):
            saga = Saga(TRIP, *HALTED, *order)
            assert saga.status == "compensating"
            assert saga.history.retry_of(("trip/pay", ("booked", "roomed"))) == 1

    def test_a_decision_is_written_and_read(self) -> None:
        fact = Decided("retry", "a/b", ("x", "y"), 2, "ann", "because", 7, (("t.one", '{"a":1}'), ("t.two", "{}")))
        assert fact_from_json(fact.to_json()) == fact
        assert fact_from_json(STUCK.to_json()) == STUCK
        assert b"retry" not in STUCK.to_json()


class TestOperator:
    def judged(self, *facts: Fact) -> "Judged":
        return Judged(Saga(TRIP, *HALTED, *facts))

    def ask(self, saga: "Judged", verb: Verb, step: str | None = None, corrected: Corrected = ()) -> tuple[Decided, ...]:
        return decisions(saga, verb, step, who="ann", why="so", at_ms=1, corrected=corrected)

    def test_the_step_is_named_in_full_in_short_or_not_at_all(self) -> None:
        for name in ("trip/pay", "pay", None):
            (fact,) = self.ask(self.judged(STUCK), "done", name)
            assert (fact.step, fact.causes) == (STUCK.step, STUCK.causes)

    @pytest.mark.parametrize("verb", ["retry", "done", "skip", "abandon"])
    def test_saying_it_twice_says_nothing_more(self, verb: Verb) -> None:
        first = self.ask(self.judged(STUCK), verb)
        assert self.ask(self.judged(STUCK, *first), verb) == ()

    def test_a_retry_after_a_retry_that_failed_is_another(self) -> None:
        again = UndoFailed(STUCK.step, STUCK.causes, STUCK.code, "", retry=1)
        (fact,) = self.ask(self.judged(STUCK, decided("retry"), again), "retry")
        assert fact.number == 2

    def test_the_same_correction_twice_says_nothing_more_and_another_one_is_refused(self) -> None:
        first = self.ask(self.judged(STUCK), "retry", corrected=(CORRECTED,))
        assert self.ask(self.judged(STUCK, *first), "retry", corrected=((CORRECTED[0], '{"b": 2, "a": 1}'),)) == ()
        for other in ((), ((CORRECTED[0], '{"a":true,"b":2}'),)):
            with pytest.raises(ConfigurationError, match="retry trip/pay, with corrected booked, by ann"):
                self.ask(self.judged(STUCK, *first), "retry", corrected=other)
        with pytest.raises(ConfigurationError, match=re.escape("by ann, 1970-01-01T00:00:00.001000+00:00 (so)")):
            self.ask(self.judged(STUCK, *first), "retry")
        over = self.judged(STUCK, *first, Ended("abandoned", 9))
        assert said_before(over, "retry", None, (CORRECTED,)) == first
        assert said_before(over, "retry", None) == ()
        with pytest.raises(ConfigurationError, match=re.escape("it has ended (abandoned)")):
            self.ask(over, "retry")

    def test_a_correction_of_somebody_elses_that_is_no_json_is_another(self) -> None:
        odd = Decided("retry", STUCK.step, STUCK.causes, 1, "ann", "so", 1, ((CORRECTED[0], "{"),))
        with pytest.raises(ConfigurationError, match="with corrected booked, by ann"):
            self.ask(self.judged(STUCK, odd), "retry", corrected=(CORRECTED,))

    @pytest.mark.parametrize("first", ["retry", "done", "skip"])
    def test_what_was_said_and_is_not_answered_is_not_taken_for_something_else(self, first: Verb) -> None:
        saga = self.judged(STUCK, *self.ask(self.judged(STUCK), first), undone("trip/flight", "asked"))
        assert self.ask(saga, first) == ()
        others: set[Verb] = {"retry", "done", "skip"}
        for other in others - {first}:
            with pytest.raises(ConfigurationError, match=f"{first} trip/pay, by ann"):
                self.ask(saga, other)

    def test_what_was_said_before_another_decision_is_not_said_any_more(self) -> None:
        again = UndoFailed(STUCK.step, STUCK.causes, STUCK.code, "", retry=1)
        saga = self.judged(STUCK, decided("retry"), again, decided("skip"))
        with pytest.raises(ConfigurationError, match="skip trip/pay, by ann"):
            self.ask(saga, "retry")
        assert self.ask(saga, "skip") == ()

    @pytest.mark.parametrize("verb", ["retry", "done", "skip"])
    @pytest.mark.parametrize("first", ["retry", "done", "skip"])
    def test_what_was_said_of_one_step_is_not_taken_for_the_next_one_that_failed(self, first: Verb, verb: Verb) -> None:
        said = self.ask(self.judged(STUCK), first)
        over = () if first == "skip" else (undone(STUCK.step, " ".join(STUCK.causes)),)
        saga = self.judged(STUCK, *said, *over, UndoFailed("trip/hotel", ("asked",), "bank-away"))
        with pytest.raises(ConfigurationError, match="name the step") as refused:
            self.ask(saga, verb)
        before, now = refused.value.problems
        assert (before.where, now.where, now.message) == ("trip/pay", "trip/hotel", "waits now: bank-away")
        assert f"it was said before: {first} trip/pay, by ann, 1970-01-01" in before.message
        assert [each.step for each in self.ask(saga, verb, "hotel")] == ["trip/hotel"]

    def test_a_step_of_the_same_short_name_is_another(self) -> None:
        other = UndoFailed("bank/pay", ("asked",), "bank-away")
        with pytest.raises(ConfigurationError, match="several have failed: name the step"):
            self.ask(self.judged(STUCK, other), "done", "pay")
        saga = self.judged(STUCK, other, decided("done"))
        with pytest.raises(ConfigurationError, match="name the step"):
            self.ask(saga, "done", "pay")
        assert [each.step for each in self.ask(saga, "done", "bank/pay")] == ["bank/pay"]

    @pytest.mark.parametrize(("verb", "corrected"), [("done", ()), ("skip", ()), ("retry", (CORRECTED,))])
    def test_of_other_inputs_of_that_step_the_same_words_are_a_repetition(self, verb: Verb, corrected: Corrected) -> None:
        other = UndoFailed(STUCK.step, ("asked", "booked"), "bank-away")
        saga = self.judged(STUCK, *self.ask(self.judged(STUCK), verb, corrected=corrected), other)
        with pytest.raises(ConfigurationError, match="--why in other words"):
            self.ask(saga, verb, "pay", corrected)
        (fact,) = decisions(saga, verb, "pay", who="ann", why="this, too", at_ms=1, corrected=corrected)
        assert fact.causes == other.causes

    def test_to_be_tried_again_as_it_was_may_be_said_of_other_inputs_in_the_same_words(self) -> None:
        other = UndoFailed(STUCK.step, ("asked", "booked"), "bank-away")
        saga = self.judged(STUCK, *self.ask(self.judged(STUCK), "retry"), other)
        assert [each.causes for each in self.ask(saga, "retry")] == [other.causes]

    def test_of_an_abandoned_saga_nothing_else_is_decided(self) -> None:
        saga = self.judged(STUCK, decided("abandon"))
        assert self.ask(saga, "abandon") == ()
        for other in ("retry", "done", "skip"):
            with pytest.raises(ConfigurationError, match="abandon, by ann"):
                self.ask(saga, other)

    def test_what_was_retried_and_is_undone_is_done(self) -> None:
        saga = self.judged(STUCK, decided("retry"), undone(STUCK.step, " ".join(STUCK.causes)))
        assert self.ask(saga, "done") == ()
        assert self.ask(saga, "retry") == ()
        with pytest.raises(ConfigurationError, match="retry trip/pay, by ann"):
            self.ask(saga, "skip")

    def test_where_nothing_failed_there_is_nothing_to_decide(self) -> None:
        with pytest.raises(ConfigurationError, match=re.escape("nothing to decide")):
            self.ask(Judged(Saga(TRIP, ASKED)), "abandon")
        with pytest.raises(ConfigurationError, match="nothing has failed for good"):
            self.ask(self.judged(), "skip")
        with pytest.raises(ConfigurationError, match="trip/pay"):
            self.ask(self.judged(STUCK), "skip", "trip/hotel")

    def test_what_would_come_of_it_is_known_before(self) -> None:
        saga = self.judged(STUCK, *REST)
        assert COMPENSATED in prospect(saga, self.ask(saga, "done")).next
        assert COMPENSATED not in prospect(saga, self.ask(saga, "retry")).next

    def test_what_is_undone_after_what_is_retried_is_known_before_and_what_is_waited_for(self) -> None:
        saga = self.judged(STUCK)
        ahead = prospect(saga, self.ask(saga, "retry"))
        assert [getattr(each, "step", None) for each in ahead.next] == ["trip/pay"]
        assert [each.step for each in ahead.later] == ["trip/flight", "trip/hotel"]
        assert (ahead.end, ahead.standing) == ("compensated", ())
        held = self.judged(STUCK, UndoFailed("trip/hotel", ("asked",), "bank-away"))
        ahead = prospect(held, self.ask(held, "skip", "pay"))
        assert ([each.step for each in ahead.later], ahead.end, ahead.waits_for) == ([], None, ("trip/hotel",))
        assert {step for step, _ in ahead.standing} == {"trip/pay", "trip/hotel"}

    @pytest.mark.parametrize("verb", ["retry", "done", "skip", "abandon"])
    def test_saying_it_again_after_the_end_says_nothing_more_and_tells_who_said_it(self, verb: Verb) -> None:
        first = self.ask(self.judged(STUCK), verb)
        over = self.judged(STUCK, *first, Ended("abandoned", 9))
        assert self.ask(over, verb) == ()
        assert said_before(over, verb, None) == first
        for other in {"retry", "done", "skip", "abandon"} - {verb}:
            with pytest.raises(ConfigurationError, match=re.escape("it has ended (abandoned)")):
                self.ask(over, cast("Verb", other))

    def test_only_events_of_the_undo_can_be_corrected(self) -> None:
        with pytest.raises(ConfigurationError, match="nothing else"):
            decisions(self.judged(STUCK), "retry", None, who="a", why="b", at_ms=1, corrected=(("never", "{}"),))


class Judged:
    """An engine's saga as the operator's rules look at it."""

    def __init__(self, saga: Saga) -> None:
        from pavane_saga.engine import failure

        self.plan = saga.plan
        self.history = saga.history
        self.failure = failure(saga.plan, saga.history)


# --- the verbs, on a bus file -------------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> str:
    """One order that could not be shipped, and whose packing could not be undone: parked."""
    url = f"sqlite:///{tmp_path / 'bus.db'}"
    asyncio.run(cli_toy.perform(url, [cli_toy.STUCK]))
    return url


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> Shell:
    monkeypatch.setenv("PAVANE_BUS", url)
    return Shell(monkeypatch, capsys)


def go_on(url: str, until: Callable[[Story], bool]) -> Story:
    return asyncio.run(cli_toy.go_on(url, ORDER, until))


def ended(story: Story) -> bool:
    return story.summary.ended_ms is not None


def test_a_parked_saga_says_what_stands_and_what_waits(pavane: Shell) -> None:
    said = pavane("sagas", "show", ORDER)
    assert "failed for good, and waiting for a decision" in said.out
    assert "packing/pack: attempts.exhausted (OSError)" in said.out
    assert "--dry-run" in said.err


def test_done_by_hand_lets_the_rest_be_undone_and_is_on_record(pavane: Shell, url: str) -> None:
    said = pavane("sagas", "done", ORDER, "--by-hand", "--why", "cut it open", "--who", "ann")
    assert (said.code, said.out) == (0, "decided: done packing/pack\n  next: the saga ends compensated\n")
    story = go_on(url, ended)
    assert (story.summary.state, story.standing) == ("compensated", ())
    chapter = next(each for each in story.chapters if each.kind == "decided")
    assert (chapter.who, chapter.what, chapter.reason) == ("ann", "decided: done by hand: packing/pack", "cut it open")
    assert "cut it open" in pavane("sagas", "show", ORDER).out


def test_skip_leaves_the_effect_and_ends_abandoned(pavane: Shell, url: str) -> None:
    assert pavane("sagas", "skip", ORDER, "pack", "--why", "cheap").code == 0
    story = go_on(url, ended)
    assert story.summary.state == "abandoned"
    assert [step for step, _ in story.standing] == ["packing/pack"]


def test_abandon_ends_it_at_once(pavane: Shell, url: str) -> None:
    said = pavane("sagas", "abandon", ORDER, "--why", "enough")
    assert "next: the saga ends abandoned" in said.out
    assert go_on(url, ended).summary.state == "abandoned"
    other = pavane("sagas", "skip", ORDER, "--why", "enough")
    assert other.code == 2
    assert "it has ended (abandoned)" in other.err


def test_a_blank_id_abandons_nothing_though_there_is_but_one_saga(pavane: Shell) -> None:
    said = pavane("sagas", "abandon", "", "--why", "x")
    assert (said.code, said.out) == (2, "")
    assert "decided" not in pavane("sagas", "show", ORDER).out


def test_what_was_said_can_be_said_again_when_the_saga_has_ended(pavane: Shell, url: str) -> None:
    pavane("sagas", "skip", ORDER, "--why", "cheap", "--who", "ann")
    go_on(url, ended)
    again = pavane("sagas", "skip", ORDER, "pack", "--why", "cheap enough", "--who", "bob")
    assert again.code == 0
    first, second = again.out.splitlines()
    assert first.startswith("said already: skip packing/pack, by ann, 20")
    assert first.endswith(" (cheap)")
    assert second.startswith("the saga ended abandoned, 20")
    document = pavane("sagas", "skip", ORDER, "--why", "cheap", "--json").document
    assert (document["decided"], document["end"]) == ([], "abandoned")
    (said,) = cast("list[dict[str, object]]", document["said_before"])
    assert (said["who"], said["why"]) == ("ann", "cheap")


def test_a_retry_that_fails_parks_again_and_one_with_corrected_data_succeeds(pavane: Shell, url: str, tmp_path: Path) -> None:
    assert pavane("sagas", "retry", ORDER, "--why", "perhaps").code == 0
    twice = pavane("sagas", "retry", ORDER, "--why", "perhaps")
    assert twice.code == 0
    assert twice.out.startswith("said already: retry packing/pack, by ")
    assert twice.out.endswith(" (perhaps)\nnothing has failed since: nothing to do\n")
    story = go_on(url, lambda story: story.summary.state == "parked")
    assert [failed.retry for failed in story.stuck] == [1]

    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps({"toy.order-placed": {"order_id": ORDER, "amount": "much"}}))
    command = ("sagas", "retry", ORDER, "--why", "typo", "--with", str(corrected), "--app", "unit.cli_toy:AGENTS")
    wrong = pavane(*command)
    assert wrong.code == 2
    assert "data.amount" in wrong.err

    corrected.write_text(json.dumps({"toy.order-placed": {"order_id": ORDER, "amount": 14}}))
    assert "undo packing/pack (retry 2)" in pavane(*command).out
    story = go_on(url, ended)
    assert (story.summary.state, story.standing) == ("compensated", ())
    assert "decided: try again: packing/pack, with corrected toy.order-placed (typo)" in pavane("sagas", "show", ORDER).out


def test_a_dead_letter_of_what_a_parked_saga_waits_for_is_redriven_by_that_decision(pavane: Shell, url: str) -> None:
    (letter,) = pavane("dead-letters", "list", "packing", "--json").documents
    redrive = ("dead-letters", "redrive", "packing", f"{letter['partition']}@{letter['offset']}", "--why", "it is thawed")
    assert pavane(*redrive, "--dry-run").out == f"would redrive {redrive[3]} to packing/pack\n"
    assert pavane(*redrive).out == f"redrove {redrive[3]} to packing/pack\n"
    assert "redriven before" in pavane(*redrive).err
    assert pavane("sagas", "retry", ORDER, "--why", "so").out.startswith("said already: retry packing/pack, by ")
    story = go_on(url, lambda story: story.summary.state == "parked")
    assert [failed.retry for failed in story.stuck] == [1], "it was tried once more"
    shown = pavane("sagas", "show", ORDER).out
    assert "decided: redrive" in shown
    assert shown.count("it is thawed") == 2, "the letter's, and the decision's"
    pavane("sagas", "skip", ORDER, "--why", "cheap")
    go_on(url, ended)
    late = pavane(*redrive, "--again")
    assert (late.code, late.out) == (0, "")
    assert "redriven before" in late.err


def test_a_correction_is_not_taken_for_the_retry_that_was_said_before(pavane: Shell, url: str, tmp_path: Path) -> None:
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"toy.order-placed": {"order_id": ORDER, "amount": 14}}))
    correction = ("--with", str(good), "--app", "unit.cli_toy:AGENTS")
    assert pavane("sagas", "retry", ORDER, "--why", "one", "--who", "ann").code == 0
    said = pavane("sagas", "retry", ORDER, "--why", "corrected", *correction)
    assert (said.code, said.out) == (2, "")
    assert "retry packing/pack, by ann, 20" in said.err
    assert "(one)" in said.err
    assert "decide when it has failed again" in said.err
    assert pavane("sagas", "skip", ORDER, "--why", "enough").code == 2

    go_on(url, lambda story: story.summary.state == "parked")
    dry = pavane("sagas", "retry", ORDER, "--why", "corrected", *correction, "--dry-run")
    assert dry.out.startswith("would decide: retry packing/pack, with corrected toy.order-placed\n")
    said = pavane("sagas", "retry", ORDER, "--why", "corrected", *correction)
    assert said.out.startswith("decided: retry packing/pack, with corrected toy.order-placed\n")
    again = pavane("sagas", "retry", ORDER, "--why", "corrected", *correction)
    assert again.code == 0
    assert again.out.startswith("said already: retry packing/pack, with corrected toy.order-placed, by ")
    document = pavane("sagas", "retry", ORDER, "--why", "corrected", *correction, "--json").document
    (before,) = cast("list[dict[str, object]]", document["said_before"])
    assert (before["why"], before["corrected"]) == ("corrected", ["toy.order-placed"])
    assert go_on(url, ended).summary.state == "compensated"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '{"toy.order-placed": {"amount": 14}, "toy.order-placed": {"amount": 15}}',
            "names 'toy.order-placed' more than once",
        ),
        ('{"toy.order-placed": {"order_id": "order-0", "amount": 14, "amount": 15}}', "names 'amount' more than once"),
        ('{"toy.order-placed": {"amount": NaN}}', "NaN is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
    ids=["type", "member", "constant", "nested", "no JSON"],
)
def test_corrected_data_of_which_it_is_not_clear_what_it_says_is_refused(
    pavane: Shell, tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "unclear.json").write_text(text)
    correction = ("--with", str(tmp_path / "unclear.json"), "--app", "unit.cli_toy:AGENTS")
    said = pavane("sagas", "retry", ORDER, "--why", "typo", *correction)
    assert (said.code, said.out) == (2, "")
    assert why in " ".join(said.err.split())


DRY: dict[tuple[str, ...], list[str]] = {
    ("retry",): [
        "would decide: retry packing/pack",
        "  next: undo packing/pack (retry 1)",
        "  then, where all goes well: the saga ends compensated",
    ],
    ("done", "--by-hand"): ["would decide: done packing/pack", "  next: the saga ends compensated"],
    ("skip",): ["would decide: skip packing/pack", "  next: the saga ends abandoned", "  left standing: packing/pack"],
    ("abandon",): ["would decide: abandon", "  next: the saga ends abandoned", "  left standing: packing/pack"],
}


@pytest.mark.parametrize("verb", DRY)
def test_a_dry_run_says_what_comes_next_and_in_the_end_and_what_would_stand(pavane: Shell, verb: tuple[str, ...]) -> None:
    said = pavane("sagas", verb[0], ORDER, *verb[1:], "--why", "perhaps", "--dry-run")
    assert (said.code, said.out.splitlines()) == (0, DRY[verb])


def test_retry_says_that_it_is_for_steps_past_the_pivot_too(pavane: Shell) -> None:
    assert "a step that failed past the pivot" in " ".join(pavane("sagas", "retry", "-h").out.split())


def test_a_dry_run_decides_nothing(pavane: Shell, url: str) -> None:
    said = pavane("sagas", "retry", ORDER, "--why", "perhaps", "--dry-run", "--json")
    assert said.document["decided"] == []
    assert said.document["next"] == ["undo packing/pack (retry 1)"]
    assert said.document["standing"] == [{"step": "packing/pack", "causes": _causes(url)}]
    assert "decided" not in pavane("sagas", "show", ORDER).out.replace("wait for a decision", "")


def _causes(url: str) -> list[str]:
    async def read() -> list[str]:
        async with await open_bus(url) as bus:
            story = await read_story(bus, cli_toy.saga_of(ORDER))
            assert story is not None
            return list(story.stuck[0].causes)

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("retry", ORDER), "--why"),
        (("retry", ORDER, "--why", " "), "say why"),
        (("done", ORDER, "--why", "so"), "--by-hand"),
        (("skip", ORDER, "charge", "--why", "so"), "what failed is packing/pack"),
        (("skip", "nobody", "--why", "so"), "no such saga"),
        (("retry", ORDER, "--why", "so", "--with", "nowhere.json"), "--app"),
        (("retry", ORDER, "--why", "so", "--with", "nowhere.json", "--app", "unit.cli_toy:AGENTS"), "cannot be read"),
        (("retry", ORDER, "--why", "so", "--who", " "), "say who"),
    ],
)
def test_what_is_not_clear_is_not_decided(pavane: Shell, arguments: tuple[str, ...], error: str) -> None:
    said = pavane("sagas", *arguments)
    assert said.code == 2
    assert error in said.err


def test_a_decision_is_a_trace_of_its_own_that_is_linked_to_where_its_saga_began(pavane: Shell, url: str) -> None:
    pavane("sagas", "done", ORDER, "--by-hand", "--why", "cut it open")
    go_on(url, ended)

    async def kept() -> list[SpanRow]:
        async with await open_bus(url) as bus:
            return await all_spans(bus)

    rows = asyncio.run(kept())
    assert_continuous(check_continuity(rows))
    (said,) = [row for row in rows if row.service == "operator"]
    (start,) = [row for row in rows if row.name == f"send {cli_toy.OrderPlaced.event_type}"]
    assert (said.parent_span_id, [link.span_id for link in said.links]) == (None, [start.span_id])
    (acted,) = [row for row in rows if row.parent_span_id == said.span_id]
    assert (acted.service, acted.trace_id) == ("coordinator", said.trace_id)
