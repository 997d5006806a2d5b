"""``pavane demo``: the command alone, so that ``pavane --help`` need not load what it runs (:mod:`pavane_credit.demo_run`)."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    count: Annotated[int, typer.Option(min=1, help="How many applications.")] = 1000,
    applications: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file with the packaged one's header.", show_default=False)
    ] = None,
    faults: Annotated[str, typer.Option(metavar="SEED|none", help="Play faults by this seed, or none.")] = "1994",
    bus: Annotated[
        str | None, typer.Option("--bus", metavar="URL", help="Another bus than a new file.", show_default=False)
    ] = None,
    processes: Annotated[bool, typer.Option("--processes", help="Each agent in a process of its own.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep bus and ledgers there, not in .pavane/demo.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="No bar, one JSON object.")] = False,
) -> None:
    """Decide 1,000 real credit applications as sagas with five agents, faults included, and check the ledgers.

    Exit code 0 where every saga ended and the invariant holds, else 1.
    """
    from pavane_credit.demo_run import run_demo

    run_demo(
        count=count,
        applications=applications,
        faults=faults,
        bus=bus,
        processes=processes,
        keep=keep,
        as_json=as_json,
    )
