"""``pavane sagas``: which sagas there are, and what happened in one of them."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pavane.cli.options import BusOption, JsonOption
from pavane.cli.output import clock_time, day_time, moment, paint, print_json, print_table, safe, say, span
from pavane_events.bus import Bus
from pavane_events.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from pavane_saga.facts import Settled, UndoFailed
    from pavane_saga.story import Chapter, Story, Summary

app = typer.Typer(help="Sagas: the list, and the story of one.", no_args_is_help=True)

SagaArgument = Annotated[
    str, typer.Argument(metavar="SAGA", help="An id, the beginning of one, or a subject (DE-0001).", show_default=False)
]

_STYLES = {
    "completed": "green",
    "compensated": "cyan",
    "compensating": "yellow",
    "parked": "red",
    "abandoned": "red",
    "running": "bold",
}


class State(StrEnum):
    """The states of a saga."""

    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    PARKED = "parked"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option("--state", help="Only sagas in that state.", show_default=False)] = None,
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sagas that were started, oldest first.

    Read from the topics alone: nothing needs to run. Exits with 3 where the bus is unavailable.
    """
    from pavane.cli.session import check_deployed, with_bus
    from pavane_saga.story import list_sagas

    async def read(opened: Bus) -> "list[Summary]":
        await check_deployed(opened)
        return await list_sagas(opened)

    found = [each for each in with_bus(bus, read) if state is None or each.state == state.value]
    if as_json:
        print_json([each.to_json() for each in found])
        return
    print_table(("SAGA", "SUBJECT", "STATE", "STARTED", "TOOK", "NAME"), [_row(each) for each in found], _STYLES)
    counts = {each.state: 0 for each in found}
    for each in found:
        counts[each.state] += 1
    say(
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        or "no saga" + (" in that state" if state else "")
    )


@app.command("overdue")
def overdue(bus: BusOption = None, as_json: JsonOption = False) -> None:
    """List what has not come in time: which event is missing, who owes it, since when.

    An answer is overdue by its step's deadline or its saga's, an undo after a minute; those that failed for good are
    listed by `sagas list --state parked`. Read from the topics alone. Exits with 3 where the bus is unavailable.
    """
    from pavane.cli.session import check_deployed, with_bus
    from pavane_saga.overdue import Overdue, list_overdue

    now_ms = int(time.time() * 1000)

    async def read(opened: Bus) -> list[Overdue]:
        await check_deployed(opened)
        return await list_overdue(opened, now_ms)

    found = with_bus(bus, read)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    rows = [
        (
            each.saga,
            safe(each.subject or ""),
            f"outside, for {each.step}" if each.outside else each.step,
            " or ".join(each.missing),
            each.event,
            day_time(each.since_ms),
            span(now_ms - each.due_ms),
        )
        for each in found
    ]
    print_table(("SAGA", "SUBJECT", "OWED BY", "MISSING", "FOR", "SINCE", "OVERDUE"), rows)
    say(f"{len(found)} overdue" if found else "nothing is overdue")


@app.command("locks")
def locks(bus: BusOption = None, as_json: JsonOption = False) -> None:
    """List the locks that sagas hold, and who waits for them, in order.

    Read from the topics alone. Exits with 3 where the bus is unavailable.
    """
    from pavane.cli.session import check_deployed, with_bus
    from pavane_saga.locks import Held, list_locks

    async def read(opened: Bus) -> list[Held]:
        await check_deployed(opened)
        return await list_locks(opened)

    found = with_bus(bus, read)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    print_table(("LOCK", "HELD BY", "WAITING"), [(safe(each.lock), each.holder, " ".join(each.waiting)) for each in found])
    say(f"{len(found)} held" if found else "no lock is held")


@app.command("owed")
def owed(
    whose: Annotated[str, typer.Argument(metavar="AGENT[/STEP]", help="An agent, or one step of it.", show_default=False)],
    bus: BusOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what open sagas may still ask of an agent or a step: answers, and undos should they fail.

    While anything is listed it must not go: keep it as `retiring`. Exits with 1 where something is owed, 2 where nobody has
    ever declared that agent or step, 3 where the bus is unavailable.
    """
    from pavane.cli.session import check_deployed, with_bus
    from pavane_saga.owed import Owed, list_owed

    async def read(opened: Bus) -> list[Owed]:
        await check_deployed(opened)
        return await list_owed(opened, whose)

    found = with_bus(bus, read)
    if as_json:
        print_json([each.to_json() for each in found])
    else:
        rows = [(each.saga, safe(each.subject or ""), each.step, each.what, each.event) for each in found]
        print_table(("SAGA", "SUBJECT", "STEP", "OWES", "FOR"), rows)
        say(f"{len(found)} owed: it must stay" if found else "nothing is owed: it may go")
    if found:
        raise typer.Exit(1)


@app.command("show")
def show(saga: SagaArgument, bus: BusOption = None, as_json: JsonOption = False) -> None:
    """Show a saga: what happened, its state, who owes what, which effects may stand.

    Folded from the topics by the coordinator's own engine. Exits with 2 where no saga, or more than one, is meant.
    """
    from pavane.cli.session import with_bus

    async def read(opened: Bus) -> "Story":
        return await story_of(opened, saga)

    story = with_bus(bus, read)
    if as_json:
        print_json(story.to_json())
    else:
        _print_story(story)


async def story_of(bus: Bus, wanted: str) -> "Story":
    """The story of the one saga that is meant. Raises :class:`ConfigurationError` where none or several are."""
    from pavane_saga.story import read_story

    story = await read_story(bus, await saga_id(bus, wanted))
    if story is None:
        raise unknown_saga(wanted)
    return story


async def saga_id(bus: Bus, wanted: str) -> str:
    """The id of the one saga that is meant by an id, the beginning of one, or a subject."""
    from pavane.cli.session import check_deployed
    from pavane_saga.story import find_saga

    await check_deployed(bus)
    found = await find_saga(bus, wanted)
    if len(found) == 1:
        return found[0]
    if not found:
        raise unknown_saga(wanted)
    listed = [Problem(each, "saga.ambiguous", "one of them") for each in found[:10]]
    raise ConfigurationError(f"{len(found)} sagas may be meant by {wanted!r}: write more of the id", listed)


def unknown_saga(wanted: str) -> ConfigurationError:
    """There is no such saga."""
    message = "no saga has that id, begins so, or has that subject; `pavane sagas list` shows all"
    return ConfigurationError("no such saga", [Problem(wanted, "saga.unknown", message)])


def _row(summary: "Summary") -> tuple[str, ...]:
    started, ended = summary.started_ms, summary.ended_ms
    return (
        summary.saga,
        safe(summary.subject or ""),
        summary.state,
        day_time(started) if started is not None else "",
        span(ended - started) if started is not None and ended is not None else "",
        summary.name or "?",
    )


def _print_story(story: "Story") -> None:
    summary = story.summary
    print(
        f"saga {paint(summary.saga, 'bold')}  {summary.name or 'of an unknown kind'}  {safe(summary.subject or '')}".rstrip()
    )
    took = ""
    if summary.started_ms is not None:
        began = f"started {moment(summary.started_ms)}"
        took = f"{began}, took {span(summary.ended_ms - summary.started_ms)}" if summary.ended_ms is not None else began
    print(f"{paint(summary.state, _STYLES[summary.state])}  {took}")
    failed = story.failure
    if failed is not None:
        by = f" ({failed.step})" if failed.step else ""
        why = f": {safe(failed.reason)}" if failed.reason and not failed.reason.startswith(failed.code) else ""
        print(f"turned back: {safe(failed.code)}{by}{why}")
    print()
    rows = [_chapter_row(each) for each in story.chapters]
    print_table(("TIME", "WHO", "WHAT", "WHERE"), rows)
    print()
    _print_list(
        "owed",
        [f"{e.step} owes an answer to {e.type}{' (waits for its other arms)' if e.waiting else ''}" for e in story.owed],
    )
    _print_list("not seen yet", list(story.unseen))
    _print_list("effects that may stand", [step for step, _ in story.standing])
    _print_list("failed for good, and waiting for a decision", [_stuck(each) for each in story.stuck])
    if story.stuck:
        say("decide: pavane sagas retry | done --by-hand | skip | abandon, each with --why, first with --dry-run")


def _stuck(failed: "UndoFailed | Settled") -> str:
    from pavane_saga.facts import UndoFailed

    what = "the undo of " if isinstance(failed, UndoFailed) else ""
    return f"{what}{failed.step}: {failed.code}" + (f" ({failed.reason})" if failed.reason else "")


def _chapter_row(chapter: "Chapter") -> tuple[str, ...]:
    what = "↩ undone" if chapter.kind == "undone" else chapter.what
    if chapter.code and chapter.code not in (what, chapter.reason):
        what += f": {chapter.code}"
    if chapter.reason and chapter.kind != "turned-back":
        what += f" ({chapter.reason})"
    place = f"{chapter.partition}@{chapter.offset}"
    where = place if chapter.topic == chapter.what else f"{chapter.topic.rpartition('.')[2]} {place}"
    return clock_time(chapter.at_ms), safe(chapter.who.removeprefix("pavane.")), safe(what), where


def _print_list(title: str, lines: list[str]) -> None:
    print(f"{title}: {'none' if not lines else ''}".rstrip())
    for line in lines:
        print(f"  {safe(line)}")
