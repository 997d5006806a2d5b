"""The current context, as OpenTelemetry's own functions have it."""

import logging
from contextvars import copy_context

import pytest
from opentelemetry.context import Context, attach, detach, get_current

from pavane_tracing.current import enter, leave


def test_what_is_entered_is_current_for_opentelemetry_and_left_again() -> None:
    outer = attach(Context({"outer": 1}))
    try:
        inner = Context({"inner": 1})
        token = enter(inner)
        assert get_current() is inner
        leave(token)
        assert get_current() == {"outer": 1}
    finally:
        detach(outer)


def test_one_left_elsewhere_is_logged_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = get_current()
    token = copy_context().run(enter, Context({"elsewhere": 1}))
    with caplog.at_level(logging.ERROR):
        leave(token)
    assert "Failed to detach context" in caplog.text
    assert get_current() is before
