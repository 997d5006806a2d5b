"""``pavane trace --check``: whether the trace of a saga, or of every saga, is whole; every break by the name of its hop."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pavane.cli.output import paint, print_json, safe
from pavane_events.bus import Bus

if TYPE_CHECKING:
    from pavane_tracing.finding import ContinuityReport, Finding

MOST_LINES = 100
ARRIVING = "spans reach Jaeger some seconds after the work (OTEL_BSP_SCHEDULE_DELAY, else 5): ask again if it ended just now"


async def check(bus: Bus, wanted: str | None, jaeger_url: str | None, otlp: Path | None) -> "ContinuityReport":
    """The report of the saga that is meant, or of all. Raises :class:`ConfigurationError`, also where no spans are."""
    from pavane.cli.sagas import saga_id
    from pavane.cli.session import check_deployed
    from pavane.continuity import check_bus

    await check_deployed(bus)
    saga = await saga_id(bus, wanted) if wanted is not None else None
    return await check_bus(bus, saga, jaeger_url=jaeger_url, otlp=otlp)


def print_report(report: "ContinuityReport", lost_allowed: int, *, as_json: bool) -> bool:
    """Say what was found; whether anything is broken."""
    broken = report.broken(lost_allowed)
    if as_json:
        print_json({"continuous": not broken, "lostAllowed": lost_allowed, **report.to_json()})
        return bool(broken)
    for line in islice(_lines(broken), MOST_LINES):
        print(line)
    more = sum(report.counts.values()) - MOST_LINES
    if broken and more > 0:
        print(f"... and {more} more: --json has the first thousand, and the count of all")
    print(report)
    passed_over = len(report.findings) - len(broken)
    if passed_over:
        print(f"{passed_over} of these are passed over: no more than {lost_allowed} spans may be missing, and are")
    return bool(broken)


def _lines(broken: "tuple[Finding, ...]") -> Iterator[str]:
    for finding in broken:
        where = f"  saga {finding.saga}" if finding.saga is not None else f"  trace {finding.trace}"
        yield f"{paint(finding.code, 'red')}  {safe(str(finding))}{paint(safe(where), 'dim')}"
