"""Sampling by saga: whether a saga is traced is decided once, from its id, so that all of its linked traces agree."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.propagation import Origin

_SHARES: Final = {"always_on": 1.0, "always_off": 0.0}
_KINDS: Final = (*_SHARES, "traceidratio")
BUILT_IN: Final = (*_KINDS, *(f"parentbased_{kind}" for kind in _KINDS))
_ALL: Final = 1 << 64


class SagaSampler:
    """Decides where a trace begins; elsewhere what was decided is followed, unless ``follow`` says otherwise.

    A saga (where there is none, a trace) is sampled if its id falls into the lower ``share`` of all ids, 0 to 1. A
    trace that begins with a link, as a delayed retry does, is sampled if the span that led to it was.
    """

    def __init__(self, share: float = 1.0, *, follow: bool = True) -> None:
        self.share = share
        self.follow = follow
        self._bound: int = round(share * _ALL)

    def samples(self, origin: Origin | None, saga: str | None, trace_id: str) -> bool:
        """Whether a span is sampled. ``origin``: its parent, or what its trace is linked to."""
        if origin is not None and self.follow:
            return origin.sampled
        return self.samples_id(saga, trace_id)

    def samples_id(self, saga: str | None, trace_id: str) -> bool:
        """Whether a saga is sampled; without one, a trace, by the rule of the SDK's ``traceidratio``."""
        if self._bound in (0, _ALL):
            return self._bound > 0
        if saga is None:
            return int(trace_id[16:], 16) < self._bound
        return int.from_bytes(blake2b(saga.encode(errors="replace"), digest_size=8).digest()) < self._bound


def sampler_of(variables: Mapping[str, str]) -> SagaSampler | None:
    """The sampler that ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` ask for; None for one that is not built in.

    Raises :class:`ConfigurationError` for an argument that is no share.
    """
    name = variables.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    follow = name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    if kind in _SHARES:
        return SagaSampler(_SHARES[kind], follow=follow)
    if kind != "traceidratio":
        return None
    return SagaSampler(_share(variables.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"), follow=follow)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        problem = Problem("OTEL_TRACES_SAMPLER_ARG", "tracing.sampler", f"{text!r} is no share: use a number from 0 to 1")
        raise ConfigurationError("tracing cannot be set up", [problem])
    return share
