"""Doubt: on what other versions of a step began, and which calls an input may have been the last one of."""

import json
from collections.abc import Mapping
from typing import cast

import pytest

from pavane import Agent, Event
from pavane.arms import arms_key, decode_arms, encode_arms, may_have_begun
from pavane.doubt import begins_on, calls_begun_by
from pavane.marks import KEY, Marks
from pavane_events.bus import Lane
from pavane_events.envelope import Envelope
from pavane_events.record import Record
from unit.test_marks import Stored


class One(Event, type="doubt.one"): ...


class Two(Event, type="doubt.two"): ...


class Three(Event, type="doubt.three"): ...


def event(kind: str, identity: str = "") -> Envelope:
    return Envelope(id=identity or kind, source="/t", type=f"doubt.{kind}", data=b"{}", saga="s")


def test_what_a_step_begins_on_is_told_whatever_its_parameters_are_called() -> None:
    agent = Agent("a")

    @agent.step(effects=False)
    async def both(two: Two, one: One | Three) -> None: ...

    @agent.step(effects=False)
    async def likewise(other: Three | One, second: Two) -> None: ...

    def key(one: One) -> str:
        return "one"

    @agent.step(effects=False, lock=key)
    async def locked(one: One) -> None: ...

    @agent.step(effects=False, pivot=True)
    async def pay(one: One) -> None: ...

    told = {name: begins_on(step) for name, step in agent.steps.items()}
    assert told == {
        "both": "doubt.one|doubt.three doubt.two",
        "likewise": "doubt.one|doubt.three doubt.two",
        "locked": "lock: doubt.one",
        "pay": "",
    }


@pytest.mark.parametrize(
    ("begun_on", "expected"),
    [
        ("doubt.one", [("one",)]),
        ("lock: doubt.one", [("one",)]),
        ("doubt.one|doubt.three", [("one",)]),
        ("doubt.one doubt.two", [("one", "two")]),
        ("doubt.one doubt.three", []),
        ("doubt.two", []),
    ],
)
def test_an_input_may_have_been_the_last_of_a_call(begun_on: str, expected: list[tuple[str, ...]]) -> None:
    assert calls_begun_by(event("one"), {"two": ("doubt.two",)}, [begun_on, begun_on]) == expected


def test_a_lane_remembers_on_what_other_versions_of_a_step_began_and_rows_of_before_say_nothing_of_it() -> None:
    rows: dict[bytes, bytes] = {KEY: json.dumps({"version": "v0", "mark": {"doubt.one": 9}, "owing": ["a/take"]}).encode()}

    def marks_of(version: str, begins: Mapping[str, str]) -> Marks:
        lane = cast("Lane", Stored(rows, {"doubt.one": 0}))
        found = Marks(lane, version, ["doubt.one"], 10, None, begins.keys(), begins)
        rows.update({key: value for key, value in found.advance().items() if value is not None})
        return found

    first = marks_of("v1", {"a/take": "doubt.one"})
    assert first.may_have_begun_otherwise(Record("doubt.one", 0, 8, None, b"", (), 0))
    assert (first.owed_under("a/take"), first.begun_on_otherwise("a/take")) == ("v0", ())
    assert marks_of("v2", {"a/take": "doubt.one doubt.two"}).begun_on_otherwise("a/take") == ["doubt.one"]
    assert marks_of("v3", {"a/take": "doubt.one doubt.two"}).begun_on_otherwise("a/take") == ["doubt.one"]
    back = marks_of("v4", {"a/take": "doubt.one"})
    assert (back.begun_on_otherwise("a/take"), back.owed_under("a/take")) == (["doubt.one doubt.two"], "v3")
    assert marks_of("v5", {}).begun_on_otherwise("a/take") == ["doubt.one", "doubt.one doubt.two"]


def test_what_is_held_in_doubt_is_held_as_ever() -> None:
    arms = {"one": event("one")}
    plain, doubted = encode_arms(arms), encode_arms(arms, may_have_begun=True)
    assert (may_have_begun(None), may_have_begun(plain), may_have_begun(doubted)) == (False, False, True)
    assert {name: arm.id for name, arm in decode_arms(doubted).items()} == {"one": "one"}
    assert decode_arms(plain) == decode_arms(doubted)
    assert arms_key("s", "a/take") == b"a/s/a/take"
