"""``pavane verify``: a choreography under every fault, and under every two."""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import JsonOption
from pavane.cli.output import paint, print_json, say

if TYPE_CHECKING:
    from pavane.simulation.explore import Tell
    from pavane.simulation.report import Report
    from pavane.simulation.verification import Verification

_LINE_S = 60.0
_STAGES = {"sagas": "nothing", "singles": "one thing", "pairs": "two things", "by_lot": "by lot"}


def verify(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="module:attribute of a Verification, as in tests.orders:verification."),
    ],
    histories: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many. (default: 10,000, where no other bound is given)", show_default=False),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.", show_default=False)] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Every single fault and every pair of faults, however many they are.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The order of the pairs, and what goes wrong by lot.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes. (default: one for each core)", show_default=False)
    ] = None,
    lanes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16,
            help="Lanes of each agent and of the coordinator. (default: 1, and by lot 2 in a third of the histories)",
            show_default=False,
        ),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="HISTORY", help="Play this one history and tell it, as a violation printed it.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that effects all stand or none do, whatever goes wrong: crashes, losses, repeats, failures, two at a time.

    Runs the agents, their steps and the coordinator on a bus in memory, on virtual time, and checks each history that
    faults can lead to: every single fault, every pair, then up to eight by lot. Exits with 1 where a history must not be;
    it is printed as a story, as short as it was found, with the command that plays it again.
    """
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = _load(target)
    if replay is not None:
        _replay(found, replay, as_json=as_json)
        return
    from pavane.simulation.explore import Bounds
    from pavane.simulation.report import Interrupted
    from pavane.simulation.verify import explore

    if histories is None and seconds is None and not exhaustive:
        histories = 10_000
    try:
        with _progress() as tell:
            report = explore(
                found,
                name=target,
                processes=jobs,
                bounds=Bounds(histories, seconds, exhaustive),
                seed=seed,
                tell=tell,
                lanes=lanes,
            )
    except Interrupted as stopped:
        say("stopped; this was played by then, and nothing of it was wrong:")
        _print(stopped.report, target, as_json=as_json)
        raise
    _print(report, target, as_json=as_json)
    if report.findings:
        raise typer.Exit(1)


def _load(target: str) -> "Verification":
    from pavane.cli.targets import load_verification

    return load_verification(target)


def _print(report: "Report", target: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    from pavane.simulation.report import describe, replayed_by

    for line in report.lines():
        print(line)
    for finding in report.findings:
        print()
        print(paint(describe(finding), "red"))
        print(f"\n{replayed_by(finding.replay, target)}")


def _replay(found: "Verification", history: str, *, as_json: bool) -> None:
    from pavane.simulation.report import job_of
    from pavane.simulation.verify import replay

    outcome, story = replay(found, job_of(history))
    if as_json:
        violations = [{"code": each.code, "message": each.message} for each in outcome.violations]
        print_json({"replay": history, "violations": violations, "story": story})
    else:
        for line in story:
            print(line)
        for violation in outcome.violations:
            print(paint(str(violation), "red"))
        if not outcome.violations:
            print("nothing is wrong with it")
    if outcome.violations:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Generator["Tell"]:
    """A bar for each stage on a terminal; elsewhere a line a minute, so that a log of hours shows how far it is."""
    if not sys.stderr.isatty():
        yield _Lines().tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {name: progress.add_task(said, total=None, visible=False) for name, said in _STAGES.items()}

        def tell(stage: str, count: int, total: int | None) -> None:
            progress.update(tasks[stage], completed=count, total=total, visible=True)

        yield tell
    say("")


class _Lines:
    """Says how far it is, no sooner than a minute after it has begun, or has said so last."""

    def __init__(self) -> None:
        self._begun = self._said = time.monotonic()

    def tell(self, stage: str, count: int, total: int | None) -> None:
        """So far in a stage, and how far it goes, where that is known."""
        now = time.monotonic()
        if now - self._said >= _LINE_S:
            self._said = now
            of = "" if total is None else f" of {total:,}"
            say(f"{timedelta(seconds=round(now - self._begun))} {_STAGES[stage]}: {count:,}{of} histories")
