"""OTLP's protobuf for the platform's own spans: what spans of one kind share is encoded once, the rest is put between.

A message is a run of fields, so pieces that were encoded apart are joined by writing them one after the other. Source:
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final

from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AnyValue

from pavane_tracing.attributes import Scalar
from pavane_tracing.span import SpanLink

_NAME: Final = b"*"
_ATTRIBUTE: Final = b"J"
_EVENT: Final = b"Z"
_LINK: Final = b"j"
_STATUS: Final = b"z"
_FRAME: Final = b"\x12"
"""Of a span among those of its scope."""
LOCAL: Final = b"\x85\x01\x00\x01\x00\x00"
"""Flags of a span: whether its parent is of another process is known (bit 8), and it is not (bit 9)."""
REMOTE: Final = b"\x85\x01\x00\x03\x00\x00"
_TIMES: Final = Struct("<6sBQBQ").pack
_EVENT_TIME: Final = Struct("<BQ").pack
_DOUBLE: Final = Struct("<d").pack

_hex: Final = bytes.fromhex


def varint(number: int) -> bytes:
    """A whole number, seven bits to a byte; below zero as its two's complement of 64 bits."""
    if 0 <= number < _MOST_SMALL:
        return _SMALL[number]
    if 0 <= number < _MOST_SMALL << 7:
        return _MORE[number & 0x7F] + _SMALL[number >> 7]
    return _varint(number)


def _varint(number: int) -> bytes:
    number &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_MOST_SMALL: Final = 1 << 11
_SMALL: Final = tuple(_varint(number) for number in range(_MOST_SMALL))
_FRAMES: Final = tuple(_FRAME + each for each in _SMALL)
_MORE: Final = tuple(bytes((number | 0x80,)) for number in range(0x80))


def field(tag: bytes, content: bytes) -> bytes:
    """A field that has a length."""
    return tag + varint(len(content)) + content


def head(name: str, kind: SpanKind) -> bytes:
    """A span's name and kind."""
    return field(_NAME, _utf8(name)) + b"0" + varint(kind.value + 1)


def attributes(values: Mapping[str, AnyValue]) -> bytes:
    """A span's attributes. A number beyond 64 bits is left out, as the SDK does, and what is nested too deep to be read."""
    return _pairs(_ATTRIBUTE, values)


def resource(values: Mapping[str, AnyValue]) -> bytes:
    """What describes a service, for :func:`resource_spans`."""
    return _pairs(b"\n", values)


def scope(name: str) -> bytes:
    """An instrumentation scope, for :func:`resource_spans`."""
    return field(b"\n", _utf8(name))


def append_values(parts: list[bytes], values: dict[str, Scalar]) -> None:
    """Attributes that differ from span to span, nearly all of them short texts and numbers.

    Of an attribute all but its content depends on its key and the content's length alone, and is kept.
    """
    for key, value in values.items():
        place, content = _PLACES, b""
        if isinstance(value, str):
            try:
                content = value.encode()
            except UnicodeEncodeError:
                content = _utf8(value)
            if len(content) < _TEXTS:
                place = len(content)
        elif type(value) is int and 0 <= value < MOST_NUMBER:
            content = varint(value)
            place = _TEXTS + len(content)
        if place == _PLACES:
            parts.append(_pairs(_ATTRIBUTE, {key: value}))
            continue
        starts = _STARTS.get(key)
        start = None if starts is None else starts[place]
        parts.append(_start(key, place) if start is None else start)
        parts.append(content)


_TEXTS: Final = 256
"""Lengths of texts whose beginnings are kept: 0 up to here."""

_PLACES: Final = _TEXTS + 11
"""Those of numbers lie behind them: they have 1 to 10 bytes."""

_STARTS: Final[dict[str, list[bytes | None]]] = {}
_MOST_STARTS: Final = 256
"""Keys."""

MOST_NUMBER: Final = 1 << 60
"""Larger ones are rare, and slow to compare with."""


def _start(key: str, place: int) -> bytes:
    """Everything of an attribute but its content, which is the last of it: a text, or a number's bytes."""
    length = place if place < _TEXTS else place - _TEXTS
    whole = _pairs(_ATTRIBUTE, {key: "x" * length if place < _TEXTS else 1 << 7 * (length - 1)})
    start = whole[: len(whole) - length]
    if key in _STARTS or len(_STARTS) < _MOST_STARTS:
        _STARTS.setdefault(key, [None] * _PLACES)[place] = start
    return start


def text_before(key: str, length: int) -> bytes:
    """Everything of an attribute but its text, which has so many bytes and is the last of it."""
    return _start(key, length)


def number_before(key: str, length: int) -> bytes:
    """Everything of an attribute but its number, whose varint has so many bytes, 1 to 9."""
    return _start(key, _TEXTS + length)


def identity(trace_id: str, span_id: str, parent_id: str | None) -> bytes:
    """A span's ids, which are given in hex."""
    if parent_id is None:
        return _hex(f"0a10{trace_id}1208{span_id}")
    return _hex(f"0a10{trace_id}1208{span_id}2208{parent_id}")


def state(header: str) -> bytes:
    """What vendors added to the context."""
    return field(b"\x1a", _utf8(header))


def times(start_ns: int, end_ns: int, *, remote: bool) -> bytes:
    """When a span began and ended; ``remote``: its parent is of another process, or was told by a message."""
    return _TIMES(REMOTE if remote else LOCAL, 0x39, start_ns, 0x41, end_ns)


def remote_link(link: SpanLink) -> bytes:
    """A link without attributes to a span of another process."""
    return _hex(f"6a210a10{link.trace_id}1208{link.span_id}3500030000")


def link_to(link: SpanLink, values: Mapping[str, AnyValue], dropped: int, *, remote: bool) -> bytes:
    """A link of the user's; ``dropped``: how many of its attributes the limits left out."""
    left_out = b"(" + varint(dropped) if dropped else b""
    flags = b"5\x00\x03\x00\x00" if remote else b"5\x00\x01\x00\x00"
    return field(_LINK, identity(link.trace_id, link.span_id, None) + _pairs(b'"', values) + left_out + flags)


def event(name: str, time_ns: int, values: Mapping[str, AnyValue], dropped: int) -> bytes:
    """Something that happened within a span."""
    described = _pairs(b"\x1a", values)
    left_out = b" " + varint(dropped) if dropped else b""
    return field(_EVENT, _EVENT_TIME(0x09, time_ns) + field(b"\x12", _utf8(name)) + described + left_out)


def status(code: StatusCode, message: str | None) -> bytes:
    """How a span ended."""
    described = field(b"\x12", _utf8(message)) if message else b""
    return field(_STATUS, described + (b"\x18" + varint(code.value) if code.value else b""))


def dropped_counts(attributes_dropped: int, events_dropped: int, links_dropped: int) -> bytes:
    """How much the limits of a span left out."""
    counts = ((b"P", attributes_dropped), (b"`", events_dropped), (b"p", links_dropped))
    return b"".join([tag + varint(count) for tag, count in counts if count])


def frame(length: int) -> bytes:
    """What goes before a span of so many bytes among those of its scope."""
    return _FRAMES[length] if length < _MOST_SMALL else _FRAME + varint(length)


def framed(parts: list[bytes]) -> bytes:
    """A span's fields as :func:`resource_spans` takes them: any number of spans, one after the other."""
    length = 0
    for part in parts:
        length += len(part)
    parts.insert(0, frame(length))
    return b"".join(parts)


def resource_spans(resource: bytes, scope: bytes, spans: Sequence[bytes]) -> list[bytes]:
    """Framed spans of one service and scope as a field of an export request, in pieces; the others are encoded, too."""
    scoped = field(b"\n", scope)
    length = len(scoped) + sum(map(len, spans))
    before = field(b"\n", resource) + _FRAME + varint(length)
    return [b"\n", varint(len(before) + length), before, scoped, *spans]


class _Unfit(ValueError):
    """A number that OTLP has no room for, or a value in values in values that those who read protobuf give up on."""


_DEEPEST: Final = 90
"""Messages within a value: they read 100, and then refuse the request; some are around the value."""


def _pairs(tag: bytes, values: Mapping[str, AnyValue]) -> bytes:
    pairs: list[bytes] = []
    for key, value in values.items():
        with suppress(_Unfit):
            pairs.append(field(tag, _key_value(key, value)))
    return b"".join(pairs)


def _key_value(key: str, value: AnyValue, room: int = _DEEPEST) -> bytes:
    return field(b"\n", _utf8(key)) + field(b"\x12", _any_value(value, room))


def _any_value(value: AnyValue, room: int) -> bytes:
    """The value's one field; nothing for None. ``room``: for so many messages within it."""
    if isinstance(value, str):
        return field(b"\n", _utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _Unfit
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return b"!" + _DOUBLE(value)
    if isinstance(value, bytes):
        return field(b":", value)
    if room < 3 and isinstance(value, (Sequence, Mapping)):
        raise _Unfit
    if isinstance(value, Sequence):
        return field(b"*", b"".join([field(b"\n", _any_value(each, room - 2)) for each in value]))
    if isinstance(value, Mapping):
        return field(b"2", b"".join([field(b"\n", _key_value(str(key), each, room - 3)) for key, each in value.items()]))
    return b""


def _utf8(text: str) -> bytes:
    """Half a surrogate pair is no text: it is replaced."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace")
