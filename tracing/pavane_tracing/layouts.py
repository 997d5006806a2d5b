"""Layouts: what spans of one kind share, put together and encoded once; and patterns of whole spans, to be filled in."""

import sys
from collections.abc import Sequence
from struct import Struct, calcsize
from typing import Final, Protocol

from opentelemetry.trace import SpanKind

from pavane_tracing import otlp
from pavane_tracing.attributes import Attributes, MessagingAttributes, Told
from pavane_tracing.conventions import EVENT_ID, SAGA_ID

_LONGEST: Final = 254
"""Texts in patterns, in bytes."""
_NO_SAGA: Final = 255
_MOST_PATTERNS: Final = 16
"""Of a layout: one for each set of lengths of what differs, which are few at any time."""

_TRACE: Final = b"\n\x10"
_SPAN: Final = b"\x12\x08"
_PARENT: Final = b'"\x08'
_BEGUN: Final = b"9"
_ENDED: Final = 0x41
_LINK: Final = b"j!" + _TRACE
_FROM_AFAR: Final = b"5\x00\x03\x00\x00"
"""Flags of a link: what it leads to is another process's."""


class Limits(Protocol):
    """What is needed of the SDK's ``SpanLimits``: None is no limit."""

    max_span_attributes: int | None
    max_span_attribute_length: int | None
    max_events: int | None
    max_event_attributes: int | None
    max_links: int | None
    max_link_attributes: int | None
    max_attribute_length: int | None


class Layout:
    """What spans of one kind share: service, name, kind, and attributes that never change."""

    __slots__ = ("attributes", "bounds", "encoded", "head", "kind", "linked", "most_links", "name", "service")

    def __init__(self, service: str, name: str, kind: SpanKind, attributes: Attributes, bounds: Limits) -> None:
        self.service = service
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.bounds = bounds
        self.most_links = sys.maxsize if bounds.max_links is None else bounds.max_links
        self.linked = False
        """Whether its spans are children of another process's, and linked to that."""
        self.head = otlp.head(name, kind)
        self.encoded = self.head + otlp.attributes(attributes)

    def whole(self, trace: bytes, span: bytes, parent: bytes, start_ns: int, end_ns: int, told: Told) -> bytes | None:
        """A span that is nothing but what its message is, encoded and framed; None where it is to be put together."""
        return None


class MessageLayout(Layout):
    """The layout of spans of messages: ``process`` spans, which are linked to their parent, or ``send`` spans."""

    __slots__ = ("_messaging", "_patterns", "_plain")

    def __init__(
        self,
        service: str,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        bounds: Limits,
        messaging: MessagingAttributes,
    ) -> None:
        super().__init__(service, name, kind, attributes, bounds)
        self.linked = kind is SpanKind.CONSUMER
        self._messaging = messaging
        self._plain = self.most_links > 0 and not messaging.doubles
        self._patterns: dict[int, Pattern] = {}

    def whole(self, trace: bytes, span: bytes, parent: bytes, start_ns: int, end_ns: int, told: Told) -> bytes | None:
        """As :meth:`Layout.whole` says. All but ids, times, texts and numbers depends on their lengths alone, and is kept."""
        if not self._plain:
            return None
        saga, size, offset = told.saga, told.size, told.offset
        try:
            event_id = told.event_id.encode()
            saga_id = b"" if saga is None else saga.encode()
        except UnicodeEncodeError:
            return None
        if len(event_id) > _LONGEST or len(saga_id) > _LONGEST:
            return None
        sized = at = b""
        if size is not None:
            if not 0 <= size < otlp.MOST_NUMBER:
                return None
            sized = otlp.varint(size)
        if offset is not None:
            if not 0 <= offset < otlp.MOST_NUMBER:
                return None
            at = otlp.varint(offset)
        said = _NO_SAGA if saga is None else len(saga_id)
        shape = len(event_id) | said << 8 | len(sized) << 16 | len(at) << 20
        pattern = self._patterns.get(shape)
        if pattern is None:
            pattern = self._keep(shape, len(event_id), said, len(sized), len(at))
        return pattern.fill(trace, span, parent, start_ns, end_ns, saga_id, at, event_id, sized)

    def _keep(self, shape: int, event_id: int, saga: int, size: int, offset: int) -> "Pattern":
        """The pattern of spans in which all that differs has these lengths."""
        names = self._messaging
        befores = (
            b"" if saga == _NO_SAGA else otlp.text_before(SAGA_ID, saga),
            otlp.number_before(names.offset, offset) if offset else b"",
            otlp.text_before(names.message_id, event_id),
            otlp.number_before(names.body_size, size) if size else b"",
            otlp.text_before(EVENT_ID, event_id),
        )
        contents = (0 if saga == _NO_SAGA else saga, offset, event_id, size, event_id)
        pattern = Pattern(self.encoded, befores, contents, linked=self.linked)
        if len(self._patterns) >= _MOST_PATTERNS:
            self._patterns.clear()
        self._patterns[shape] = pattern
        return pattern


class Pattern:
    """A whole span, framed, whose contents have known lengths: they are packed between what never changes, in one call."""

    __slots__ = ("_fixed", "_flags", "_pack", "_start")

    def __init__(
        self, encoded: bytes, befores: tuple[bytes, bytes, bytes, bytes, bytes], contents: Sequence[int], *, linked: bool
    ) -> None:
        """``befores`` and ``contents``: of saga, offset, message, size and event all but the content, and how long that is."""
        self._fixed = (encoded + befores[0], befores[1], befores[2], befores[3], befores[4])
        said = "".join([f"{len(before)}s{content}s" for before, content in zip(self._fixed, contents, strict=True)])
        link = "4s16s2s8s5s" if linked else "0s0s0s0s0s"  # one that has no room is left out
        fields = f"16s2s8s2s8s7sQBQ{said}{link}"
        self._start = otlp.frame(len(_TRACE) + calcsize(f"<{fields}")) + _TRACE
        self._flags = (otlp.REMOTE if linked else otlp.LOCAL) + _BEGUN
        self._pack = Struct(f"<{len(self._start)}s{fields}").pack

    def fill(
        self,
        trace: bytes,
        span: bytes,
        parent: bytes,
        start_ns: int,
        end_ns: int,
        saga: bytes,
        offset: bytes,
        event_id: bytes,
        size: bytes,
    ) -> bytes:
        """The span."""
        before_saga, before_offset, before_message, before_size, before_event = self._fixed
        return self._pack(
            self._start,
            trace,
            _SPAN,
            span,
            _PARENT,
            parent,
            self._flags,
            start_ns,
            _ENDED,
            end_ns,
            before_saga,
            saga,
            before_offset,
            offset,
            before_message,
            event_id,
            before_size,
            size,
            before_event,
            event_id,
            _LINK,
            trace,
            _SPAN,
            parent,
            _FROM_AFAR,
        )


Place = tuple[str, str, int, str, str | None, str | None, bool]
"""Topic, group, partition, type, step, the saga's name, and whether it is an undo."""


class ProcessLayout(MessageLayout):
    """The layout of ``process`` spans of one place, and those of what is sent within them, by topic and type."""

    __slots__ = ("_place", "sends")

    def __init__(
        self,
        service: str,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        bounds: Limits,
        messaging: MessagingAttributes,
        place: Place,
    ) -> None:
        super().__init__(service, name, kind, attributes, bounds, messaging)
        self.sends: dict[tuple[str, str], MessageLayout] = {}
        self._place = place

    def is_of(
        self, topic: str, group: str, partition: int, kind: str, step: str | None, saga_name: str | None, undo: bool
    ) -> bool:
        """Whether it is the layout of that place."""
        own = self._place
        return (
            own[0] == topic
            and own[2] == partition
            and own[3] == kind
            and own[4] == step
            and own[5] == saga_name
            and own[6] == undo
            and own[1] == group
        )


def below(limit: int | None, count: int) -> bool:
    """Whether a limit is exceeded; None is no limit."""
    return limit is not None and limit < count
