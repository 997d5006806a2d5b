"""How a process traces, beyond what OpenTelemetry's own variables say."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pavane_tracing.edges import NEW_LINKED, Edge


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """``tracer``: the platform's own spans are lean, or the SDK's. ``spool``: where spans wait that no collector takes.

    ``unsampled``: what becomes of the spans of sagas that are not sampled. Those that are held are exported where their
    saga fails; a process that does not live to see that exports them at once.
    ``new_linked``: the edges at which a new trace begins.
    """

    tracer: Literal["lean", "sdk"] = "lean"
    unsampled: Literal["dropped", "held", "exported"] = "dropped"
    spool: Path | None = None
    spool_bytes: int = 256 * 1024 * 1024
    new_linked: frozenset[Edge] = NEW_LINKED

    def of_a_sender(self) -> "TracingOptions":
        """For who only sends, and is not told how sagas end."""
        return replace(self, unsampled="exported") if self.unsampled == "held" else self
