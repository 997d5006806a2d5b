"""``pavane trace``: a saga's spans as a tree, kept by the bus itself or read back from elsewhere, and whether it is whole."""

import asyncio
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
    from pavane_tracing.finding import ContinuityReport
    from pavane_tracing.tree import SagaTree

_WIDTH = 100
_WIDEST = 140

SagaOption = Annotated[
    str | None,
    typer.Argument(metavar="[SAGA]", help="An id, the beginning of one, or a subject (DE-0001).", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Traced:
    """What there is to see of one saga. ``trace_id``: the trace that it began with, if any span was ever made of it.

    ``exported``: its spans are not kept by the bus.
    """

    tree: "SagaTree"
    report: "ContinuityReport"
    trace_id: str | None
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
    link = _link(found, jaeger_url)
    if as_json:
        document = {"continuous": not broken, "traceId": found.trace_id, "link": link}
        print_json({**found.tree.to_json(), **document, "findings": [each.to_json() for each in broken]})
    else:
        if found.tree.roots:
            draw_tree(found.tree, sends=all_spans)
            for each in broken:
                say(f"broken: {each} ({each.code})")
        if link is not None:
            print(f"in Jaeger: {link}")
    if not found.tree.roots:
        say(_nothing(found, jaeger_url))
    elif broken and found.exported:
        say(ARRIVING)
    if broken or not found.tree.roots:
        raise typer.Exit(1)


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
    return Traced(build_tree(rows, saga), report, _trace_id(story), exported is not None)


async def _link_to(bus: Bus, wanted: str, jaeger_url: str | None) -> str:
    """The link to the trace that a saga began with. Raises :class:`ConfigurationError` where it can have none."""
    from pavane.cli.sagas import story_of
    from pavane_tracing.jaeger import Jaeger

    trace_id = _trace_id(await story_of(bus, wanted))
    if trace_id is None or jaeger_url is None:
        message = "tracing was off: no span of it was ever made" if trace_id is None else "say where: PAVANE_JAEGER_URL"
        raise ConfigurationError("there is no link", [Problem("--jaeger", "trace.link", message)])
    return Jaeger(jaeger_url).link(trace_id)


def draw_tree(tree: "SagaTree", *, sends: bool = False) -> None:
    """The tree on standard output, as wide as the terminal is."""
    from pavane_tracing.drawing import draw, to_text

    if not is_terminal():
        print(to_text(tree, width=_WIDTH, sends=sends), end="")
        return
    from rich.console import Console

    console = Console()
    console.print(draw(tree, width=min(console.width, _WIDEST), sends=sends), overflow="ellipsis", no_wrap=True, crop=True)


def _trace_id(story: "Story") -> str | None:
    """The trace that the saga's first event is of."""
    from pavane_tracing.propagation import span_context

    first = next((event for event in story.events if not event.causes), None)
    context = span_context(first.trace) if first is not None else None
    return f"{context.trace_id:032x}" if context is not None else None


def _link(found: Traced, jaeger_url: str | None) -> str | None:
    """Where a browser shows it; None where it was not exported, or nobody said to where."""
    from pavane_tracing.jaeger import Jaeger

    if jaeger_url is None or found.trace_id is None or not (found.exported or not found.tree.roots):
        return None
    return Jaeger(jaeger_url).link(found.trace_id)


def _nothing(found: Traced, jaeger_url: str | None) -> str:
    if found.trace_id is None:
        return "no span of this saga was ever made: tracing was off"
    if jaeger_url is None:
        return (
            "no span of this saga is kept here: they went to the OTEL_ endpoint, or tracing was off. "
            f"Its trace is {found.trace_id}: PAVANE_JAEGER_URL=http://host:16686 draws it from Jaeger"
        )
    return f"no span of this saga is kept here, and {jaeger_url} has none (any more). {ARRIVING}"
