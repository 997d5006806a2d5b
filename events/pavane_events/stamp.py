"""Stamp: what the outputs of one step have in common, written once; a message is written by adding the rest."""

from pavane_events.envelope import NO_TRACE, Envelope, causes_header, trace_headers
from pavane_events.record import Headers, Message, size_of


class Stamp:
    """Writes envelopes that differ from a common one as outputs of one step do, as they would write themselves.

    Shared by all messages are content type, version, source, type, contract, step, declaration and part: less time, and
    less memory.
    """

    __slots__ = ("_contract", "_head", "_kind", "_part", "_size", "_step", "_topic")

    def __init__(self, common: Envelope) -> None:
        headers = dict(common.to_message().headers)

        def those(*names: str) -> Headers:
            return tuple((name, headers[name]) for name in names if name in headers)

        self._topic = common.type
        self._head = those("content-type", "ce_specversion")
        self._kind = those("ce_source", "ce_type")
        self._contract = those("ce_dataschema")
        self._step = those("ce_step", "ce_declaration")
        self._part = those("ce_part")
        self._size = size_of((*self._head, *self._kind, *self._contract, *self._step, *self._part))

    def message(self, envelope: Envelope) -> Message:
        """What :meth:`Envelope.to_message` gives."""
        saga, subject = envelope.saga, envelope.subject
        key = None
        first: list[tuple[str, bytes]] = []
        if envelope.time:
            first.append(("ce_time", envelope.time.encode()))
        if subject:
            key = subject.encode()
            first.append(("ce_subject", key))
        then: list[tuple[str, bytes]] = []
        if saga:
            key = saga.encode()
            then.append(("ce_sagaid", key))
        if envelope.causation:
            then.append(("ce_causationid", envelope.causation.encode()))
        last: list[tuple[str, bytes]] = []
        if envelope.causes:
            last.append(("ce_causes", causes_header(envelope.causes)))
        if envelope.depth:
            last.append(("ce_depth", b"%d" % envelope.depth))
        identity = ("ce_id", envelope.id.encode())
        traced = trace_headers(envelope.trace) if envelope.trace is not NO_TRACE else ()
        message = Message(
            self._topic,
            envelope.data,
            key,
            (
                *self._head,
                identity,
                *self._kind,
                *first,
                *self._contract,
                *then,
                *self._step,
                *last,
                *self._part,
                *traced,
            ),
            None,
            envelope,
        )
        own = size_of((identity, *first, *then, *last, *traced))
        message.size_is(self._size + own + len(key or b"") + len(envelope.data))
        return message
