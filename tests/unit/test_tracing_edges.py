"""Edges: which policy each has, how a setting changes it, and what a sender without spans of its own stamps."""

import pytest

from pavane.settings import load_settings
from pavane_events.envelope import NO_TRACE, Envelope, Trace
from pavane_events.errors import ConfigurationError
from pavane_tracing.edges import DEFAULTS, NEW_LINKED, edges_of
from pavane_tracing.propagation import begun_anew, is_continued
from pavane_tracing.work import Tracing

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_without_a_setting_the_defaults_hold() -> None:
    assert edges_of("") == NEW_LINKED == {"delayed_retry", "timer", "declaration", "operator", "redrive"}
    assert set(DEFAULTS) > NEW_LINKED


def test_a_setting_changes_edges_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert edges_of(" redrive=continue, undo = new_linked ,") == (NEW_LINKED - {"redrive"}) | {"undo"}
    monkeypatch.setenv("PAVANE_TRACE_EDGES", "timer=continue")
    assert load_settings().tracing_options().new_linked == NEW_LINKED - {"timer"}


@pytest.mark.parametrize("text", ["redrives=continue", "redrive=maybe", "redrive", "=continue"])
def test_what_is_no_edge_or_no_policy_is_an_error_that_names_the_edges(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PAVANE_TRACE_EDGES", text)
    with pytest.raises(ConfigurationError, match="delayed_retry") as raised:
        load_settings()
    assert [problem.where for problem in raised.value.problems] == ["PAVANE_TRACE_EDGES"]


@pytest.mark.parametrize(
    ("state", "continued"), [("pavane=3", True), ("pavane=3,a=b", True), ("pavane=0", False), (None, False), ("a=b", False)]
)
def test_a_context_goes_on_where_it_hands_on_a_budget(state: str | None, continued: bool) -> None:
    assert is_continued(Trace(PARENT, state)) is continued
    assert not is_continued(Trace(None, state))


def test_a_context_can_be_stamped_afterwards() -> None:
    assert begun_anew(Trace(PARENT, "pavane=7,a=b", "c=d")) == Trace(PARENT, "pavane=0,a=b", "c=d")
    assert begun_anew(Trace(PARENT)) == Trace(PARENT, "pavane=0")
    assert begun_anew(NO_TRACE) is NO_TRACE


def test_a_sender_without_spans_stamps_by_the_defaults() -> None:
    incoming = Trace(PARENT, "pavane=7,a=b")
    event = Envelope(id="1", source="/s", type="t", data=b"{}", trace=incoming)
    work = Tracing.off().process(event, topic="t", partition=0, offset=0, group="g")
    work.split(3)
    assert work.send("t", "2", "t", edge="undo") is incoming
    assert work.carry("delayed_retry") == Trace(PARENT, "pavane=0,a=b")
    assert work.carry("event") is incoming
    redriven = Tracing.off().send_root("t", "3", "t", links=[Trace("junk"), Trace(PARENT)])
    assert redriven.trace == Trace(PARENT, "pavane=0")
