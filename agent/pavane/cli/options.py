"""Options that several commands share, and the settings they end in."""

from typing import Annotated

import typer

from pavane.settings import Settings, load_settings


def of_any_level(context: typer.Context, value: str | None) -> str | None:
    """``pavane --bus URL command`` and ``pavane command --bus URL`` are the same."""
    return value if value is not None else context.find_root().params.get("bus")


BUS_HELP = "The bus, as in sqlite:///pavane.db or kafka://host:9092. (default: PAVANE_BUS, else sqlite:///pavane.db)"

BusOption = Annotated[
    str | None, typer.Option("--bus", metavar="URL", help=BUS_HELP, callback=of_any_level, show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
TargetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="module:attribute of an Agent, a Saga, or a list or tuple of them.",
        show_default=False,
    ),
]


def settings_for(bus: str | None) -> Settings:
    """The settings, under what the command line says. Raises ConfigurationError with every problem."""
    return load_settings(bus=bus)
