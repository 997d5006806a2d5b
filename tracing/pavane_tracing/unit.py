"""Units: which spans, the user's own included, belong to the unit of work that they were started in.

A unit travels in OpenTelemetry's context under one key, so it reaches child tasks and threads as the current span does.
It holds its spans from their start, and reads them once they have ended.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.context import Context, create_key, get_value
from opentelemetry.trace import TracerProvider

from pavane_tracing.attributes import Scalar, common_attributes
from pavane_tracing.span import FinishedSpan, SpanRow
from pavane_tracing.unfit import rows_of

MOST_SPANS: Final = 1_000
"""Of one unit of work, how many spans are kept before the user's further ones are only counted, in ``dropped``."""
MOST_STRAYS: Final = 1_000

UNIT_KEY: Final = create_key("pavane.unit")

About = tuple[str | None, str | None, str | None, str | None]
"""Saga, its name, step, and the id of the event."""

_NOTHING: Final[About] = (None, None, None, None)


class Strays:
    """Spans that no unit of work keeps: begun outside any, or not ended when theirs closed. The last 1,000 of them."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._ended: deque[FinishedSpan] = deque(maxlen=MOST_STRAYS)

    def expect(self, span_id: int) -> None:
        """A span that is open belongs nowhere."""
        if len(self._open) < MOST_STRAYS:
            self._open.add(span_id)

    def ended(self, span_id: int, span: FinishedSpan) -> None:
        """Some span has ended; only those expected are kept."""
        if span_id in self._open:
            self._open.discard(span_id)
            self._ended.append(span)

    def take(self) -> list[FinishedSpan]:
        """Those that have ended, each given out once."""
        return [self._ended.popleft() for _ in range(len(self._ended))]


@dataclass(frozen=True, slots=True)
class Service:
    """Whose spans they are, who makes them, and where those go that are nobody's."""

    name: str
    provider: TracerProvider
    strays: Strays = field(default_factory=Strays)


class Unit:
    """The spans of one unit of work in order of start, and the attributes that all of them share.

    Spans may start and end in any thread.
    """

    __slots__ = ("_about", "_common", "_spans", "closed", "dropped", "service")

    def __init__(self, service: Service, common: dict[str, Scalar] | None, about: About = _NOTHING) -> None:
        """``about``: what the attributes that all share are made of, should anybody ask; else ``common``."""
        self.service = service
        self._common = common
        self._about = about
        self.closed = False
        self.dropped = 0
        self._spans: dict[int, FinishedSpan] = {}

    @property
    def common(self) -> dict[str, Scalar]:
        """What all of them say."""
        if self._common is None:
            self._common = common_attributes(*self._about)
        return self._common

    def context(self) -> Context:
        """A context in which nothing is but this unit."""
        return Context({UNIT_KEY: self})

    def add(self, span_id: int, span: FinishedSpan, *, always: bool) -> None:
        """A span has begun. ``always``: the platform's own are kept however many there are."""
        if always or len(self._spans) < MOST_SPANS:
            self._spans[span_id] = span
        else:
            self.dropped += 1

    def close(self) -> None:
        """The work is over: what has not ended by now is a stray."""
        self.closed = True
        if not self._spans:
            return
        for span_id, span in tuple(self._spans.items()):
            if span.end_time is None:
                del self._spans[span_id]
                self.service.strays.expect(span_id)

    def rows(self) -> list[SpanRow]:
        """The spans that have ended; once the unit is closed, those that had ended by then."""
        ended = [span for span in tuple(self._spans.values()) if span.end_time is not None]
        return rows_of(ended, self.service.name) if ended else []


def unit_in(context: Context | None) -> Unit | None:
    """The unit of work that a context (None: the current one) is within, or None outside any."""
    found = get_value(UNIT_KEY, context)
    return found if isinstance(found, Unit) else None
