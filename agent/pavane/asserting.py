"""Asserting: that one trace follows every message, as a line of somebody's own tests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pavane.cli.session import open_by
from pavane.continuity import check_bus
from pavane.settings import load_settings
from pavane_saga.story import find_saga
from pavane_tracing import finding
from pavane_tracing.finding import ContinuityReport


def assert_continuous(
    bus: str | ContinuityReport,
    saga: str | None = None,
    *,
    jaeger_url: str | None = None,
    otlp: Path | str | None = None,
    lost_allowed: int = 0,
) -> ContinuityReport:
    """Raise AssertionError with every break, by the name of its hop, in the trace of one saga or of every saga of a bus.

    ``bus`` is an address, as in ``sqlite:///pavane.db``; other settings are those of the environment. Or it is the report
    that :func:`~pavane.continuity.check_bus` gave for a bus that is open. ``saga``: an id, the beginning of one, or a
    subject. Where spans are read: see there. ``lost_allowed``: how many may be missing, where processes were killed.
    Returns what was found. Blocks; inside a running event loop, too. Raises also what ``check_bus`` raises.
    """
    report = bus if isinstance(bus, ContinuityReport) else _in_a_thread(bus, saga, jaeger_url, otlp)
    finding.assert_continuous(report, lost_allowed=lost_allowed)
    return report


def _in_a_thread(bus: str, saga: str | None, jaeger_url: str | None, otlp: Path | str | None) -> ContinuityReport:
    """A test may be a coroutine itself, and then this is within its loop."""
    checking = _check(bus, saga, jaeger_url, Path(otlp) if otlp is not None else None)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, checking).result()


async def _check(address: str, wanted: str | None, jaeger_url: str | None, otlp: Path | None) -> ContinuityReport:
    async with await open_by(load_settings(bus=address)) as bus:
        saga = None
        if wanted is not None:
            found = await find_saga(bus, wanted)
            assert len(found) == 1, f"{len(found)} sagas may be meant by {wanted!r}"
            (saga,) = found
        return await check_bus(bus, saga, jaeger_url=jaeger_url, otlp=otlp)
