"""``pavane check``: what is wrong with a choreography, and whether its published contracts are current."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import JsonOption, TargetsArgument
from pavane.cli.output import paint, print_json, say
from pavane_events.errors import DeclarationError, Problem

if TYPE_CHECKING:
    from pavane.agent import Agent
    from pavane.cli.targets import Targets
    from pavane_events.event import Event
    from pavane_saga.checks import Contract
    from pavane_saga.finding import Finding
    from pavane_saga.manifest import Manifest


def check(
    targets: TargetsArgument,
    schemas: Annotated[
        Path | None,
        typer.Option("--schemas", metavar="DIR", help="Hold the event classes against DIR's files.", show_default=False),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="With --schemas: write what is not current.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check agents and sagas as a whole, before anything runs: undos, ends, loose events, versions, contracts.

    Exits with 1 where there is an error (a warning alone is none) or a contract's file is not current, 2 where a target
    cannot be loaded.
    """
    from pavane.cli.targets import Targets, load_targets
    from pavane_saga.finding import Finding

    if write and schemas is None:
        raise typer.BadParameter("it needs --schemas DIR", param_hint="--write")
    findings: list[Finding] = []
    found = Targets((), ())
    try:
        found = load_targets(targets)
        findings += _findings(found)
    except DeclarationError as error:
        findings += [Finding(each.code, "error", each.where, each.message) for each in error.problems]
    written: list[Path] = []
    if schemas is not None:
        if write:
            written = _write(found, schemas)
        else:
            findings += _stale(found, schemas)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        listed = [finding.to_json() for finding in findings]
        print_json({"findings": listed, "errors": errors, "written": [str(path) for path in written]})
    else:
        _print(found, findings, written)
    if errors:
        raise typer.Exit(1)


def check_start(found: "Targets") -> None:
    """What is wrong between targets whoever else is there. Raises :class:`DeclarationError` with all of it.

    Whether a saga can complete is left open: what is missing may run elsewhere.
    """
    wrong = [each for each in _findings(found) if each.severity == "error" and each.code != "completes.unreachable"]
    if wrong:
        problems = [Problem(each.where, each.code, each.message) for each in wrong]
        raise DeclarationError("this cannot run as it is declared", problems)


def _print(found: "Targets", findings: "list[Finding]", written: list[Path]) -> None:
    for each in findings:
        severity = paint(each.severity, "red" if each.severity == "error" else "yellow")
        place = f"  {each.source}" if each.source else ""
        print(f"{severity}  {each.where}: {each.message}  [{each.code}]{place}")
    for path in written:
        print(f"wrote {path}")
    errors = sum(each.severity == "error" for each in findings)
    steps = sum(len(agent.steps) for agent in found.agents)
    looked = f"{_count(len(found.agents), 'agent')}, {_count(steps, 'step')}, {_count(len(found.sagas), 'saga')}"
    say(f"{looked}: {_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _findings(found: "Targets") -> "list[Finding]":
    from pavane_saga.checks import check_choreography
    from pavane_saga.finding import Finding
    from pavane_saga.manifest import SagaPlan

    own = [Finding(each.code, "error", each.where, each.message) for agent in found.agents for each in agent.problems()]
    sagas = [SagaPlan.of(saga) for saga in found.sagas]
    wrong = own + check_choreography([_manifest(agent) for agent in found.agents], sagas, list(_contracts(found)))
    places = _places(found)
    return [replace(each, source=places.get(each.where.partition(",")[0], "")) for each in wrong]


def _places(found: "Targets") -> dict[str, str]:
    """By step and by event type, the file and line that say so."""
    places = {step.wire_name: _place(step.function) for agent in found.agents for step in agent.steps.values()}
    for event in _events(found):
        places.setdefault(event.event_type, _place(event))
    return places


def _place(what: Callable[..., object]) -> str:
    try:
        file, line = inspect.getsourcefile(what), inspect.getsourcelines(what)[1]
    except (OSError, TypeError):  # made at run time
        return ""
    if file is None:
        return ""
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def _manifest(agent: "Agent") -> "Manifest":
    """The agent's manifest, also where the agent could not start."""
    from pavane.plan import contracts, step_plan
    from pavane_saga.manifest import manifest_of

    return manifest_of(agent.name, map(step_plan, agent.steps.values()), contracts(agent))


def _contracts(found: "Targets") -> "Iterator[Contract]":
    from pavane_saga.checks import Contract

    for saga in found.sagas:
        kind = saga.starts
        where = f"intake {saga.intake}"
        yield Contract(kind.event_type, kind.event_version, kind.__name__, where, "produces", kind.model_json_schema())
    for agent in found.agents:
        for step in agent.steps.values():
            consumed = [view for parameter in step.signature.parameters for view in parameter.views]
            for kind in consumed:
                name, schema = kind.__name__, kind.model_json_schema()
                yield Contract(kind.event_type, kind.event_version, name, step.wire_name, "consumes", schema)
            for kind in step.signature.produces:
                name, schema = kind.__name__, kind.model_json_schema()
                yield Contract(kind.event_type, kind.event_version, name, step.wire_name, "produces", schema)


def _events(found: "Targets") -> "list[type[Event]]":
    """Every event class there is, producers' first: they define the contract."""
    events = [saga.starts for saga in found.sagas]
    steps = [step for agent in found.agents for step in agent.steps.values()]
    events += [kind for step in steps for kind in step.signature.produces]
    events += [kind for saga in found.sagas for kind in (saga.completes, *saga.fails)]
    events += [view for step in steps for parameter in step.signature.parameters for view in parameter.views]
    return [event for event in events if not event.event_type.startswith("pavane.")]


def _write(found: "Targets", directory: Path) -> list[Path]:
    from pavane_events.contracts import write_schemas

    return write_schemas(_events(found), directory)


def _stale(found: "Targets", directory: Path) -> "Iterator[Finding]":
    from pavane_events.contracts import stale_schemas
    from pavane_saga.finding import Finding

    fixes = {
        "missing": "has no file: write it with --write",
        "different": "is not what its class says: raise its version= if anybody may have read it, else --write",
    }
    for path, event, how in stale_schemas(_events(found), directory):
        yield Finding(f"schema.{how}", "error", str(path), f"{event.dataschema()} {fixes[how]}")
