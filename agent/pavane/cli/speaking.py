"""Speaking: what a command publishes goes out together, each under a trace that begins with it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pavane.runner import Surroundings
from pavane.settings import load_settings
from pavane_events.bus import Bus, TopicSpec
from pavane_events.envelope import Trace
from pavane_events.record import Message
from pavane_tracing.edges import Edge
from pavane_tracing.propagation import origin_of
from pavane_tracing.store import SPANS_TOPIC, encode
from pavane_tracing.work import FLUSH_S, Tracing


@dataclass(slots=True)
class Outbox:
    """What is to be published when the command has said all."""

    tracing: Tracing
    messages: list[Message] = field(default_factory=list[Message])

    def begin(
        self,
        topic: str,
        message_id: str,
        kind: str,
        *,
        saga: str | None,
        size: int,
        after: Sequence[Trace] = (),
        edge: Edge = "operator",
    ) -> Trace:
        """Begin a trace with a message: the trace to send it under. Its first span goes out with it where spans are kept.

        ``after``: what led to it. By the edge's policy the trace is linked to all of it, or is that of the first one.
        """
        led = [each for each in after if origin_of(each) is not None]
        goes_on = led and edge not in self.tracing.new_linked
        parent, links = (led[0], led[1:]) if goes_on else (None, led)
        point = self.tracing.send_root(topic, message_id, kind, saga=saga, size=size, parent=parent, links=links)
        if point.spans:
            self.messages.append(encode(point.spans, saga))
        return point.trace


@asynccontextmanager
async def speaking(bus: Bus, service: str) -> AsyncGenerator[Outbox]:
    """An outbox that is published, all or nothing, when the block is left; where it is left by an exception, nothing is."""
    tracing = Surroundings.of(load_settings()).tracing(service, bus, sender=True)
    outbox = Outbox(tracing)
    try:
        yield outbox
        if outbox.messages:
            if tracing.keep:
                await bus.create_topics([TopicSpec(SPANS_TOPIC)])
            await bus.publish(outbox.messages)
    finally:
        tracing.shutdown(FLUSH_S)
