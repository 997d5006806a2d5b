"""``pavane graph``: the choreography, drawn from the code."""

from enum import StrEnum
from typing import Annotated

import typer

from pavane.cli.options import TargetsArgument


class Format(StrEnum):
    """What to draw."""

    MERMAID = "mermaid"
    TEXT = "text"


def graph(
    targets: TargetsArgument,
    form: Annotated[Format, typer.Option("--format", help="Mermaid for a README, text to read.")] = Format.MERMAID,
    undo: Annotated[bool, typer.Option("--undo", help="With the way back: which undo waits for which.")] = False,
) -> None:
    """Draw the choreography: agents' steps, their events, joins and ends. Nothing needs to run.

    Exits with 2 where a target cannot be loaded.
    """
    from pavane.cli.targets import load_targets
    from pavane.plan import step_plan
    from pavane_saga.graph import to_mermaid, to_text
    from pavane_saga.manifest import SagaPlan

    found = load_targets(targets)
    steps = [step_plan(step) for agent in found.agents for step in agent.steps.values() if not step.options.retiring]
    sagas = [SagaPlan.of(saga) for saga in found.sagas]
    print((to_mermaid if form is Format.MERMAID else to_text)(steps, sagas, undo=undo), end="")
