"""``pavane trace``: a saga's spans as a tree, kept by the bus itself or read back from elsewhere, and whether it is whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import BusOption, JsonOption, settings_for
from pavane.cli.output import is_terminal, print_json, say
from pavane.cli.trace_check import ARRIVING, check, print_report
from pavane_events.bus import Bus
from pavane_events.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from pavane_saga.story import Story
    from pavane_tracing.finding import ContinuityReport, Finding
    from pavane_tracing.tree import SagaTree

_WIDTH = 100
_WIDEST = 140
_KEPT = (
    "With an OTLP endpoint and PAVANE_TRACE_KEEP=failed those that fail are exported all the same: "
    "PAVANE_JAEGER_URL=... pavane trace draws them"
)

SagaOption = Annotated[
    str | None,
    typer.Argument(metavar="[SAGA]", help="An id, the beginning of one, or a subject (DE-0001).", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Traced:
    """What there is to see of one saga. ``trace_id``: the trace that it began with, if it was ever traced.

    ``sampled``: spans were to be made of it from its first event on. ``exported``: its spans are not kept by the bus.
    """

    tree: "SagaTree"
    report: "ContinuityReport"
    trace_id: str | None
    sampled: bool
    exported: bool


def trace(
    saga: SagaOption = None,
    checking: Annotated[bool, typer.Option("--check", help="Only say whether it is whole.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Check every saga of the bus.")] = False,
    lost_allowed: Annotated[
        int,
        typer.Option(
            "--lost-allowed",
            min=0,
            metavar="N",
            help="How many spans may be missing: a process killed with -9 takes along what it had not exported.",
        ),
    ] = 0,
    otlp: Annotated[
        Path | None,
        typer.Option(
            "--otlp", metavar="FILE", help="Read spans there: OTLP's JSON, as the Collector writes.", show_default=False
        ),
    ] = None,
    link_only: Annotated[bool, typer.Option("--jaeger", help="Only print the link to it in Jaeger.")] = False,
    all_spans: Annotated[bool, typer.Option("--all-spans", help="Draw every send span, too.")] = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a saga's trace as a tree, with queue and work time per hop, and name every break in it; or only check it.

    Spans are kept on an embedded bus unless an OTLP endpoint takes them; those are read back from the Jaeger that
    PAVANE_JAEGER_URL names, or from a file. They are held against the event log: what a step has answered it has worked
    on, so its span must be there, under the span that sent it. Exits with 1 where the trace is broken or there is none, 2
    where no saga (or more than one) is meant, or there are no spans to check, 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus

    _check_usage(saga, checking=checking, every=every, link_only=link_only)
    jaeger_url = settings_for(bus).jaeger_url
    if checking or every:
        report = with_bus(bus, lambda opened: check(opened, saga, jaeger_url, otlp))
        if print_report(report, lost_allowed, as_json=as_json):
            raise typer.Exit(1)
        return
    if link_only:
        wanted = saga or ""
        print(with_bus(bus, lambda opened: _link_to(opened, wanted, jaeger_url)))
        return

    async def read(opened: Bus) -> Traced:
        return await read_trace(opened, saga or "", jaeger_url, otlp)

    found = with_bus(bus, read)
    broken = found.report.broken(lost_allowed)
    if as_json:
        print_json(_document(found, broken, jaeger_url))
    else:
        _print(found, broken, jaeger_url, sends=all_spans)
    if not found.tree.roots:
        say(_nothing(found, jaeger_url, otlp))
    elif broken and found.exported:
        say(ARRIVING)
    if broken or not found.tree.roots:
        raise typer.Exit(1)


def _document(found: Traced, broken: "Sequence[Finding]", jaeger_url: str | None) -> dict[str, object]:
    return {
        **found.tree.to_json(),
        "continuous": not broken,
        "traceId": found.trace_id,
        "sampled": found.sampled,
        "link": _link(found, jaeger_url),
        "searchLink": _search_link(found, jaeger_url),
        "findings": [each.to_json() for each in broken],
    }


def _print(found: Traced, broken: "Sequence[Finding]", jaeger_url: str | None, *, sends: bool) -> None:
    if found.tree.roots:
        draw_tree(found.tree, sends=sends)
        for each in broken:
            say(f"broken: {each} ({each.code})")
    link, search = _link(found, jaeger_url), _search_link(found, jaeger_url)
    if link is not None:
        print(f"in Jaeger: {link}")
    if search is not None:
        print(f"all of its traces: {search}")


def _check_usage(saga: str | None, *, checking: bool, every: bool, link_only: bool) -> None:
    """Raises :class:`ConfigurationError` where the options do not say one thing."""
    if (saga is None) != every:
        message = "name a saga, or check every saga: pavane trace SAGA | pavane trace --check --all"
        raise ConfigurationError("which saga?", [Problem("SAGA", "trace.saga", message)])
    if link_only and (checking or every):
        raise ConfigurationError("one at a time", [Problem("--jaeger", "trace.link", "it prints a link and checks nothing")])


async def read_trace(bus: Bus, wanted: str, jaeger_url: str | None = None, otlp: Path | None = None) -> Traced:
    """The tree of the saga that is meant, and its continuity.

    Where the bus keeps no span of it, they are asked of the file, or of Jaeger. Raises :class:`TracesUnavailable` where
    that is not to be had.
    """
    from pavane.cli.sagas import story_of
    from pavane.continuity import InFile, InJaeger, services_of
    from pavane_saga.hops import sent_records
    from pavane_saga.manifest import read_directory
    from pavane_tracing.continuity import check_continuity, own_traces
    from pavane_tracing.store import spans_of
    from pavane_tracing.tree import build_tree

    story = await story_of(bus, wanted)
    saga = story.summary.saga
    directory = await read_directory(bus)
    rows = await spans_of(bus, saga) if bus.embedded and otlp is None else []
    exported = None
    if not rows and (jaeger_url is not None or otlp is not None):
        since_s = (story.summary.started_ms or 0) / 1000
        exported = InFile(otlp) if otlp is not None else InJaeger(jaeger_url or "", since_s)
        rows = await asyncio.to_thread(exported.of_saga, saga, services_of(directory))
    log = [each async for each in sent_records(bus, directory, saga)] if rows else []
    if exported is not None:
        rows = own_traces(rows, log)
    report = check_continuity(rows, log, kept=exported is None)
    trace_id, sampled = _first_trace(story)
    return Traced(build_tree(rows, saga), report, trace_id, sampled, exported is not None)


async def _link_to(bus: Bus, wanted: str, jaeger_url: str | None) -> str:
    """The link to the trace that a saga began with. Raises :class:`ConfigurationError` where it can have none."""
    from pavane.cli.sagas import story_of
    from pavane_tracing.jaeger import Jaeger

    trace_id, sampled = _first_trace(await story_of(bus, wanted))
    if trace_id is None:
        message = "tracing was off: no span of it was ever made"
    elif not sampled:
        message = f"it was not sampled. {_KEPT}"
    elif jaeger_url is None:
        message = "say where: PAVANE_JAEGER_URL"
    else:
        return Jaeger(jaeger_url).link(trace_id)
    raise ConfigurationError("there is no link", [Problem("--jaeger", "trace.link", message)])


def draw_tree(tree: "SagaTree", *, sends: bool = False) -> None:
    """The tree on standard output, as wide as the terminal is."""
    from pavane_tracing.drawing import draw, to_text

    if not is_terminal():
        print(to_text(tree, width=_WIDTH, sends=sends), end="")
        return
    from rich.console import Console

    console = Console()
    console.print(draw(tree, width=min(console.width, _WIDEST), sends=sends), overflow="ellipsis", no_wrap=True, crop=True)


def _first_trace(story: "Story") -> tuple[str | None, bool]:
    """The trace that the saga's first event is of, and whether it was sampled."""
    from pavane_tracing.sent import span_of

    first = next((event for event in story.events if not event.causes), None)
    send, sampled = span_of(first) if first is not None else (None, True)
    return (send[0] if send is not None else None), sampled


def _link(found: Traced, jaeger_url: str | None) -> str | None:
    """Where a browser shows it; None where it was not exported, or nobody said to where."""
    from pavane_tracing.jaeger import Jaeger

    there = found.exported if found.tree.roots else found.sampled
    if jaeger_url is None or found.trace_id is None or not there:
        return None
    return Jaeger(jaeger_url).link(found.trace_id)


def _search_link(found: Traced, jaeger_url: str | None) -> str | None:
    """Where a browser finds all of its traces; None where there is but one, or no link at all."""
    from pavane_tracing.conventions import COORDINATOR_SERVICE
    from pavane_tracing.jaeger import Jaeger

    if jaeger_url is None or _link(found, jaeger_url) is None or len({root.row.trace_id for root in found.tree.roots}) < 2:
        return None
    return Jaeger(jaeger_url).search_link(found.tree.saga, COORDINATOR_SERVICE)


def _nothing(found: Traced, jaeger_url: str | None, otlp: Path | None) -> str:
    if found.trace_id is None:
        return "no span of this saga was ever made: tracing was off"
    if not found.sampled:
        return f"this saga was not sampled (OTEL_TRACES_SAMPLER), so no span of it is here. {_KEPT}"
    if otlp is not None:
        return f"{otlp} has no span of this saga; its trace is {found.trace_id}"
    if jaeger_url is None:
        return (
            "no span of this saga is kept here: they went to the OTEL_ endpoint, or tracing was off. "
            f"Its trace is {found.trace_id}: PAVANE_JAEGER_URL=http://host:16686 draws it from Jaeger"
        )
    return f"no span of this saga is kept here, and {jaeger_url} has none (any more). {ARRIVING}"
