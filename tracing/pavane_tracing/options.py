"""How a process traces, beyond what OpenTelemetry's own variables say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pavane_tracing.edges import NEW_LINKED, Edge


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """``tracer``: the platform's own spans are lean, or the SDK's. ``spool``: where spans wait that no collector takes.

    ``new_linked``: the edges at which a new trace begins.
    """

    tracer: Literal["lean", "sdk"] = "lean"
    spool: Path | None = None
    spool_bytes: int = 256 * 1024 * 1024
    new_linked: frozenset[Edge] = NEW_LINKED
