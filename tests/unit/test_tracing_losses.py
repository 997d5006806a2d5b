"""Losses: the library's many lines become one when spans begin to be lost, and one when they arrive again."""

import logging

import pytest

from pavane_tracing.losses import Losses

EXPORTER = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_first_of_a_row_of_losses_is_told_with_its_first_reason(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    for attempt in range(3):
        with losses:
            EXPORTER.warning("refused, attempt %d", attempt)
            EXPORTER.error("given up")
        losses.lose(512)
    assert lines(caplog) == ["spans are dropped until the OTLP endpoint takes them again, work goes on: refused, attempt 0"]


def test_when_they_arrive_again_it_says_how_many_were_lost_and_the_next_row_is_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    losses = Losses()
    losses.lose(512)
    losses.lose(100)
    losses.arrive()
    losses.arrive()
    losses.lose(1)
    told = lines(caplog)
    assert len(told) == 3
    assert told[1] == "spans are exported again: 612 or more were dropped meanwhile"


def test_trouble_that_is_overcome_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    with losses:
        EXPORTER.warning("refused, trying again")
    losses.arrive()
    assert lines(caplog) == []


def test_what_others_do_with_the_same_library_is_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    Losses()
    EXPORTER.warning("somebody else's trouble")
    assert lines(caplog) == ["somebody else's trouble"]
