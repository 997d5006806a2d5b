"""``pavane``: the commands together, and what becomes of their errors.

Exit codes: 0 done; 1 the command failed or found problems; 2 wrong usage or invalid input; 3 the bus is unavailable,
locked, or of another version; 130 stopped by Ctrl-C.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, cast

import typer

from pavane.cli import (
    answer,
    check,
    dead_letters,
    decisions,
    dev,
    graph,
    publish,
    redrive,
    run,
    sagas,
    tail,
    topics,
    trace,
    verify,
)
from pavane.cli.groups import leaves
from pavane.cli.options import BUS_HELP
from pavane.cli.output import safe, say
from pavane_events.compiled import COMPILED
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
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "publish": publish.publish,
    "answer": answer.answer,
    "tail": tail.tail,
    "trace": trace.trace,
    "graph": graph.graph,
    "check": check.check,
    "verify": verify.verify,
}
_GROUPS = {"sagas": sagas.app, "topics": topics.app, "dead-letters": dead_letters.app, "dev": dev.app}
for _name, _command in decisions.COMMANDS.items():
    sagas.app.command(_name)(_command)
dead_letters.app.command("redrive")(redrive.redrive)
sagas.app.command("waiting")(answer.waiting)
_INVALID = (ConfigurationError, DeclarationError, ContractViolation, UndecodableRecord, UnknownTopic, RecordTooLarge)
_EPILOG = (
    "Exit codes: 0 done; 1 failed, or problems found; 2 wrong usage or invalid input; "
    "3 bus unavailable, locked or of another version; 130 Ctrl-C. "
    "Settings: PAVANE_BUS, PAVANE_PARTITIONS, PAVANE_LOG (see docs/reference)."
)


def _print_version(value: bool) -> None:
    if value:
        print(f"pavane {version('pavane')}{' (compiled)' if COMPILED else ''}")
        raise typer.Exit


def _root(
    bus: Annotated[str | None, typer.Option("--bus", metavar="URL", help=BUS_HELP, show_default=False)] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Agents that say beside each step how to undo it, on Kafka or one file, with one trace."""


def make_app(arguments: Sequence[str] = (), *, styled: bool = False) -> typer.Typer:
    """The whole command line. ``styled``: help and usage errors in colours and boxes.

    Where the arguments name a command of ours, what others add is not even imported.
    """
    app = typer.Typer(
        name="pavane",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown" if styled else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG)(_root)
    for name, command in _added(arguments):
        app.command(name)(command)
    for name, command in _COMMANDS.items():
        app.command(name)(command)
    for name, group in _GROUPS.items():
        app.add_typer(group, name=name)
    return app


def _added(arguments: Sequence[str]) -> Iterator[tuple[str, Callable[..., None]]]:
    ours = any(argument in _COMMANDS or argument in _GROUPS for argument in arguments)
    for point in sorted(entry_points(group=COMMANDS_GROUP)):
        command = _load(point) if point.name in arguments or not ours else None
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
        make_app(sys.argv[1:], styled=sys.stdout.isatty() and sys.stderr.isatty())(prog_name="pavane")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PavaneError as error:
        tell(str(error))
        sys.exit(exit_code(error))
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        if not all(isinstance(leaf, PavaneError) for leaf in errors):
            raise
        for text in dict.fromkeys(str(leaf) for leaf in errors):
            tell(text)
        sys.exit(max(map(exit_code, errors)))


def tell(message: str) -> None:
    """One clear message, with its problems listed, on standard error; what it quotes cannot change the terminal."""
    label = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    text = "\n".join(map(safe, message.split("\n")))
    say(f"{label} {text}")


def exit_code(error: BaseException) -> int:
    """The exit code of an error that reached the top."""
    if isinstance(error, BusUnavailable | BusVersionMismatch):
        return BUS
    return INVALID if isinstance(error, _INVALID) else FAILED
