"""Report: the demo's bar while it runs, and its summary at the end, for people and for programs."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pavane_credit.faults import SHARES, Fault
from pavane_credit.outcome import Outcome
from pavane_credit.place import Place


@dataclass(frozen=True, slots=True)
class Numbers:
    """How fast it went, from the first application published to the last verdict."""

    seconds: float
    sagas_per_s: float
    peak_rss_mb: float
    trace: str | None = None
    """The tree of one compensated saga, drawn."""


class Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        columns = (TextColumn("deciding"), BarColumn(), MofNCompleteColumn(), TextColumn("sagas ended"), TimeElapsedColumn())
        silent = quiet or not sys.stderr.isatty()
        self._progress = Progress(*columns, console=Console(stderr=True), disable=silent, transient=True, refresh_per_second=5)
        self._task = self._progress.add_task("deciding", total=total)

    def advance(self, ended: int) -> None:
        """So many have ended."""
        self._progress.update(self._task, completed=ended)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()


def to_json(outcome: Outcome, numbers: Numbers) -> dict[str, object]:
    """The summary as one object."""
    return {
        "applications": outcome.applications,
        "approved": outcome.approved,
        "compensated": outcome.compensated,
        "parked": outcome.parked,
        "open": outcome.open,
        "standing_effects": outcome.ledgers.standing_effects,
        "missing_effects": outcome.ledgers.missing_effects,
        "orphan_spans": outcome.trace.orphans,
        "trace_breaks": sum(outcome.trace.counts.values()),
        "sagas_per_s": round(numbers.sagas_per_s, 1),
        "seconds": round(numbers.seconds, 2),
        "peak_rss_mb": round(numbers.peak_rss_mb, 1),
    }


def print_report(outcome: Outcome, numbers: Numbers, faults: Mapping[Fault, int] | None, place: Place) -> None:
    """The summary for people: what became of whom, whether the ledgers agree, one trace, and what to type next."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 100, highlight=False)
    _print_table(console, outcome)
    _print_checks(console, outcome, numbers)
    if faults:
        console.print("\n[bold]faults played[/bold]")
        for fault, _, meaning in SHARES:
            if fault in faults:
                console.print(f"  {faults[fault]:>4}  {meaning}")
        console.print(
            f"        {outcome.ledgers.crashes} crashes and {outcome.ledgers.refusals} refusals by the fence took place"
        )
    if numbers.trace is not None:
        console.print("\n[bold]one saga that failed and was undone[/bold]")
        print(numbers.trace)
    _print_next(console, outcome, place)


def _print_table(console: Console, outcome: Outcome) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_row(str(outcome.applications), "applications")
    table.add_row(str(outcome.approved), "approved")
    table.add_row(str(outcome.declined), "declined and undone")
    table.add_row(str(outcome.failed), "failed and undone")
    if outcome.parked:
        table.add_row(str(outcome.parked), "[red]parked: an undo failed[/red]")
    table.add_row(str(outcome.open), "still open" if not outcome.open else "[red]still open[/red]")
    console.print(table)


def _print_checks(console: Console, outcome: Outcome, numbers: Numbers) -> None:
    ledgers, grade = outcome.ledgers, outcome.grade
    console.print()
    if ledgers.holds:
        console.print("[green]ledgers agree[/green]: every approved application has its five effects, every other one none")
        console.print(f"{ledgers.booked_dm:,} DM are booked, {ledgers.approved_dm:,} DM are approved")
    else:
        console.print(f"[red]ledgers disagree[/red] ({len(ledgers.problems)})")
        for problem in ledgers.problems[:20]:
            console.print(f"  {problem}")
    if grade.approved_repaid is not None and grade.all_repaid is not None:
        console.print(f"of those approved {grade.approved_repaid:.1%} repaid, of all {grade.all_repaid:.1%}")
    trace = outcome.trace
    if trace.spans:
        seen = f"{trace.spans:,} spans in {trace.traces:,} traces, {trace.roots:,} roots, {trace.orphans} orphans"
        broken = f"{sum(trace.counts.values())} breaks: pavane trace --check --all" if trace.counts else "none broken"
        console.print(f"{seen}; {trace.hops:,} hops, {broken}")
    console.print(
        f"{numbers.sagas_per_s:.0f} sagas/s, {numbers.seconds:.1f} s, at most {numbers.peak_rss_mb:.0f} MB of memory"
    )


def _print_next(console: Console, outcome: Outcome, place: Place) -> None:
    if place.bus.startswith("memory:"):
        return
    console.print("\n[bold]next[/bold]")
    program = _program()
    path = place.bus.removeprefix("sqlite:///")
    bus = f"--bus sqlite:///{os.path.relpath(path)}" if place.bus != path else f"--bus {place.bus}"
    saga = outcome.shown or "SAGA"
    prefix = os.environ.get("PAVANE_KAFKA_PREFIX")
    if prefix and place.bus.startswith("kafka:"):
        console.print(f"  export PAVANE_KAFKA_PREFIX={prefix}")
    for command in (f"sagas list {bus} --state compensated", f"sagas show {saga} {bus}", f"trace {saga} {bus}"):
        console.print(f"  {program} {command}", soft_wrap=True)
    targets = "pavane_credit.choreography:AGENTS pavane_credit.choreography:SAGAS"
    console.print(f"  {program} graph {targets}", soft_wrap=True)


def _program() -> str:
    """How this program was called, so that what is shown can be typed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m pavane"
    return called.name if shutil.which(called.name) == str(called) else os.path.relpath(called)
