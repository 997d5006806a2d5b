"""How a process traces, beyond what OpenTelemetry's own variables say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """``tracer``: the platform's own spans are lean, or the SDK's. ``spool``: where spans wait that no collector takes."""

    tracer: Literal["lean", "sdk"] = "lean"
    spool: Path | None = None
    spool_bytes: int = 256 * 1024 * 1024
