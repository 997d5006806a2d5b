"""What was declared when: an event owes the steps of the version in force at its offset, however late they answer."""

from pavane_saga.facts import Declared, Happened, StepPlan
from pavane_saga.history import Plan, declared_after


def version(number: int, steps: tuple[str, ...], since: int, *, topic: str = "asked") -> Declared:
    """A version of the clerk whose steps listen to one topic from an offset on."""
    plans = tuple(StepPlan(f"clerk/{name}", ((topic,),), (), effects=True) for name in steps)
    return Declared("clerk", f"clerk@{number}", plans, ((topic, since),))


def plan(first: Declared, *others: Declared) -> Plan:
    """What a lane knows that has heard these, in order."""
    known: tuple[Declared, ...] = (first,)
    for each in others:
        known = declared_after(known, each)
    return Plan("saga", "asked", "done", frozenset(), {"clerk": known[-1]}, earlier={"clerk": known[:-1]})


def owed(found: Plan, offset: int) -> set[str]:
    """The steps that owe an answer to an event at that offset."""
    event = Happened("e", "asked", None, (), 1, 1, offset, None, 0, b"")
    return {step.name.partition("/")[2] for step in found.owing(event)}


def test_an_event_before_a_version_still_owes_the_one_before_it() -> None:
    found = plan(version(1, ("file",), 0), version(2, ("file", "stamp"), 10), version(3, ("stamp",), 20))
    assert [owed(found, offset) for offset in (0, 9, 10, 19, 20)] == [
        {"file"},
        {"file"},
        {"file", "stamp"},
        {"file", "stamp"},
        {"stamp"},
    ]


def test_events_before_the_first_declaration_owe_nothing() -> None:
    assert owed(plan(version(1, ("file",), 5)), 4) == set()
    assert owed(plan(version(1, ("file",), 5), version(2, ("stamp",), 8)), 4) == set()


def test_a_version_with_the_same_steps_follows_the_last_one_from_its_offsets_on() -> None:
    found = plan(version(1, ("file",), 3), version(2, ("file",), 12))
    assert found.earlier["clerk"] == ()
    assert owed(found, 3) == {"file"}
    assert found.declared["clerk"].version == "clerk@2"


def test_a_topic_that_nobody_reads_any_more_is_not_owed_for() -> None:
    assert owed(plan(version(1, ("file",), 0), version(2, ("file",), 0, topic="other")), 50) == set()


def test_what_is_known_of_a_step_outlives_its_removal() -> None:
    found = plan(version(1, ("file",), 0), version(2, ("stamp",), 10))
    assert found.has_effects("clerk/file")
    assert set(found.steps) == {"clerk/file", "clerk/stamp"}
    assert found.versions == {"clerk@2"}
