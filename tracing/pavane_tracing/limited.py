"""Attributes of spans under OpenTelemetry's limits, which bind what steps and libraries say, not what the platform says.

Else a step that says a lot would push out the ids by which its span is found, and a short limit would cut them.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Tracer
from opentelemetry.util.types import AnyValue
from opentelemetry.util.types import Attributes as Said

from pavane_tracing.attributes import Attributes
from pavane_tracing.layouts import Limits


class LimitedAttributes(BoundedAttributes):
    """What the limits leave of what is said, and beside it, whole and not counted, what the platform says.

    Whoever speaks last of a key is heard. ``said``, ``dropped``: what is left of what was said before, and what is not.
    """

    dropped: int

    def __init__(self, limits: Limits, said: Said = None, dropped: int = 0) -> None:
        self._own: dict[str, AnyValue] = {}
        longest = limits.max_span_attribute_length
        super().__init__(limits.max_span_attributes, said, immutable=False, max_value_len=longest)
        self.dropped += dropped

    def say(self, found: Attributes) -> None:
        """The platform says this."""
        for key, value in found.items():
            if key not in self._own:
                with suppress(KeyError):
                    del self[key]
            self._own[key] = value

    def __getitem__(self, key: str) -> AnyValue:
        return self._own[key] if key in self._own else super().__getitem__(key)

    def __setitem__(self, key: object, value: AnyValue) -> None:
        if isinstance(key, str) and key in self._own:
            self._own[key] = BoundedAttributes(None, {key: value}, max_value_len=self.max_value_len)[key]
        else:
            super().__setitem__(cast("str", key), value)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *super().copy()])

    def __len__(self) -> int:
        return len(self._own) + super().__len__()

    def copy(self) -> MutableMapping[str, AnyValue]:
        """As a dictionary of its own."""
        return {**self._own, **super().copy()}

    def _set_items(self, attributes: Mapping[str, AnyValue]) -> None:
        """By which the SDK's spans, and the base class, take several at once."""
        if self._own.keys().isdisjoint(attributes):
            super()._set_items(attributes)
        else:
            self.update(attributes)


def begin(
    tracer: Tracer, name: str, context: Context, kind: SpanKind, attributes: Attributes, links: Sequence[Link] | None = None
) -> Span:
    """A span of the platform's own, by the SDK. A sampler is told the attributes, too."""
    span = tracer.start_span(name, context, kind, attributes, links)
    say(span, attributes)
    return span


def say(span: Span, found: Attributes) -> None:
    """The platform says something of a span of the SDK's, while it records."""
    attributes: object = getattr(span, "_attributes", None)
    if not isinstance(attributes, LimitedAttributes):
        span.set_attributes(found)
    elif span.is_recording():
        attributes.say(found)
