"""``pavane answer``: what a person answers to a saga that waits for it; ``pavane sagas waiting``: which do."""

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast
from urllib.parse import quote

import typer

from pavane.cli.decisions import WhoOption, name_of
from pavane.cli.documents import read_documents, validated_by
from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import day_time, moment, print_json, print_table, safe, say, span
from pavane.cli.sagas import SagaArgument, story_of
from pavane_events.bus import Bus
from pavane_events.envelope import Envelope
from pavane_events.errors import ConfigurationError, Problem
from pavane_events.event import Event
from pavane_events.ids import derived, uuid7

if TYPE_CHECKING:
    from pavane.cli.targets import Targets
    from pavane_saga.awaited import Awaited
    from pavane_saga.manifest import SagaPlan
    from pavane_saga.story import Story


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that somebody gives."""

    saga: str
    kind: str | None
    data: bytes
    who: str
    targets: "Targets | None"
    name: str | None
    dry_run: bool


class _Sent(NamedTuple):
    """What was sent, or would be, to which step. ``validated``: by which class; None where none was at hand. ``counted_ms``:
    since when it counts, where it does already: then nothing is sent."""

    step: str
    envelope: Envelope
    validated: str | None
    counted_ms: int | None = None


def answer(
    saga: SagaArgument,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|-]", help="The answer as a JSON object.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="The answer itself.", show_default=False)] = None,
    kind: Annotated[
        str | None,
        typer.Option("--type", help="The event type, where the saga waits for several.", show_default=False),
    ] = None,
    who: WhoOption = None,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="TARGET", help="The saga whose class the answer must fit.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--id", help="A name for this answer: sent twice, it is one.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and say what would be sent.")] = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a saga that waits for somebody outside: a manual decision, a document that came by post.

    The first answer of a type counts; one that comes too late, or that does not fit, ends in the coordinator's dead
    letters. The same --id from the same person is the same answer: once it counts, that is said.

    Exits with 2 where the saga waits for nothing, or the answer does not fit; 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus
    from pavane.cli.targets import load_targets

    documents = read_documents(file, data)
    if len(documents) != 1:
        raise ConfigurationError("nothing was sent", [Problem("input", "answer.one", "one JSON object is one answer")])
    targets = load_targets(app) if app else None
    reply = Reply(saga, kind, documents[0].to_json(), name_of(who), targets, name, dry_run)

    async def send(opened: Bus) -> _Sent:
        return await _send(opened, reply)

    step, envelope, contract, counted_ms = with_bus(bus, send)
    checked = validated_by(contract, "--app")
    if contract is None and counted_ms is None:
        say(f"the answer is {checked}: the coordinator refuses one that does not fit")
    if as_json:
        print_json(
            {
                "saga": envelope.saga,
                "step": step,
                "type": envelope.type,
                "id": envelope.id,
                "sent": not dry_run and counted_ms is None,
                "counted_at_ms": counted_ms,
                "validated_by": contract,
            }
        )
        return
    if counted_ms is not None:
        print(f"answered already: {step} in saga {envelope.saga} with {envelope.type}, {moment(counted_ms)}: nothing to do")
        return
    verb = "would answer" if dry_run else "answered"
    print(f"{verb} {step} in saga {envelope.saga} with {envelope.type}, {checked}")
    if not dry_run:
        say(f"the coordinator admits it when it reads it: pavane sagas show {envelope.saga}")


def waiting(bus: BusOption = None, as_json: JsonOption = False) -> None:
    """List what sagas wait for from outside: which answer, for which step, since when, and how long it will wait.

    Read from the topics alone. Exits with 3 where the bus is unavailable.
    """
    from pavane.cli.session import check_deployed, with_bus
    from pavane_saga.awaited import list_awaited

    async def read(opened: Bus) -> "list[Awaited]":
        await check_deployed(opened)
        return await list_awaited(opened)

    found = with_bus(bus, read)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    now_ms = int(time.time() * 1000)
    rows = [
        (
            each.saga,
            safe(each.subject or ""),
            each.step,
            " or ".join(each.types),
            day_time(each.since_ms),
            span(each.due_ms - now_ms) if each.due_ms is not None and each.due_ms > now_ms else "",
        )
        for each in found
    ]
    print_table(("SAGA", "SUBJECT", "STEP", "WAITS FOR", "SINCE", "GIVES UP IN"), rows)
    say(f"{len(found)} waiting: pavane answer SAGA --data JSON" if found else "nothing waits for anybody outside")


async def _send(bus: Bus, reply: Reply) -> _Sent:
    from pavane.cli.speaking import speaking
    from pavane_saga.awaited import awaited_in, choose
    from pavane_saga.manifest import read_directory

    story = await story_of(bus, reply.saga)
    saga = story.summary.saga
    plan = (await read_directory(bus)).sagas.get(story.summary.name or "")
    counted = _counted(story, plan, reply) if plan is not None and reply.name is not None else None
    if counted is not None:
        return counted
    awaited = awaited_in(story, plan) if plan is not None else []
    meant = choose(awaited, reply.kind)
    if len(meant) != 1:
        raise _unclear(story.summary.state, awaited, reply.kind)
    found, kind = meant[0]
    contract = _contract(reply.targets, kind)
    if contract is not None:
        contract.from_json_strictly(reply.data)
    envelope = _envelope(reply, saga, kind, found.subject, contract)
    if not reply.dry_run:
        after = [event.trace for event in story.events[:1]]
        async with speaking(bus, "cli") as outbox:
            trace = outbox.begin(found.intake, envelope.id, kind, saga=saga, size=len(reply.data), after=after)
            outbox.messages.append(envelope.with_trace(trace).to_message(found.intake, key=saga))
    return _Sent(found.step, envelope, contract.__name__ if contract is not None else None)


def _envelope(reply: Reply, saga: str, kind: str, subject: str | None, contract: type[Event] | None) -> Envelope:
    from pavane_saga.wire import timestamp

    return Envelope(
        id=derived("answer", reply.name) if reply.name is not None else uuid7(),
        source=f"/people/{quote(reply.who)}",
        type=kind,
        data=reply.data,
        time=timestamp(time.time()),
        subject=subject,
        dataschema=contract.dataschema() if contract is not None else None,
        saga=saga,
    )


def _counted(story: "Story", plan: "SagaPlan", reply: Reply) -> _Sent | None:
    """The same answer, which counts already; None where it does not. Raises :class:`ConfigurationError` where it said
    something else."""
    from pavane_saga.intake import answer_id_of

    events = {event.id: event for event in story.events}
    for kind in plan.answers if reply.kind is None else [reply.kind]:
        envelope = _envelope(reply, story.summary.saga, kind, story.summary.subject, None)
        event = events.get(answer_id_of(story.summary.saga, kind, envelope.source, envelope.id))
        if event is not None:
            contract = _contract(reply.targets, kind)
            if not _is_same(event.data, reply.data, contract):
                message = f"the answer {reply.name} counts already, and said something else; --type says which is meant"
                raise ConfigurationError("nothing was sent", [Problem("--id", "answer.otherwise", message)])
            step = next((step.name for step, *_ in story.plan.steps_for(kind)), "")
            return _Sent(step, envelope, contract.__name__ if contract is not None else None, story.times[event.id])
    return None


def _is_same(counted: bytes, said: bytes, contract: type[Event] | None) -> bool:
    """Whether what was admitted, as its class writes it, is what is said now; without the class, in the fields of that."""
    if contract is not None:
        return contract.from_json_strictly(said).to_json() == counted
    before: object = json.loads(counted)
    now: object = json.loads(said)
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before == now
    known = cast("dict[str, object]", before)
    return all(name in known and known[name] == member for name, member in cast("dict[str, object]", now).items())


def _contract(targets: "Targets | None", kind: str) -> type[Event] | None:
    if targets is None:
        return None
    answers = {each.event_type: each for saga in targets.sagas for each in saga.answers}
    if kind not in answers:
        message = f"no saga that --app names takes in {kind}"
        raise ConfigurationError("nothing was sent", [Problem("--app", "type.unknown", message)])
    return answers[kind]


def _unclear(state: str, awaited: "list[Awaited]", kind: str | None) -> ConfigurationError:
    types = sorted({name for each in awaited for name in each.types})
    if not types:
        message = f"it is {state}, and waits for nothing from outside: pavane sagas waiting lists those that do"
    elif kind is not None:
        message = f"it does not wait for {kind}, but for {', '.join(types)}"
    else:
        message = f"it waits for several: --type {' or '.join(types)}"
    return ConfigurationError("nothing was sent", [Problem("saga", "answer.unclear", message)])
