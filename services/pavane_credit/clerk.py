"""credit-clerk: stands in for the person who reviews large credits, in the demo, in containers and in tests.

In earnest nobody runs it, and people answer by ``pavane answer``, or by an event of their own on the intake.
"""

from collections.abc import AsyncIterator

from opentelemetry.trace import Span, SpanContext

from pavane import Agent, Context
from pavane.cli.session import open_by
from pavane.settings import load_settings
from pavane_credit.choreography import decision
from pavane_credit.events import CreditDeclined, FraudSuspected, Rating, ReviewAnswered, ReviewRequested
from pavane_events.bus import Bus
from pavane_events.envelope import Envelope, Trace
from pavane_tracing.propagation import trace_of

agent = Agent("credit-clerk")

_TRUSTED: tuple[Rating, ...] = ("A", "B")


class Desk:
    """Where the clerk's answers leave for the intake: over a bus that is given, else one of its own, as the settings say."""

    def __init__(self) -> None:
        self._given: Bus | None = None
        self._bus: Bus | None = None

    def give(self, bus: Bus | None) -> None:
        """The bus to use from now on; None: one of its own."""
        self._given = bus

    async def lifespan(self) -> AsyncIterator[None]:
        """For ``agent.lifespan``."""
        if self._given is not None:
            self._bus = self._given
            yield
            return
        async with await open_by(load_settings()) as self._bus:
            yield

    async def answer(self, context: Context, answer: ReviewAnswered) -> None:
        """Send an answer to the saga that asked. Sent twice, it is admitted once."""
        if self._bus is None:
            raise RuntimeError("the desk is not open")
        saga = context.saga or ""
        envelope = Envelope(
            id=context.idempotency_key,
            source=f"/agents/{agent.name}",
            type=ReviewAnswered.event_type,
            data=answer.to_json(),
            subject=answer.application_id,
            dataschema=ReviewAnswered.dataschema(),
            saga=saga,
            trace=_trace(context.span),
        )
        await self._bus.publish([envelope.to_message(decision.intake, key=saga)])


desk = Desk()
agent.lifespan(desk.lifespan)


@agent.observe
async def review(asked: ReviewRequested, ctx: Context) -> None:
    """Grant a large credit to whoever is rated A or B, and nobody else."""
    await desk.answer(ctx, judge(asked))


@agent.observe
async def tell_applicant(no: CreditDeclined | FraudSuspected, ctx: Context) -> None:
    """A letter of refusal; in the demo a line in the log."""
    ctx.logger.info("refused", application=no.application_id)


def _trace(span: Span) -> Trace:
    """Under what asked, not under this call: its own span is kept by the commit that settles it, which may never be."""
    parent = getattr(span, "parent", None)
    return trace_of(parent if isinstance(parent, SpanContext) else span.get_span_context())


def judge(asked: ReviewRequested) -> ReviewAnswered:
    """What the clerk thinks of it."""
    granted = asked.rating in _TRUSTED
    reason = "rated well enough for the amount" if granted else f"{asked.amount_dm} DM is too much for a {asked.rating}"
    return ReviewAnswered(application_id=asked.application_id, granted=granted, by="stand-in clerk", reason=reason)
