"""``pavane trace``: a saga's spans as a tree, from the spans that the bus keeps itself, and whether it is whole."""

from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import is_terminal, print_json, say
from pavane.cli.sagas import SagaArgument
from pavane_events.bus import Bus

if TYPE_CHECKING:
    from pavane_tracing.continuity import ContinuityReport
    from pavane_tracing.tree import SagaTree

_WIDTH = 100


def trace(
    saga: SagaArgument,
    all_spans: Annotated[bool, typer.Option("--all-spans", help="Show every send span too.")] = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a saga's trace as a tree, with queue time per hop, and name every break in it.

    Spans are kept on an embedded bus unless an OTLP endpoint takes them. Exits with 1 where the trace is broken or
    there is none, 2 where no saga (or more than one) is meant, 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus

    async def read(opened: Bus) -> "tuple[SagaTree, ContinuityReport]":
        return await read_trace(opened, saga)

    tree, report = with_bus(bus, read)
    if as_json:
        findings = [{"code": each.code, "where": each.where, "message": each.message} for each in report.findings]
        print_json({**tree.to_json(), "continuous": not report.findings, "findings": findings})
    elif tree.roots:
        draw_tree(tree, sends=all_spans)
        for each in report.findings:
            say(f"broken: {each}")
    if not tree.roots:
        say("no span of this saga is kept here: they went to the OTEL_ endpoint, or tracing was off")
    if report.findings or not tree.roots:
        raise typer.Exit(1)


async def read_trace(bus: Bus, wanted: str) -> "tuple[SagaTree, ContinuityReport]":
    """The tree of the saga that is meant, and its continuity: every event that a step answers must be reached."""
    from pavane.cli.sagas import story_of
    from pavane_saga.manifest import read_directory
    from pavane_tracing.continuity import check_continuity
    from pavane_tracing.store import spans_of
    from pavane_tracing.tree import build_tree

    story = await story_of(bus, wanted)
    directory = await read_directory(bus)
    heard = {kind for step in directory.steps() if not step.observer for kinds in step.consumes for kind in kinds}
    rows = await spans_of(bus, story.summary.saga)
    settled = story.summary.ended_ms is not None
    events = [event for event in story.events if settled and event.type in heard]
    return build_tree(rows, story.summary.saga), check_continuity(rows, events if rows else ())


def draw_tree(tree: "SagaTree", *, sends: bool = False) -> None:
    """The tree on standard output, as wide as the terminal is."""
    from pavane_tracing.drawing import draw, to_text

    if not is_terminal():
        print(to_text(tree, width=_WIDTH, sends=sends), end="")
        return
    from rich.console import Console

    console = Console()
    console.print(draw(tree, width=min(console.width, 140), sends=sends), overflow="ellipsis", no_wrap=True, crop=True)
