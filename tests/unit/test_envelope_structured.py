"""Structured mode: what is read without looking twice is what a careful look gives."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavane_events import envelope as module
from pavane_events.envelope import Envelope, Trace, parse_structured
from pavane_events.errors import Problem, UndecodableRecord

PLAIN = {
    "specversion": "1.0",
    "id": "e-2",
    "source": "/agents/payment",
    "type": "shop.charged",
    "time": "2026-11-23T03:24:39.109885+00:00",
    "subject": "o-2",
    "dataschema": "urn:pavane:shop.charged:1",
    "sagaid": "s-1",
    "causationid": "e-1",
    "step": "payment/charge",
    "declaration": "payment@1",
    "causes": '["e-0","e-1"]',
    "depth": "1",
    "part": "1/1",
    "datacontenttype": "application/json",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=b",
}
ODD: list[object] = [
    *("", "/", "a/b", "0", "2", "1/2", "2/1", "1.0", "ü", "\ud800", "\x00", "x" * 2049, "\x7f", "2026-11-23"),
    *("[]", '[""]', '["a"]', '["a", "b"]', '["a","b"', '["a\\n"]', '["a""b"]', json.dumps(["a"] * 17), "-1", "1" * 10),
    *(1, True, None, 1.5, ["a"]),
]


def read(document: bytes) -> Envelope | list[Problem]:
    try:
        return parse_structured(document)
    except UndecodableRecord as error:
        return list(error.problems)


def look_twice(members: Mapping[str, object], data: bytes, trace: Trace) -> Envelope | None:
    return None


@given(
    st.dictionaries(
        st.sampled_from([*PLAIN, "baggage", "ID", "extra"]), st.sampled_from(ODD) | st.text(max_size=3), max_size=2
    ),
    st.sets(st.sampled_from(sorted(PLAIN)), max_size=2),
)
def test_both_ways_give_the_same(odd: dict[str, object], gone: set[str]) -> None:
    members = {name: text for name, text in PLAIN.items() if name not in gone} | odd
    document = json.dumps({**members, "data": {"cents": 900}}).encode()
    quickly = read(document)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_usual", look_twice)
        assert read(document) == quickly


def test_what_lanes_write_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_envelope", None)
    event = parse_structured(json.dumps({**PLAIN, "data": {}}).encode())
    assert (event.causes, event.depth) == (("e-0", "e-1"), 1)
    assert event.trace == Trace(PLAIN["traceparent"], PLAIN["tracestate"])
    assert parse_structured(event.to_structured()) == event
