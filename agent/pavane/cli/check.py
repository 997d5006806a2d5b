"""``pavane check``: what is wrong with a choreography, and whether its published contracts are current."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import JsonOption, TargetsArgument, of_any_level
from pavane.cli.output import paint, print_json, say
from pavane.cli.places import Places, shown
from pavane_events.errors import DeclarationError, Problem
from pavane_events.place import raising_place

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
    bus: Annotated[
        str | None,
        typer.Option(
            "--bus",
            metavar="URL",
            help="Hold the partition counts of this Kafka's topics against each other.",
            callback=of_any_level,
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check agents and sagas as a whole, before anything runs: undos, ends, loose events, versions, contracts.

    Exits with 1 where there is an error (a warning alone is none) or a contract's file is not current, 2 where a target
    cannot be loaded, 3 where the bus that --bus names is unavailable. Without --bus no bus is asked. What each code means,
    and what to do: docs/reference/checks.md.
    """
    from pavane.cli.targets import Targets, load_targets
    from pavane_saga.finding import Finding

    if write and schemas is None:
        raise typer.BadParameter("it needs --schemas DIR", param_hint="--write")
    findings: list[Finding] = []
    found = Targets((), ())
    try:
        found = load_targets(targets)
        findings += findings_of(found)
        if bus is not None and not any(agent.problems() for agent in found.agents):
            findings += _partitions(found, targets, bus)
    except DeclarationError as error:
        place = shown(raising_place(error))
        findings += [Finding(each.code, "error", each.where, each.message, place) for each in error.problems]
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
    """What is wrong between targets whoever else is there: warnings are logged, each once.

    What may be settled by somebody who runs elsewhere is left open, but where a saga can complete among the targets: then
    they are taken for all there are. Raises :class:`DeclarationError` with every error.
    """
    import structlog

    from pavane_saga.checks import MAY_BE_ELSEWHERE

    findings = findings_of(found)
    wrong = [each for each in findings if each.severity == "error" and each.code not in MAY_BE_ELSEWHERE]
    if wrong:
        problems = [Problem(each.where, each.code, each.message) for each in wrong]
        raise DeclarationError("this cannot run as it is declared", problems)
    is_whole = bool(found.sagas) and all(each.severity == "warning" for each in findings)
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)
    for each in findings:
        if each.severity == "warning" and (is_whole or each.code not in MAY_BE_ELSEWHERE):
            log.warning(each.message, code=each.code, where=each.where, source=each.source)


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


def findings_of(found: "Targets") -> "list[Finding]":
    """Everything that is wrong with the targets and between them, with where that is."""
    from pavane_saga.checks import check_choreography
    from pavane_saga.finding import Finding
    from pavane_saga.manifest import SagaPlan

    own = [Finding(each.code, "error", each.where, each.message) for agent in found.agents for each in agent.problems()]
    sagas = [SagaPlan.of(saga) for saga in found.sagas]
    wrong = own + check_choreography([_manifest(agent) for agent in found.agents], sagas, list(_contracts(found)))
    return _placed(found, wrong)


def _placed(found: "Targets", findings: "Sequence[Finding]") -> "list[Finding]":
    """The same, with the file and line of each."""
    places = Places(found, _events(found))
    return [replace(each, source=places.of(each)) for each in findings]


def _partitions(found: "Targets", targets: list[str], bus: str) -> "list[Finding]":
    """The topics whose partition count differs, as ``pavane topics diff`` sees it. In a file all topics have the same."""
    from pavane.cli.needs import needs_of
    from pavane.cli.session import brokers
    from pavane_saga.finding import Finding

    needs = needs_of(targets, bus)
    if not needs.on_kafka:
        say(f"all topics of {needs.settings.bus} have one partition count: there is nothing to compare")
        return []
    from pavane_events.buses.kafka.provision import compare
    from pavane_events.topics import partitions_fix, wrong_partitions

    settings = needs.settings
    compared = asyncio.run(compare(brokers(settings), settings.kafka_options(), needs.wanted, settings.partitions))
    fix = partitions_fix(compared.partitions)
    wrong = wrong_partitions(compared.differences.partitions, compared.partitions).problems
    return _placed(found, [Finding(each.code, "error", each.where, f"{each.message}: {fix}") for each in wrong])


def _manifest(agent: "Agent") -> "Manifest":
    """The agent's manifest, also where the agent could not start."""
    from pavane.plan import contracts, step_plan
    from pavane_saga.manifest import manifest_of

    return manifest_of(agent.name, map(step_plan, agent.steps.values()), contracts(agent))


def _contracts(found: "Targets") -> "Iterator[Contract]":
    from pavane_events.contracts import read_by, said_by
    from pavane_saga.checks import Contract

    for saga in found.sagas:
        kind = saga.starts
        where = f"intake {saga.intake}"
        yield Contract(kind.event_type, kind.event_version, kind.__name__, where, "produces", said_by(kind))
    for agent in found.agents:
        for step in agent.steps.values():
            consumed = [view for parameter in step.signature.parameters for view in parameter.views]
            for kind in consumed:
                name, schema = kind.__name__, read_by(kind)
                yield Contract(kind.event_type, kind.event_version, name, step.wire_name, "consumes", schema)
            for kind in step.signature.produces:
                name, schema = kind.__name__, said_by(kind)
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
