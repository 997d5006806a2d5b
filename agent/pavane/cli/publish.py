"""``pavane publish``: events from outside, checked first, all or none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.documents import Document, read_documents, validated_by
from pavane.cli.options import BusOption, JsonOption, settings_for
from pavane.cli.output import is_terminal, print_json, say
from pavane_events.bus import Bus, TopicSpec
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError, ContractViolation, Problem, UnknownTopic
from pavane_events.event import Event
from pavane_events.ids import uuid7

if TYPE_CHECKING:
    from pavane.cli.targets import Targets
    from pavane_saga.manifest import Directory

SOURCE = "/cli"
_MOST_LINKS = 10


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be published: where, as which type, through which class, by which field it is named."""

    topic: str
    kind: str | None
    event: type[Event] | None
    targets: "Targets | None"
    id_field: str | None
    documents: Sequence[Document]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, or would be. ``validated``: by which class; None where none was at hand.

    ``traces``: the ids of the traces that the events begin here; none where no span of theirs is made here. ``kept``:
    the bus keeps the spans itself.
    """

    topic: str
    type: str
    events: tuple[Envelope, ...]
    sagas: tuple[str, ...]
    validated: str | None
    traces: tuple[str, ...]
    kept: bool


def publish(
    topic: Annotated[str, typer.Argument(help="An intake such as credit.applications.", show_default=False)],
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|-]", help="A JSON object, an array of them, or JSON lines.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="The data itself.", show_default=False)] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="The event type. (default: what the topic says)", show_default=False)
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--event", metavar="MODULE:CLASS", help="The class that the data must fit.", show_default=False),
    ] = None,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="TARGET", help="Agents and sagas whose classes the data must fit.", show_default=False),
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option(
            "--id-field",
            metavar="FIELD",
            help="The field that names the event: published twice, it is admitted once.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and say what would be published.")] = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish events from outside: all of them, or none where one is invalid.

    What goes to a saga's intake starts sagas. Data is held against --event, or against what --app declares; the
    coordinator checks it again, and what it refuses ends in its dead letters. Exits with 2 where anything is invalid,
    every problem listed, and 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus
    from pavane.cli.targets import load_event, load_targets

    targets = load_targets(app) if app else None
    order = Order(
        topic=topic,
        kind=kind,
        event=load_event(event) if event is not None else None,
        targets=targets,
        id_field=id_field,
        documents=read_documents(file, data),
        dry_run=dry_run,
    )

    async def send(opened: Bus) -> Published:
        return await _publish(opened, order)

    done = with_bus(bus, send, create=targets is not None, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "topic": done.topic,
                "type": done.type,
                "published": 0 if dry_run else len(done.events),
                "valid": len(done.events),
                "validated_by": done.validated,
                "events": [event.id for event in done.events],
                "sagas": list(done.sagas),
                "traces": list(done.traces),
            }
        )
        return
    many = f"{len(done.events)} {'event' if len(done.events) == 1 else 'events'}"
    checked = validated_by(done.validated, "--app or --event")
    print(f"{'would publish' if dry_run else 'published'} {many} of type {done.type} to {done.topic}, {checked}")
    if not (dry_run or done.kept):
        _print_links(done, settings_for(bus).jaeger_url)
    if done.sagas and is_terminal() and not dry_run:
        where = f" --bus {bus}" if bus is not None else ""
        say(f"next: pavane sagas show {done.sagas[0]}{where}")


def _print_links(done: Published, jaeger_url: str | None) -> None:
    """Where each trace is to be seen: by its id if it began here, else by a search for its saga."""
    from pavane_tracing.conventions import COORDINATOR_SERVICE
    from pavane_tracing.jaeger import Jaeger

    if jaeger_url is None:
        return
    jaeger = Jaeger(jaeger_url)
    searches = [jaeger.search_link(saga, COORDINATOR_SERVICE) for saga in done.sagas]
    links = [jaeger.link(trace) for trace in done.traces] or searches
    for link in links[:_MOST_LINKS]:
        print(f"trace: {link}")
    if len(links) > _MOST_LINKS:
        print(f"... and {len(links) - _MOST_LINKS} more traces")


async def _publish(bus: Bus, order: Order) -> Published:
    from pavane_saga.intake import saga_id_of

    directory = await _directory(bus, order)
    intake = next((saga for saga in directory.sagas.values() if saga.intake == order.topic), None)
    await _check_topic(bus, order, directory)
    kind = order.kind or (intake.starts if intake is not None else order.topic)
    contract = order.event or _contract(order, kind)
    events = _envelopes(order, kind, contract)
    named = tuple(saga_id_of(event.source, event.id) for event in events) if intake is not None else ()
    by = contract.__name__ if contract else None
    if order.dry_run:
        return Published(order.topic, kind, events, named, by, traces=(), kept=False)
    traces, kept = await _say(bus, order.topic, events, named)
    return Published(order.topic, kind, events, named, by, traces=traces, kept=kept)


async def _directory(bus: Bus, order: Order) -> "Directory":
    """Who is on the bus, and who --app names."""
    from pavane.plan import step_plan
    from pavane_saga.manifest import Directory, Manifest, SagaPlan, read_directory

    found = await read_directory(bus)
    if order.targets is None:
        return found
    agents = {each.name: Manifest(each.name, "", tuple(map(step_plan, each.steps.values()))) for each in order.targets.agents}
    sagas = {each.name: SagaPlan.of(each) for each in order.targets.sagas}
    return Directory({**found.agents, **agents}, {**found.sagas, **sagas})


async def _check_topic(bus: Bus, order: Order, directory: "Directory") -> None:
    topic, there = order.topic, await bus.topics()
    intakes = {saga.intake for saga in directory.sagas.values()}
    if topic.startswith("pavane.") or topic.endswith((".commands", ".dead-letters")):
        problem = Problem(topic, "topic.reserved", "only the platform writes there; publish to an intake instead")
        raise ConfigurationError("nothing was published", [problem])
    if topic in directory.topics() - intakes:
        message = (
            "sagas build on what agents say there, and an event from outside belongs to no saga: everything from outside"
            f" enters by an intake ({', '.join(sorted(intakes)) or 'none is known yet'})"
        )
        raise ConfigurationError("nothing was published", [Problem(topic, "topic.inside", message)])
    if topic in there:
        return
    if topic in intakes and bus.embedded:
        if not order.dry_run:
            await bus.create_topics([TopicSpec(topic)])
        return
    known = ", ".join(sorted(intakes)) or "none known: start the saga first, or name it with --app"
    raise UnknownTopic(f"nothing was published: there is no topic {topic!r}; intakes: {known}")


def _contract(order: Order, kind: str) -> type[Event] | None:
    """The class that --app declares for a type: a saga's start, or what an agent produces or reads."""
    from pavane.plan import event_classes
    from pavane_events.contracts import defining

    if order.targets is None:
        return None
    classes = [saga.starts for saga in order.targets.sagas]
    classes += [each for agent in order.targets.agents for each in event_classes(agent)]
    found = next((each for each in classes if each.event_type == kind), None)
    if found is None:
        message = f"no class of type {kind!r} is declared by what --app names"
        raise ConfigurationError("nothing was published", [Problem("--app", "type.unknown", message)])
    return defining(found)


def _envelopes(order: Order, kind: str, contract: type[Event] | None) -> tuple[Envelope, ...]:
    """Every document as an event. Raises :class:`ContractViolation` with all that is wrong with any of them."""
    from pavane_saga.wire import timestamp

    problems: list[Problem] = []
    if contract is not None and contract.event_type != kind:
        problems.append(Problem("--event", "type.other", f"{contract.__name__} is {contract.event_type}, not {kind}"))
    now = timestamp(time.time())
    events: list[Envelope] = []
    named: dict[str, tuple[str, bytes]] = {}
    for document in order.documents:
        name = _name(order, document, problems)
        body = document.to_json()
        first, said = named.setdefault(name, (document.where, body)) if name is not None else ("", body)
        if said != body:
            message = f"{first} has the same one and says something else: only one of them would be admitted"
            problems.append(Problem(document.place(order.id_field or ""), "id.doubled", message))
        if contract is not None:
            try:
                contract.from_json_strictly(body)
            except ContractViolation as error:
                problems += [Problem(document.place(each.where), each.code, each.message) for each in error.problems]
        events.append(
            Envelope(
                id=name or uuid7(),
                source=SOURCE,
                type=kind,
                data=body,
                time=now,
                subject=name,
                dataschema=contract.dataschema() if contract is not None else None,
            )
        )
    if problems:
        raise ContractViolation("nothing was published: not everything is valid", problems)
    return tuple(events)


def _name(order: Order, document: Document, problems: list[Problem]) -> str | None:
    if order.id_field is None:
        return None
    value = document.members.get(order.id_field)
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
        return str(value)
    problems.append(Problem(document.place(order.id_field), "id.missing", "--id-field names it: a text or a whole number"))
    return None


async def _say(bus: Bus, topic: str, events: Sequence[Envelope], sagas: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Publish the events under a trace of their own each: the traces' ids, and whether their spans are kept."""
    from pavane.cli.speaking import speaking
    from pavane_tracing.propagation import span_context

    traces: list[str] = []
    async with speaking(bus, "cli") as outbox:
        for index, event in enumerate(events):
            saga = sagas[index] if sagas else None
            trace = outbox.begin(topic, event.id, event.type, saga=saga, size=len(event.data))
            outbox.messages.append(event.with_trace(trace).to_message(topic, key=saga))
            context = span_context(trace)
            if context is not None:
                traces.append(f"{context.trace_id:032x}")
    return tuple(traces), outbox.tracing.keep
