"""``pavane trace``: a saga's spans as a tree, kept by the bus itself or read back from Jaeger, and whether it is whole."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import BusOption, JsonOption, settings_for
from pavane.cli.output import is_terminal, print_json, say
from pavane.cli.sagas import SagaArgument
from pavane_events.bus import Bus

if TYPE_CHECKING:
    from pavane_saga.story import Story
    from pavane_tracing.continuity import ContinuityReport
    from pavane_tracing.span import SpanRow
    from pavane_tracing.tree import SagaTree

_WIDTH = 100
_ARRIVING = "spans reach Jaeger some seconds after the work (OTEL_BSP_SCHEDULE_DELAY, else 5): ask again if it ended just now"


@dataclass(frozen=True, slots=True)
class Traced:
    """What there is to see of one saga. ``trace_id``: the trace that it began with, if any span was ever made of it."""

    tree: "SagaTree"
    report: "ContinuityReport"
    trace_id: str | None
    from_jaeger: bool


def trace(
    saga: SagaArgument,
    all_spans: Annotated[bool, typer.Option("--all-spans", help="Show every send span too.")] = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a saga's trace as a tree, with queue time per hop, and name every break in it.

    Spans are kept on an embedded bus unless an OTLP endpoint takes them; those are read back from the Jaeger that
    PAVANE_JAEGER_URL names. Exits with 1 where the trace is broken or there is none, 2 where no saga (or more than one)
    is meant, 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus

    jaeger_url = settings_for(bus).jaeger_url

    async def read(opened: Bus) -> Traced:
        return await read_trace(opened, saga, jaeger_url)

    found = with_bus(bus, read)
    tree, report = found.tree, found.report
    link = _link(found, jaeger_url)
    if as_json:
        findings = [{"code": each.code, "where": each.where, "message": each.message} for each in report.findings]
        document = {"continuous": not report.findings, "findings": findings, "traceId": found.trace_id, "link": link}
        print_json({**tree.to_json(), **document})
    else:
        if tree.roots:
            draw_tree(tree, sends=all_spans)
            for each in report.findings:
                say(f"broken: {each}")
        if link is not None:
            print(f"in Jaeger: {link}")
    if not tree.roots:
        say(_nothing(found, jaeger_url))
    elif report.findings and found.from_jaeger:
        say(_ARRIVING)
    if report.findings or not tree.roots:
        raise typer.Exit(1)


async def read_trace(bus: Bus, wanted: str, jaeger_url: str | None = None) -> Traced:
    """The tree of the saga that is meant, and its continuity: every event that a step answers must be reached.

    Where the bus keeps no span of it, they are asked of Jaeger. Raises :class:`TracesUnavailable` where that is not to
    be had.
    """
    from pavane.cli.sagas import story_of
    from pavane_saga.manifest import read_directory
    from pavane_tracing.continuity import check_continuity
    from pavane_tracing.store import spans_of
    from pavane_tracing.tree import build_tree

    story = await story_of(bus, wanted)
    saga = story.summary.saga
    directory = await read_directory(bus)
    heard = {kind for step in directory.steps() if not step.observer for kinds in step.consumes for kind in kinds}
    rows = await spans_of(bus, saga) if bus.embedded else []
    from_jaeger = not rows and jaeger_url is not None
    if not rows and jaeger_url is not None:
        rows = await asyncio.to_thread(_exported, jaeger_url, story, sorted(directory.agents))
    settled = story.summary.ended_ms is not None
    events = [event for event in story.events if settled and event.type in heard]
    report = check_continuity(rows, events if rows else ())
    return Traced(build_tree(rows, saga), report, _trace_id(story), from_jaeger)


def draw_tree(tree: "SagaTree", *, sends: bool = False) -> None:
    """The tree on standard output, as wide as the terminal is."""
    from pavane_tracing.drawing import draw, to_text

    if not is_terminal():
        print(to_text(tree, width=_WIDTH, sends=sends), end="")
        return
    from rich.console import Console

    console = Console()
    console.print(draw(tree, width=min(console.width, 140), sends=sends), overflow="ellipsis", no_wrap=True, crop=True)


def _exported(jaeger_url: str, story: "Story", agents: list[str]) -> "list[SpanRow]":
    from pavane_tracing.conventions import COORDINATOR_SERVICE
    from pavane_tracing.jaeger import Jaeger

    since_s = (story.summary.started_ms or 0) / 1000
    return Jaeger(jaeger_url).spans_of(story.summary.saga, [COORDINATOR_SERVICE, *agents], since_s)


def _trace_id(story: "Story") -> str | None:
    """The trace that the saga's first event is of."""
    from pavane_tracing.propagation import span_context

    first = next((event for event in story.events if not event.causes), None)
    context = span_context(first.trace) if first is not None else None
    return f"{context.trace_id:032x}" if context is not None else None


def _link(found: Traced, jaeger_url: str | None) -> str | None:
    """Where a browser shows it; None where it was not exported, or nobody said to where."""
    from pavane_tracing.jaeger import Jaeger

    if jaeger_url is None or found.trace_id is None or not (found.from_jaeger or not found.tree.roots):
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
    return f"no span of this saga is kept here, and {jaeger_url} has none (any more). {_ARRIVING}"
