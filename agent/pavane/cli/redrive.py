"""``pavane dead-letters redrive``: dead letters are tried again, and who said so is on record."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from pavane.cli.decisions import DryRunOption, WhoOption, WhyOption, name_of
from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import print_json, safe, say
from pavane_events.bus import Bus
from pavane_events.dead_letter import dead_letters_topic, reason_headers
from pavane_events.errors import ConfigurationError, Problem, UndecodableRecord, UnknownTopic
from pavane_events.record import Record

if TYPE_CHECKING:
    from pavane_saga.facts import Decided
    from pavane_saga.redrive import Redrive


@dataclass(frozen=True, slots=True)
class Errand:
    """What is asked for."""

    agent: str
    places: Sequence[str]
    who: str
    why: str
    again: bool
    dry_run: bool


def redrive(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent, or pavane.coordinator.", show_default=False)],
    places: Annotated[list[str], typer.Argument(metavar="OFFSET...", help="As listed: PARTITION@OFFSET.", show_default=False)],
    why: WhyOption,
    who: WhoOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were redriven before.")] = False,
    dry_run: DryRunOption = False,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have dead letters tried again, when the reason is gone: all of them, or none where one may not be.

    An observer's input, and a step's outside of sagas, goes back to its agent; what an intake refused goes back there as it
    came. A step in a saga, or its undo, is tried again where the saga is parked and waits for that decision, as by sagas
    retry; else its failure has turned the saga back. The letters stay where they are. Exits with 2 where one may not be
    redriven, 3 where the bus is unavailable.
    """
    from pavane.cli.session import with_bus

    if not why.strip():
        raise typer.BadParameter("say why: it goes on record", param_hint="--why")
    errand = Errand(agent, places, name_of(who), why.strip(), again, dry_run)

    async def send(opened: Bus) -> "tuple[list[Redrive], list[str]]":
        return await _redrive(opened, errand)

    done, before = with_bus(bus, send)
    if as_json:
        redriven = [{"letter": each.letter, "step": each.step, "to": each.topic, "saga": each.saga} for each in done]
        print_json({"agent": agent, "redriven": [] if dry_run else redriven, "would_redrive": redriven if dry_run else []})
        return
    for each in done:
        what = each.step or "the intake"
        print(f"{'would redrive' if dry_run else 'redrove'} {each.letter} to {safe(what)}")
    if before:
        say(f"redriven before, and left alone: {', '.join(before)} (--again)")


async def _redrive(bus: Bus, errand: Errand) -> "tuple[list[Redrive], list[str]]":
    """Publish the letters and the facts about them in one go. What was redriven, and what was before."""
    from pavane_saga.manifest import read_directory
    from pavane_saga.redrive import redrive_of

    directory = await read_directory(bus)
    letters = await _letters(bus, errand)
    redrives = [
        redrive_of(letter, errand.agent, directory, await _source(bus, letter) if _is_truncated(letter) else None)
        for letter in letters
    ]
    counts = await _counts(bus, errand.agent)
    before = [each.letter for each in redrives if counts.get(each.letter) and not errand.again]
    decided: dict[tuple[str | None, str], Decided] = {}
    todo: list[Redrive] = []
    for each in redrives:
        if each.letter in before:
            continue
        facts = await _decided(bus, errand, each) if each.decides else ()
        if each.decides and not facts:
            before.append(each.letter)
            continue
        decided.update(((each.saga, fact.identity), fact) for fact in facts)
        todo.append(each)
    if todo and not errand.dry_run:
        await _publish(bus, errand, todo, counts, decided)
    return todo, before


async def _decided(bus: Bus, errand: Errand, redrive: "Redrive") -> "Sequence[Decided]":
    """The decision to try a step in a saga again, or its undo; none where it was said before.

    Raises :class:`ConfigurationError` where the saga does not wait for it.
    """
    from pavane.cli.sagas import story_of
    from pavane_saga.operator import decisions
    from pavane_saga.redrive import turned_back

    story = await story_of(bus, redrive.saga or "")
    at_ms = int(time.time() * 1000)
    try:
        return decisions(story, "retry", redrive.step, who=errand.who, why=errand.why, at_ms=at_ms)
    except ConfigurationError as error:
        raise turned_back(redrive, error.problems[0].message if error.problems else str(error)) from None


async def _publish(
    bus: Bus,
    errand: Errand,
    redrives: "Sequence[Redrive]",
    counts: dict[str, int],
    decided: "Mapping[tuple[str | None, str], Decided]",
) -> None:
    from pavane.cli.speaking import speaking
    from pavane_saga.facts import Redriven
    from pavane_saga.wire import FACTS, GRANT, fact_envelope, fact_message
    from pavane_tracing.conventions import OPERATOR_SERVICE

    now_s = time.time()
    async with speaking(bus, OPERATOR_SERVICE) as outbox:
        for each in redrives:
            number = counts.get(each.letter, 0) + 1
            fact = Redriven(errand.agent, each.letter, each.step, number, errand.who, errand.why, int(now_s * 1000))
            envelope = fact_envelope(fact, saga=each.saga, source=f"/operators/{quote(errand.who)}", time_s=now_s)
            event_id = each.event.id if each.event is not None else envelope.id
            kind = envelope.type if each.decides else GRANT
            trace = outbox.begin(each.topic, event_id, kind, saga=each.saga, size=0, after=each.traces, edge="redrive")
            stated = fact_message(envelope, trace, partition=None if each.saga else each.partition)
            outbox.messages += [stated] if each.decides else [each.message(number, trace, now_s), stated]
        for (saga, _), said in decided.items():
            envelope = fact_envelope(said, saga=saga, source=f"/operators/{quote(errand.who)}", time_s=now_s)
            trace = outbox.begin(FACTS, envelope.id, envelope.type, saga=saga, size=len(envelope.data), edge="redrive")
            outbox.messages.append(fact_message(envelope, trace))


async def _letters(bus: Bus, errand: Errand) -> list[Record]:
    topic = dead_letters_topic(errand.agent)
    if topic not in await bus.topics():
        raise UnknownTopic(f"nobody called {errand.agent!r} has dead letters")
    there = {f"{record.partition}@{record.offset}": record async for record in bus.read(topic)}
    unknown = [each for each in errand.places if each not in there]
    if unknown:
        message = f"there is none; `pavane dead-letters list {errand.agent}` shows all, as PARTITION@OFFSET"
        problems = [Problem(each, "dead-letter.unknown", message) for each in unknown]
        raise ConfigurationError("nothing was redriven", problems)
    return [there[each] for each in dict.fromkeys(errand.places)]


def _is_truncated(letter: Record) -> bool:
    return reason_headers(letter.headers).get("truncated") == "true"


async def _source(bus: Bus, letter: Record) -> Record:
    """The record itself: it was too large to be kept beside its reason."""
    reason = reason_headers(letter.headers)
    offset = int(reason.get("source_offset", "-1"))
    async for record in bus.read(
        reason.get("source_topic", ""), partition=int(reason.get("source_partition", "0")), start=offset
    ):
        if record.offset == offset:
            return record
        break
    gone = Problem(f"{letter.partition}@{letter.offset}", "redrive.gone", "its topic does not keep it any more")
    raise ConfigurationError("nothing was redriven", [gone])


async def _counts(bus: Bus, agent: str) -> dict[str, int]:
    """How often letters of that agent were redriven before."""
    from pavane_events.envelope import parse
    from pavane_saga.facts import Redriven
    from pavane_saga.wire import FACTS, read_fact

    counts: dict[str, int] = {}
    async for record in bus.read(FACTS):
        try:
            fact: Redriven | object = read_fact(parse(record))
        except UndecodableRecord:
            continue
        if isinstance(fact, Redriven) and fact.agent == agent:
            counts[fact.letter] = max(counts.get(fact.letter, 0), fact.number)
    return counts
