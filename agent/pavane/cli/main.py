"""``pavane``: the commands together, and what becomes of their errors.

Exit codes: 0 done; 1 the command failed or found problems; 2 wrong usage or invalid input; 3 the bus is unavailable,
locked, or of another version; 130 stopped by Ctrl-C.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, cast

import typer

from pavane.cli import check, dead_letters, graph, publish, run, sagas, tail, trace
from pavane.cli.options import BUS_HELP
from pavane.cli.output import say
from pavane_events.errors import (
    BusUnavailable,
    BusVersionMismatch,
    ConfigurationError,
    ContractViolation,
    DeclarationError,
    PavaneError,
    RecordTooLarge,
    UndecodableRecord,
    UnknownTopic,
)

COMMANDS_GROUP = "pavane.commands"
"""The group of entry points by which other distributions add commands: functions as typer takes them."""

OK, FAILED, INVALID, BUS, INTERRUPTED = 0, 1, 2, 3, 130
_INVALID = (ConfigurationError, DeclarationError, ContractViolation, UndecodableRecord, UnknownTopic, RecordTooLarge)
_EPILOG = (
    "Exit codes: 0 done; 1 failed, or problems found; 2 wrong usage or invalid input; "
    "3 bus unavailable, locked or of another version; 130 Ctrl-C. "
    "Settings: PAVANE_BUS, PAVANE_PARTITIONS, PAVANE_LOG (see docs/reference)."
)


def _print_version(value: bool) -> None:
    if value:
        print(f"pavane {version('pavane')}")
        raise typer.Exit


def _root(
    bus: Annotated[str | None, typer.Option("--bus", metavar="URL", help=BUS_HELP, show_default=False)] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Agents that say beside each step how to undo it, on Kafka or one file, with one trace."""


def make_app(*, styled: bool) -> typer.Typer:
    """The whole command line. ``styled``: help and usage errors in colours and boxes."""
    app = typer.Typer(
        name="pavane",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if styled else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG)(_root)
    for name, command in _added():
        app.command(name)(command)
    app.command("run")(run.run)
    app.command("publish")(publish.publish)
    app.command("tail")(tail.tail)
    app.add_typer(sagas.app, name="sagas")
    app.command("trace")(trace.trace)
    app.command("graph")(graph.graph)
    app.command("check")(check.check)
    app.add_typer(dead_letters.app, name="dead-letters")
    return app


def _added() -> Iterator[tuple[str, Callable[..., None]]]:
    for point in sorted(entry_points(group=COMMANDS_GROUP)):
        command = _load(point)
        if command is not None:
            yield point.name, command


def _load(point: EntryPoint) -> Callable[..., None] | None:
    try:
        return cast("Callable[..., None]", point.load())
    except Exception as error:  # somebody else's command must not take ours away
        say(f"pavane: the command {point.name!r} ({point.value}) cannot be loaded: {error}")
        return None


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        make_app(styled=sys.stdout.isatty() and sys.stderr.isatty())()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)  # whoever read us has seen enough
    except PavaneError as error:
        tell(error)
        sys.exit(exit_code(error))
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        if not all(isinstance(error, PavaneError) for error in errors):
            raise
        for error in errors:
            tell(error)
        sys.exit(max(exit_code(error) for error in errors))


def tell(error: BaseException) -> None:
    """One clear message, with its problems listed, on standard error."""
    label = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    say(f"{label} {error}")


def exit_code(error: BaseException) -> int:
    """The exit code of an error that reached the top."""
    if isinstance(error, BusUnavailable | BusVersionMismatch):
        return BUS
    return INVALID if isinstance(error, _INVALID) else FAILED


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", each))
        else:
            yield each
